"""First answer: a service that has not answered yet and cannot be reached is still starting.

All services of a system start at the same time. A circuit that opens because another one is not up yet shows nothing,
and holds up the first calls that would succeed. So an absence is ignored at first, for `waiting_s` at most; after that
the service is missing, and its absence counts like any failure. From its first answer on, which may be an error,
everything counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cotacoes.patterns.resilience.breaker_events import CallVerdict
from cotacoes.patterns.resilience.classification import Classification, Outcome, classify


class FirstAnswer:
    """The first answer of one service, on any route.

    `clock` returns monotonic seconds; `on_missing` is called once with the seconds waited. `is_awaited` says whether
    calls that fail do not count at present.
    """

    def __init__(
        self, waiting_s: float, *, clock: Callable[[], float], on_missing: Callable[[float], None] = lambda _: None
    ) -> None:
        self.is_awaited = False
        self._waiting_s = waiting_s
        self._clock = clock
        self._on_missing = on_missing
        self._awaited_since: float | None = None
        self._is_over = False

    def note_answer(self) -> None:
        """Note that the service has answered."""
        self._is_over, self.is_awaited = True, False

    def classified(self, error: BaseException, shown: Classification) -> Classification:
        """The classification of a call that by itself would be `shown`."""
        if self._is_over or shown.verdict is not CallVerdict.FAILURE:
            return shown
        if not _is_absence(error):
            self.note_answer()
            return shown
        now = self._clock()
        self._awaited_since = now if self._awaited_since is None else self._awaited_since
        waited_s = now - self._awaited_since
        if waited_s < self._waiting_s:
            self.is_awaited = True
            return dataclasses.replace(shown, verdict=CallVerdict.IGNORED, outcome="awaited")
        self.note_answer()  # there was none, but the waiting is over
        self._on_missing(waited_s)
        return shown


def _is_absence(error: BaseException) -> bool:
    """Whether there was no connection, by the error or one of its causes."""
    one: BaseException | None = error
    while one is not None and classify(one).outcome != Outcome.UNREACHABLE:
        one = one.__cause__
    return one is not None
