"""Tables for people and for awk: columns if they fit the terminal, else a block for each row. No value is ever broken.

    coin      price          status          bitcoin
    bitcoin   66654.81 USD   fresh             price 66654.81 USD  status fresh
    ethereum  3538.23 USD    fresh             age 0.7 s old  mean 66679.743

A block has as many `name value` pairs on a line as fit; a value that does not fit beside its name is below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

GAP, TIGHT = "  ", " "  # between columns; the second if the first is too wide
_BOLD = "1"
_COLOURS: Mapping[str, str] = {
    "running": "32",
    "fresh": "32",
    "stale": "33",
    "starting": "33",
    "restarting": "33",
    "paused": "33",
    "stopped": "2",
    "failed": "31",
}


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None, coloured: bool
) -> Iterator[str]:
    """The lines of a table in a terminal of this width; None: as wide as it needs to be."""
    held = list(rows)
    widths = [max(map(len, column)) for column in zip(columns, *held, strict=True)]
    gap = GAP if _fits(widths, GAP, width) else TIGHT
    if held and not _fits(widths, gap, width):
        for row in held:
            yield from _block(columns, row, width or 0, coloured)
        return
    widths[-1] = 0  # nothing is aligned with it
    for row, colours in ((columns, dict.fromkeys(columns, _BOLD)), *((row, _COLOURS) for row in held)):
        painted = (_painted(cell, colours.get(cell), size, coloured) for cell, size in zip(row, widths, strict=True))
        yield gap.join(painted).rstrip()


def _fits(widths: Sequence[int], gap: str, width: int | None) -> bool:
    return width is None or sum(widths) + len(gap) * (len(widths) - 1) <= width


def _block(columns: Sequence[str], row: Sequence[str], width: int, coloured: bool) -> Iterator[str]:
    """The first cell as its head, and below it the others with their names."""
    yield _painted(row[0], _BOLD, 0, coloured)
    line, length = "", 0
    for name, cell in zip(columns[1:], row[1:], strict=True):
        pair = f"{name} {cell}"
        shown = f"{name} {_painted(cell, _COLOURS.get(cell), 0, coloured)}"
        if line and len(GAP) + length + len(GAP) + len(pair) > width:
            yield f"{GAP}{line}"
            line, length = "", 0
        if not line and len(GAP) + len(pair) > width:
            yield f"{GAP}{name}"
            yield f"{GAP}{GAP}{cell}" if len(GAP) * 2 + len(cell) <= width else cell
            continue
        line, length = (f"{line}{GAP}{shown}", length + len(GAP) + len(pair)) if line else (shown, len(pair))
    if line:
        yield f"{GAP}{line}"


def _painted(text: str, colour: str | None, size: int, coloured: bool) -> str:
    padded = text.ljust(size)
    return f"\x1b[{colour}m{padded}\x1b[0m" if coloured and colour and text else padded
