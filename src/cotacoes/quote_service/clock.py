"""The wall clock, held against the times that are stored.

Stored times lie ahead of the clock if it was ahead when they were recorded and has been set right, or if it is behind
now. Prices are recorded all the same: `at` stays at the coin's last one, since it never falls, until the clock has
caught up, and `observed_at` is the source's own. That is said once, and a gauge tells how long it will still take.

A day is the exception: so long a time says that the clock of this machine is wrong, or that the history was recorded
on one whose clock was. At a start, a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from cotacoes.errors import SettingError
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recent_prices import FUTURE_MAX

AHEAD_MAX = timedelta(days=1)


def refuse_far_ahead(history: CoinHistory, now: datetime) -> None:
    """SettingError if the coin's newest quote lies more than `AHEAD_MAX` ahead of `now`."""
    if history.newest is not None and history.newest.at - now > AHEAD_MAX:
        raise SettingError(
            f"the newest quote of {history.coin} is of {history.newest.at:%Y-%m-%d %H:%M:%S} UTC, over a day ahead of "
            "the clock: set the clock, or use --accept-clock (COTACOES_ACCEPT_CLOCK=1) if that time is wrong"
        )


class ClockWatch:
    """Says once when stored times lie ahead of the clock, and once when it has caught up."""

    def __init__(self, metrics: QuoteMetrics, now: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._now = now
        self._is_behind = False

    def look(self, histories: Iterable[CoinHistory]) -> None:
        """Compare the newest quote of each coin with the clock."""
        newest = max((one.newest.at for one in histories if one.newest is not None), default=None)
        ahead = timedelta() if newest is None else max(timedelta(), newest - self._now())
        self._metrics.clock_behind.set(ahead.total_seconds())
        if ahead > FUTURE_MAX and not self._is_behind:
            get_logger().warning("clock.fell_behind", stored=str(newest), ahead_s=round(ahead.total_seconds(), 3))
            self._is_behind = True
        elif not ahead and self._is_behind:
            get_logger().info("clock.caught_up")
            self._is_behind = False
