"""Whether a figure became worse than its kept result. Pure: findings from two results.

Only rows with an aim are figures; the others explain them. A figure is worse if its median is more than `WORSE` worse
than the kept median, in the direction that its aim gives. Results of two machines are compared by ratios alone, whose
unit begins with `of` or `times`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import show_number

WORSE = 0.2
RATIOS = ("of ", "times ")

Result = Mapping[str, Any]  # what `report.as_json` wrote: machine, versions, rows


@dataclass(frozen=True)
class Finding:
    """One figure beside its kept result; `change` is the share by which it is worse, None if there is no telling."""

    name: str
    text: str
    change: float | None

    @property
    def is_worse(self) -> bool:
        return self.change is not None and self.change > WORSE


def compare(kept: Sequence[Result], fresh: Result) -> list[Finding]:
    """A finding for each figure of the fresh result."""
    before = {row["name"]: (result, row) for result in kept for row in result["rows"]}
    findings = []
    for row in fresh["rows"]:
        if row["aim"] is not None:
            result, was = before.get(row["name"], (None, None))
            same_machine = result is not None and result["machine"].get("cpu") == fresh["machine"].get("cpu")
            findings.append(_finding(was, row, same_machine=same_machine))
    return findings


def _finding(kept: Mapping[str, Any] | None, fresh: Mapping[str, Any], *, same_machine: bool) -> Finding:
    name = fresh["name"]
    if kept is None:
        return Finding(name, "no kept result", None)
    was, now, unit = kept["median"], fresh["median"], fresh["unit"]
    figures = f"{show_number(was)} before, {show_number(now)} now ({unit})"
    if not (same_machine or unit.startswith(RATIOS)):
        return Finding(name, f"{figures}, on another machine", None)
    if was == 0:
        return Finding(name, f"{figures}, of which no share can be told", None)
    more = (now - was) / abs(was)
    change = -more if fresh["aim"].startswith(">=") else more
    return Finding(name, f"{figures}, {abs(change):.0%} {'worse' if change > 0 else 'better'}", change)
