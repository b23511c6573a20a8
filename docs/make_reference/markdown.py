"""Pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WRITTEN = "<!-- Written from the code by `make reference`: change the code, not this page. -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without its empty columns, nothing without rows; a bar or a line break inside a cell does not end it."""
    rows = list(rows)
    if not rows:
        return ""
    shown = [number for number in range(len(head)) if any(row[number] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(line[number]) for number in shown)} |\n" for line in lines)


def code(text: object) -> str:
    """A span of code."""
    return f"`{text}`"


def codes(texts: Iterable[object]) -> str:
    """Spans of code, by commas."""
    return ", ".join(code(text) for text in texts)


def joined(*parts: str) -> str:
    """A page: parts with an empty line between them, and one line break at the end."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
