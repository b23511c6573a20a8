"""What a figure is: values of several runs, an aim for their median, and the verdict.

The machine is shared and noisy, so no single value decides. The median of the runs is held against the aim; least and
most tell how far it can be trusted.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class MeasureError(Exception):
    """A figure could not be measured; the message says why."""


class Verdict(enum.StrEnum):
    """Whether the median is within the aim."""

    MET = "met"
    MISSED = "missed"


@dataclass(frozen=True)
class Aim:
    """A bound, itself within; `is_floor` where more is better."""

    bound: float
    is_floor: bool = False

    def verdict(self, value: float) -> Verdict:
        is_met = value >= self.bound if self.is_floor else value <= self.bound
        return Verdict.MET if is_met else Verdict.MISSED


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, in `unit`, once per run. A row without an aim is a detail."""

    name: str
    unit: str
    values: Sequence[float]
    aim: Aim | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> Verdict | None:
        return None if self.aim is None else self.aim.verdict(self.median)


@dataclass(frozen=True)
class Effort:
    """How much is measured: how many runs, and how many seconds each, where a run is not as long as it takes."""

    runs: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Figure:
    """How a figure is measured, in full and for a smoke run. `measure` raises MeasureError."""

    measure: Callable[[Effort], list[Row]]
    full: Effort
    quick: Effort


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
