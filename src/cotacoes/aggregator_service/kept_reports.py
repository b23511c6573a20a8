"""Reports that were told a moment ago, for those who ask the same again.

Bounded by time, by number and by bytes: what is too old goes when another one comes, what is too much oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

KEPT_MAX = 100
KEPT_BYTES_MAX = 16_777_216  # of text; a report of 1,000 coins has some 3 MB


class RenderedReport(NamedTuple):
    """A report as text, and its tag; what is missing from it, each as `{"part", "reason"}`.

    `at` is when the ages in it were right, by the clock, and `age_s` how long before that it was made.
    """

    body: bytes
    tag: str
    missing: Sequence[Mapping[str, str]]
    at: float
    age_s: float = 0.0


class ReportCache:
    """`kept_s` is for how many seconds."""

    def __init__(self, *, kept_s: float, clock: Callable[[], float]) -> None:
        self._kept_s = kept_s
        self._clock = clock
        self._kept: dict[Hashable, RenderedReport] = {}  # oldest first
        self._bytes = 0

    def find(self, key: Hashable, age_max_s: float) -> RenderedReport | None:
        """The report by this key with its age by now, where it is not older than `age_max_s`."""
        told = self._kept.get(key)
        if told is None or self._clock() - told.at >= min(self._kept_s, age_max_s):
            return None
        return told._replace(age_s=self._clock() - told.at)

    def keep(self, key: Hashable, told: RenderedReport) -> None:
        """In place of what was kept under the key."""
        now = self._clock()
        self._drop(key)
        self._kept[key] = told
        self._bytes += len(told.body)
        while self._kept and (
            len(self._kept) > KEPT_MAX
            or self._bytes > KEPT_BYTES_MAX
            or now - next(iter(self._kept.values())).at >= self._kept_s
        ):
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        if key in self._kept:
            self._bytes -= len(self._kept.pop(key).body)
