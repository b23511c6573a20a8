"""When the next connection to a venue may be opened: back-off, the venue's own wishes, and a bound that holds."""

from __future__ import annotations

from collections import deque
from random import Random

from cotacoes.patterns.resilience.backoff import Backoff

FIRST_S, MOST_S = 0.5, 30.0  # exchanges count connections by the minute
OPENINGS_MAX, WINDOW_S = 10, 60.0  # fewer than any venue allows: OKX 3 a second, Binance 300 in 5 minutes
WAIT_MAX_S = 3600.0  # a venue that asks for a longer pause is tried again all the same


class Openings:
    """The openings of one venue. Times are seconds of the monotonic clock."""

    def __init__(self, random: Random) -> None:
        self._backoff = Backoff(random, first_s=FIRST_S, most_s=MOST_S)
        self._opened: deque[float] = deque(maxlen=OPENINGS_MAX)
        self._not_before_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """How long to wait before the next opening; 0 if it may begin now."""
        earliest_s = self._not_before_s
        if len(self._opened) == OPENINGS_MAX:
            earliest_s = max(earliest_s, self._opened[0] + WINDOW_S)
        return max(0.0, earliest_s - now_s)

    def note_opening(self, now_s: float) -> None:
        """A connection is being opened."""
        self._opened.append(now_s)

    def note_failure(self, now_s: float, retry_after_s: float | None) -> None:
        """A connection has ended or could not be opened; the venue may have asked for a wait."""
        wait_s = max(self._backoff.next_s(), min(retry_after_s or 0.0, WAIT_MAX_S))
        self._not_before_s = max(self._not_before_s, now_s + wait_s)

    def note_steady(self) -> None:
        """A connection has brought good books for a while."""
        self._backoff.reset()
