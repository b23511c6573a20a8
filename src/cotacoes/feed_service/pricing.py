"""One price of each coin from the books of the venues: computed every 50 ms while books come, and once a second anyway.

A price goes on the tape if it is from later than the last one, or from the same time and another. It never goes back in
time: when a fast venue leaves, the price waits until a majority of the others has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.tape import ConsensusTape, PricedCoin
from cotacoes.feed_service.venue_prices import VenuePrices
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import FeedMetrics
from cotacoes.patterns.consensus import USD, Consensus, ConsensusPrice, ConsensusState, VenueBook, agree, rate_of

TICK_S = 0.05  # a person sees no faster, and a page of the tape costs more than a price
LOOK_S = 1.0  # a venue that falls silent changes a result, too
TIME_STEP_S = 0.000001  # times on the tape are in microseconds
CLOCK_STEP_S = 0.001  # below it, two readings of the clocks differ by chance

_NO_BOOK = Decimal(0)


class Pricing:
    """See the head of this file; `run` is its task.

    `clock` gives monotonic seconds, `now` the wall time. `venue_prices` chooses the prices of single venues that go on
    the tape too; None: none does.
    """

    def __init__(
        self,
        books: Books,
        tape: ConsensusTape,
        *,
        coins: FollowedCoins,
        stablecoins: Iterable[str],
        metrics: FeedMetrics,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        venue_prices: VenuePrices | None = None,
    ) -> None:
        self.rates: dict[str, Decimal] = {USD: Decimal(1)}
        self.results: dict[str, Consensus] = {}
        self._books = books
        self._tape = tape
        self._coins = coins
        self._stablecoins = tuple(stablecoins)
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._venue_prices = venue_prices
        self._to_wall_s = now().timestamp() - clock()
        self._agreed: dict[str, ConsensusPrice] = {}
        self._logged: dict[str, ConsensusState] = {}

    def price_of(self, coin: str) -> Decimal | None:
        """The present consensus of a coin; None if there is none."""
        result = self.results.get(coin)
        return result.price if isinstance(result, ConsensusPrice) else None

    async def run(self) -> None:
        """Price what has moved until cancelled."""
        look_s = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            moved = self._books.pop_moved()
            if self._clock() >= look_s:
                look_s = self._clock() + LOOK_S
                self.price([*self._stablecoins, *self._coins])
                self._log_states()
            elif moved:
                self.price(moved)

    def price(self, moved: Iterable[str]) -> None:
        """Price these coins anew, after the rates of those that are stablecoins."""
        now_s = self._clock()
        names = set(moved)
        for stablecoin in names.intersection(self._stablecoins):
            rate = rate_of(stablecoin, [held.book for held in self._books.of(stablecoin).values()], now_s)
            if rate is None:
                self.rates.pop(stablecoin, None)
            else:
                self.rates[stablecoin] = rate
        for coin in names.intersection(self._coins):
            self._price(coin, now_s)

    def _price(self, coin: str, now_s: float) -> None:
        held = self._books.of(coin)
        books = [
            held[venue].book if venue in held else VenueBook(venue, currency, _NO_BOOK, _NO_BOOK, now_s)
            for venue, currency in self._coins.venues_of(coin).items()
        ]
        self.results[coin] = result = agree(books, self.rates, now_s, last=self._agreed.get(coin))
        if self._venue_prices is not None:
            for price in self._venue_prices.due(coin, result.verdicts, now_s):
                self._tape.append_of_venue(price, self._wall_time(price.as_of_s))
        if not isinstance(result, ConsensusPrice):
            self._tape.note_reason(coin, result.reason)
            return
        self._tape.note_reason(coin, None)
        if result.state is ConsensusState.AGREED:
            self._agreed[coin] = result
        before = self._tape.newest.get(coin)
        if before is None or _is_news(result, before.consensus):
            self._tape.append(coin, PricedCoin(result, self._wall_time(result.as_of_s)))
            self._metrics.consensus_prices.labels(coin=coin, state=result.state.value).inc()

    def _wall_time(self, at_s: float) -> datetime:
        """The wall time of a moment of the clock; the same one for the same moment, unless a clock is set."""
        before_s, now, after_s = self._clock(), self._now(), self._clock()
        to_wall_s = now.timestamp() - before_s
        # a process that was stopped between two readings has not seen a clock that was set
        if after_s - before_s < CLOCK_STEP_S < abs(to_wall_s - self._to_wall_s):
            self._to_wall_s = to_wall_s
        return datetime.fromtimestamp(0, now.tzinfo) + timedelta(seconds=at_s + self._to_wall_s)

    def _log_states(self) -> None:
        for coin, result in self.results.items():
            if self._logged.get(coin) != result.state:
                reasons = {verdict.book.venue: verdict.reason.value for verdict in result.verdicts if verdict.reason}
                log = get_logger().info if isinstance(result, ConsensusPrice) else get_logger().warning
                log(f"consensus.{result.state.value}", coin=coin, not_used=reasons)
                self._logged[coin] = result.state
            self._metrics.show_consensus(coin, result.state.value, used=_used(result), of=result.of)


def _is_news(result: ConsensusPrice, before: ConsensusPrice) -> bool:
    later_s = result.as_of_s - before.as_of_s
    if later_s < 0 or later_s >= TIME_STEP_S:
        return later_s > 0
    return (result.price, result.agreement) != (before.price, before.agreement)


def _used(result: Consensus) -> int:
    return result.used if isinstance(result, ConsensusPrice) else 0
