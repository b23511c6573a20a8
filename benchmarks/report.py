"""What was measured, as a table for people and as JSON for programs. Pure: text from rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks.figure import Aim, Row

COLUMNS = ("figure", "unit", "aim", "median", "min", "max", "runs", "verdict")
_TEXT_COLUMNS = {"figure", "unit", "verdict"}  # to the left; numbers to the right


def as_table(machine: Mapping[str, str], versions: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Two lines of where, then one line a row; the rows without an aim explain the one above them."""
    head = [", ".join(f"{name} {text}" for name, text in facts.items()) for facts in (machine, versions)]
    cells = [COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = ["  ".join(map(_aligned, COLUMNS, line, widths)).rstrip() for line in cells]
    return "\n".join([*head, "", *lines]) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name if row.aim is not None else f"  {row.name}",
        row.unit,
        "" if row.aim is None else show_aim(row.aim),
        *map(show_number, (row.median, min(row.values), max(row.values))),
        str(len(row.values)),
        "" if row.verdict is None else row.verdict.value,
    )


def _aligned(column: str, text: str, width: int) -> str:
    return text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)


def show_aim(aim: Aim) -> str:
    """`<= 5` or `>= 0.5`."""
    return f"{'>=' if aim.is_floor else '<='} {aim.bound:g}"


def show_number(value: float) -> str:
    """Three digits, or all of them before the point."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{places}f}"


def as_json(machine: Mapping[str, str], versions: Mapping[str, str], rows: Sequence[Row], *, is_quick: bool) -> str:
    """The same, with the values of every run."""
    told = {"machine": machine, "versions": versions, "quick": is_quick, "rows": [_fields(row) for row in rows]}
    return json.dumps(told, indent=2) + "\n"


def _fields(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "unit": row.unit,
        "aim": None if row.aim is None else show_aim(row.aim),
        "median": row.median,
        "min": min(row.values),
        "max": max(row.values),
        "runs": len(row.values),
        "values": list(row.values),
        "verdict": row.verdict,
    }
