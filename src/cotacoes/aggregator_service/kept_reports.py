"""Reports that were told a moment ago, for those who ask the same again.

Bounded by time, by number and by bytes: what is too old goes when another one comes, what is too much oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

KEPT_MAX = 100
KEPT_BYTES_MAX = 16_777_216  # of text; a report of 1,000 coins has some 3 MB


class Told(NamedTuple):
    """A report, its text and its tag; what is missing from it, each as `{"part", "reason"}`; its age in seconds."""

    report: Mapping[str, Any]
    body: bytes
    tag: str
    missing: Sequence[Mapping[str, str]]
    age_s: float = 0.0


class KeptReports:
    """`kept_s` is for how many seconds."""

    def __init__(self, *, kept_s: float, clock: Callable[[], float]) -> None:
        self._kept_s = kept_s
        self._clock = clock
        self._kept: dict[Hashable, tuple[Told, float]] = {}  # oldest first
        self._bytes = 0

    def find(self, key: Hashable, age_max_s: float) -> Told | None:
        """The report by this key with its age by now, where it is not older than `age_max_s`."""
        if key not in self._kept:
            return None
        told, at = self._kept[key]
        age_s = self._clock() - at
        return told._replace(age_s=age_s) if age_s < min(self._kept_s, age_max_s) else None

    def keep(self, key: Hashable, told: Told) -> None:
        """In place of what was kept under the key."""
        now = self._clock()
        self._drop(key)
        self._kept[key] = (told, now)
        self._bytes += len(told.body)
        while self._kept and (
            len(self._kept) > KEPT_MAX
            or self._bytes > KEPT_BYTES_MAX
            or now - next(iter(self._kept.values()))[1] >= self._kept_s
        ):
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        if key in self._kept:
            told, _ = self._kept.pop(key)
            self._bytes -= len(told.body)
