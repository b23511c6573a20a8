"""Recent reports, for callers that ask the same again.

The cache is bounded by time, number and bytes. A report that is too old goes when another one is cached, and what is
too much goes oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from cotacoes.model.payloads import ReportJson

REPORTS_MAX = 100
BYTES_MAX = 16_777_216  # of JSON; a report of 1,000 coins has some 3 MB, and its structs a few times that


class RenderedReport(NamedTuple):
    """A report, its JSON and its ETag.

    `at` is the time, by the clock, at which its ages were right; `age_s` is how long before `at` it was made.
    """

    report: ReportJson
    body: bytes
    etag: str
    at: float
    age_s: float = 0.0


class ReportCache:
    """The reports of the last `max_age_s` seconds, one for each key."""

    def __init__(self, *, max_age_s: float, clock: Callable[[], float]) -> None:
        self._max_age_s = max_age_s
        self._clock = clock
        self._reports: dict[Hashable, RenderedReport] = {}  # oldest first
        self._bytes = 0

    def find(self, key: Hashable, max_age_s: float) -> RenderedReport | None:
        """The report under the key, with its present age; None if it has reached `max_age_s`."""
        rendered = self._reports.get(key)
        if rendered is None or self._clock() - rendered.at >= min(self._max_age_s, max_age_s):
            return None
        return rendered._replace(age_s=self._clock() - rendered.at)

    def put(self, key: Hashable, rendered: RenderedReport) -> None:
        """Cache the report in place of the one under the key."""
        now = self._clock()
        self._drop(key)
        self._reports[key] = rendered
        self._bytes += len(rendered.body)
        while self._reports and (
            len(self._reports) > REPORTS_MAX
            or self._bytes > BYTES_MAX
            or now - next(iter(self._reports.values())).at >= self._max_age_s
        ):
            self._drop(next(iter(self._reports)))

    def _drop(self, key: Hashable) -> None:
        if key in self._reports:
            self._bytes -= len(self._reports.pop(key).body)
