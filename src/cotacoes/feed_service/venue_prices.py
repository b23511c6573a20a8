"""The prices of single venues that are recorded: of each coin and venue at most one a second. Pure.

The price is the middle of the venue's book, in the currency of the venue. The book must be sound by itself; whether the
consensus uses it does not matter, since it is the history of an outlier that people ask for.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cotacoes.model.venue_series import VenueSeries
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.consensus import VenueReason, VenueVerdict

INTERVAL_S = 1.0
_UNSOUND = {VenueReason.EMPTY, VenueReason.CROSSED, VenueReason.STALE, VenueReason.FUTURE, VenueReason.WIDE}


@dataclass(frozen=True, slots=True)
class VenuePrice:
    """One price of a series. `as_of_s` is the time of its book on the monotonic clock."""

    series: VenueSeries
    price: Decimal
    as_of_s: float


class VenuePrices:
    """Chooses what is recorded. `coins` are the names that are coins already, so that no series may have them."""

    def __init__(self, coins: Container[str]) -> None:
        self._coins = coins
        self._series: dict[tuple[str, str], VenueSeries | None] = {}  # by coin and venue; None if it is left out
        self._last: dict[VenueSeries, tuple[float, float]] = {}  # when it was recorded, and the time of that book

    def due(self, coin: str, verdicts: Sequence[VenueVerdict], now_s: float) -> Iterator[VenuePrice]:
        """The prices to record now, of books from later than those recorded before."""
        for verdict in verdicts:
            book = verdict.book
            key = coin, book.venue
            if key not in self._series:
                self._series[key] = self._series_of(VenueSeries(*key, book.currency))
            series = self._series[key]
            if series is None or verdict.reason in _UNSOUND:
                continue
            recorded_s, as_of_s = self._last.get(series, (float("-inf"), float("-inf")))
            if now_s - recorded_s >= INTERVAL_S and book.as_of_s > as_of_s and (mid := verdict.mid):
                self._last[series] = now_s, book.as_of_s
                yield VenuePrice(series, mid, book.as_of_s)

    def _series_of(self, series: VenueSeries) -> VenueSeries | None:
        if series.has_valid_name and series.name not in self._coins:
            return series
        reason = "there is a coin of this name" if series.has_valid_name else "too long for a name"
        get_logger().warning("series.left_out", series=series.name, reason=reason)
        return None
