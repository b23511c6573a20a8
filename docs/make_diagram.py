"""Draws the circuit breaker's transitions into `docs/explanation/circuit-breaker.md`: `make diagram`.

The table in `patterns/resilience/breaker_events.py` is the machine; the picture is made of it, and a test holds both
together.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from cotacoes.patterns.resilience.breaker_config import State
from cotacoes.patterns.resilience.breaker_events import TRANSITIONS, Reason

PAGE = Path(__file__).parent / "explanation" / "circuit-breaker.md"
BLOCK = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def diagram(table: Mapping[tuple[State, Reason], State] = TRANSITIONS) -> str:
    """As Mermaid: an arrow for each pair of states with its reasons; what leads there from everywhere is drawn once."""
    everywhere = {
        reason: to_state
        for (_, reason), to_state in table.items()
        if all(table.get((state, reason)) is to_state for state in State)
    }
    arrows: dict[tuple[str, str], list[str]] = {}
    for (from_state, reason), to_state in table.items():
        origin = "anywhere" if reason in everywhere else from_state.value
        said = arrows.setdefault((origin, to_state.value), [])
        if reason.value not in said:
            said.append(reason.value)
    lines = ["stateDiagram-v2", "    [*] --> closed"]
    lines += [f"    {origin} --> {to_state}: {', '.join(said)}" for (origin, to_state), said in arrows.items()]
    return "\n".join(lines) + "\n"


def with_diagram(page: str) -> str:
    """The page with the diagram of now."""
    assert BLOCK.search(page), "the page has no block for the diagram"
    return BLOCK.sub(lambda _: diagram(), page, count=1)


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
