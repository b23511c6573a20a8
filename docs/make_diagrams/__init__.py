"""Draws the pattern pages' pictures from the code: `make diagram`.

    breaker     the circuit breaker's table of transitions
    recovery    a feed with a hole, as a recovery fills it
    fence       the states of a fence, tried out on a shard in memory
    gather      how branches end, in virtual time

Each picture is Mermaid in the first such block of its page; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from docs.make_diagrams import breaker, fence, gather, recovery

FOLDER = Path(__file__).parents[1] / "explanation"
DIAGRAMS: dict[str, Callable[[], str]] = {
    "circuit-breaker.md": breaker.diagram,
    "pub-sub.md": recovery.diagram,
    "sharding.md": fence.diagram,
    "scatter-gather.md": gather.diagram,
}
BLOCK = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    """A page as it is."""
    return (FOLDER / page).read_text(encoding="utf-8")


def with_diagram(page: str) -> str:
    """A page with its picture as the code draws it today."""
    text = read(page)
    assert BLOCK.search(text), f"{page} has no block for its picture"
    return BLOCK.sub(lambda _: DIAGRAMS[page](), text, count=1)


def write() -> None:
    """Draw all."""
    for page in DIAGRAMS:
        (FOLDER / page).write_text(with_diagram(page), encoding="utf-8")
