"""First answer: until a service has answered once, that it cannot be reached means that it is awaited.

All parts of a system start at once, and what is not there yet has not failed: a circuit that opens for that tells
nobody anything, and holds up the first calls that would succeed. So such an end is ignored, for `waiting_s` at most;
then the service is missing, and its absence counts like any other. Whatever it answers, an error included, is an
answer, and from then on everything counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cotacoes.patterns.resilience.breaker_events import CallVerdict
from cotacoes.patterns.resilience.classification import Classification, Outcome, classify


class FirstAnswer:
    """Of one service, whatever the routes. `clock` gives monotonic seconds; `on_missing` hears once how long it took.

    `is_awaited` tells whether calls fail without counting just now.
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
        """It has answered."""
        self._is_over, self.is_awaited = True, False

    def classified(self, error: BaseException, shown: Classification) -> Classification:
        """What the end of a call shows, if the end by itself shows `shown`."""
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
        self.note_answer()  # there is none, and no more to be waited for
        self._on_missing(waited_s)
        return shown


def _is_absence(error: BaseException) -> bool:
    """Whether no connection came about, by the error or by what it came from."""
    one: BaseException | None = error
    while one is not None and classify(one).outcome != Outcome.UNREACHABLE:
        one = one.__cause__
    return one is not None
