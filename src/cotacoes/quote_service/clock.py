"""The wall clock, compared with the stored times.

Stored times lie ahead of the clock if it was ahead when they were recorded and has been set right, or if it is behind
now. Prices are recorded all the same: `at` stays at the coin's last one, since it never falls, until the clock has
caught up, and `observed_at` is the source's own. This is logged once, and a gauge shows how far the clock is behind.

More than a day is an exception: the clock of this machine is wrong, or the history was recorded on a machine whose
clock was. Then a person decides when the service starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from cotacoes.errors import SettingError
from cotacoes.model.quote import utc_now
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recent_prices import FUTURE_MAX

AHEAD_MAX = timedelta(days=1)


def refuse_far_ahead(history: CoinHistory, now: datetime) -> None:
    """SettingError if the coin's newest quote lies more than `AHEAD_MAX` ahead of `now`."""
    if history.newest is not None and history.newest.at - now > AHEAD_MAX:
        raise SettingError(
            f"the newest quote of {history.coin} has the time {history.newest.at:%Y-%m-%d %H:%M:%S} UTC, over a day "
            "ahead of the clock: set the clock, or use --accept-clock (COTACOES_ACCEPT_CLOCK=1) if that time is wrong"
        )


class ClockWatch:
    """Logs once that stored times lie ahead of the clock, and once that it has caught up."""

    def __init__(self, metrics: QuoteMetrics, now: Callable[[], datetime] = utc_now) -> None:
        self._metrics = metrics
        self._now = now
        self._is_behind = False

    def compare(self, histories: Iterable[CoinHistory]) -> None:
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
