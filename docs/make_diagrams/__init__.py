"""Draws the pattern pages' pictures from the code: `make diagram`.

    breaker     the circuit breaker's table of transitions
    recovery    a feed with a hole, as a recovery fills it
    fence       the states of a fence, tried out on a shard in memory
    gather      how branches end, in virtual time
    consensus   eight venues, and what becomes of each

Each picture is Mermaid in the first such block of its page; a test holds the two together. The table of attacks on the
consensus is written in the same way, from `benchmarks/attacks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import attacks
from docs.make_diagrams import breaker, consensus, fence, gather, recovery

FOLDER = Path(__file__).parents[1] / "explanation"
DIAGRAMS: dict[str, Callable[[], str]] = {
    "circuit-breaker.md": breaker.diagram,
    "pub-sub.md": recovery.diagram,
    "sharding.md": fence.diagram,
    "scatter-gather.md": gather.diagram,
    "consensus.md": consensus.diagram,
}
BLOCK = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
TABLE_PAGE = "consensus.md"
TABLE = re.compile(r"(?<=^<!-- attacks -->\n\n).*?(?=^\n<!-- /attacks -->$)", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    """A page as it is."""
    return (FOLDER / page).read_text(encoding="utf-8")


def with_diagram(page: str) -> str:
    """A page with its picture as the code draws it today."""
    text = read(page)
    assert BLOCK.search(text), f"{page} has no block for its picture"
    return BLOCK.sub(lambda _: DIAGRAMS[page](), text, count=1)


def with_table() -> str:
    """The page about the consensus with its table as it is measured today."""
    text = read(TABLE_PAGE)
    assert TABLE.search(text), f"{TABLE_PAGE} has no place for its table"
    return TABLE.sub(lambda _: attacks.table(), text)


def write() -> None:
    """Draw all pictures, and write the table."""
    for page in DIAGRAMS:
        (FOLDER / page).write_text(with_diagram(page), encoding="utf-8")
    (FOLDER / TABLE_PAGE).write_text(with_table(), encoding="utf-8")
