"""Validation: the rules by which a price of the source is recorded, or rejected with a reason.

| reason         | rule                                                                                      |
|----------------|-------------------------------------------------------------------------------------------|
| `unknown_coin` | the coin is not one of ours                                                               |
| `future`       | observed more than `FUTURE_MAX` ahead of our clock                                        |
| `old`          | observed more than `OLD_MAX` ago: no current price any more                               |
| `not_new`      | observed at the time already recorded: the same price again, no cause for alarm           |
| `backwards`    | observed before the price already recorded                                                |
| `currency`     | in another currency than the coin has, by the directory or else by its newest quote       |
| `origins`      | a new origin beyond `ORIGINS_MAX`: the shards number and keep every one                   |
| `absurd`       | a step of more than the jump limit's factor from any price recorded within its window,    |
|                | of whatever origin, as long as the step is not confirmed                                  |

`old`, `not_new` and `backwards` apply to a poll of the newest price; on a tape every price is new. A recorded price
whose `observed_at` lies more than `FUTURE_MAX` ahead of the clock bears a false time (the clock was ahead when it was
recorded, and has been set right), so no price is `not_new` or `backwards` because of it.

A step is confirmed by a number of prices in a row that are no step from each other, each observed later than the one
before, over some time. For a poll that is the time of our clock, so a false price that is repeated many times in a
moment is not believed; for a tape, which may be replayed faster, it is the time of the tape. A single price in the old
range ends it. Rejected prices are remembered here for this alone. *Recorded* prices are passed in and never remembered
here: after a restart, a failure of the log or a late answer of a shard, two memories of them could differ.

A value that cannot be read as a price never gets here: `source_quote.py` and `source_pages.py` reject it (malformed,
not_finite, zero, negative, bad_time).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from cotacoes.model.quote import Observation, format_price
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.quote_service.recent_prices import FUTURE_MAX, JumpLimit, RecentPrices

OLD_MAX = timedelta(hours=1)
UNKNOWN = "?"  # stands for every coin that is not ours: their names are not trusted
ORIGINS_MAX = 100  # a deployment has a handful; invented ones would use the shards' numbers up
Facts = Mapping[tuple[str, str], Mapping[str, str]]  # by coin and reason


@dataclass(frozen=True)
class Rejection:
    """Why a price is not recorded; `facts` are added to the reason in the log."""

    reason: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Move:
    """A step that may turn out to be real: the rejected prices that confirm it so far."""

    since: datetime
    observed_at: datetime
    low: Decimal
    high: Decimal
    count: int = 1

    def add(self, observation: Observation) -> None:
        self.observed_at = observation.observed_at
        self.low, self.high = min(self.low, observation.price), max(self.high, observation.price)
        self.count += 1


class Validator:
    """Judges one observation at a time. `currency_of` gives a coin's currency in the directory, None if it has none.

    `is_tape`: every price is new, however old.
    """

    def __init__(
        self,
        jump: JumpLimit,
        *,
        is_tape: bool = False,
        currency_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._is_tape = is_tape
        self._jump = jump
        self._currency_of = currency_of
        self._origins: set[str] = set()
        self._moves: dict[str, _Move] = {}

    def judge(self, observation: Observation, recent: RecentPrices | None, now: datetime) -> Rejection | None:
        """Why not to record it after the coin's `recent` prices (None: the coin is unknown); None to record it."""
        if recent is None:
            return Rejection("unknown_coin")
        if observation.observed_at > now + FUTURE_MAX:
            return Rejection("future")
        if not self._is_tape and (reason := _not_newer(observation, recent, now)) is not None:
            return Rejection(reason)
        expected = self._currency_of(observation.coin) or (None if recent.newest is None else recent.newest.currency)
        if expected is not None and observation.currency != expected:
            return Rejection("currency", {"currency": observation.currency, "expected": expected})
        if observation.origin not in self._origins and len(self._origins) >= ORIGINS_MAX:
            return Rejection("origins")
        rejection = self._judge_step(observation, recent, now)
        if rejection is None:  # a rejected price stores no origin
            self._origins.add(observation.origin)
        return rejection

    def _judge_step(self, observation: Observation, recent: RecentPrices, now: datetime) -> Rejection | None:
        coin, price = observation.coin, observation.price
        bounds = recent.bounds(recent.recorded_at(observation.observed_at, now))
        if bounds is None or self._jump.allows(*bounds, price):
            self._moves.pop(coin, None)
            return None
        if self._is_confirmed(observation, self._moment(observation, recent, now)):
            return None  # the move is dropped when a price of the new range is judged
        low, high = map(format_price, bounds)
        return Rejection("absurd", {"price": format_price(price), "low": low, "high": high})

    def _is_confirmed(self, observation: Observation, moment: datetime) -> bool:
        """Whether this price and those refused before it show that the step is real."""
        price = observation.price
        move = self._moves.get(observation.coin)
        if move is None or not self._jump.allows(move.low, move.high, price):
            move = self._moves[observation.coin] = _Move(moment, observation.observed_at, price, price)
        elif observation.observed_at > move.observed_at:
            move.add(observation)
        else:
            return False
        return move.count >= self._jump.confirm_prices and moment - move.since >= self._jump.confirm

    def _moment(self, observation: Observation, recent: RecentPrices, now: datetime) -> datetime:
        """The time at which the price confirms a move: one whose passing a source cannot invent."""
        if not self._is_tape:
            return now
        # a tape may be replayed faster than the clock; before the newest recorded price there is nothing to confirm
        return min(now, observation.observed_at if recent.at is None else max(observation.observed_at, recent.at))


def _not_newer(observation: Observation, recent: RecentPrices, now: datetime) -> str | None:
    """Why this price is not newer than the newest one recorded; None if it is."""
    if observation.observed_at < now - OLD_MAX:
        return "old"
    if recent.newest is None or recent.newest.observed_at > now + FUTURE_MAX:
        return None
    if observation.observed_at == recent.newest.observed_at:
        return "not_new"
    return "backwards" if observation.observed_at < recent.newest.observed_at else None


class Rejections:
    """Counts rejected prices, and logs when a coin's prices begin to be rejected for a reason."""

    def __init__(self, coins: Collection[str], metrics: QuoteMetrics) -> None:
        self._coins = coins
        self._metrics = metrics
        self._poison: frozenset[tuple[str, str]] = frozenset()
        self._reasons: Mapping[str, str] = {}

    def reason_of(self, coin: str) -> str | None:
        """Why the last answer's price of the coin was rejected, in words; None if it was not."""
        return self._reasons.get(coin)

    def count(self, rejected: Counter[tuple[str, str]], facts: Facts, *, unknown: int = 0) -> None:
        """Count one answer: how often each (coin, reason) came, facts of one such price, prices of unknown coins."""
        if unknown:
            rejected[UNKNOWN, "unknown_coin"] += unknown
        for (coin, reason), count in rejected.items():
            self._metrics.prices_rejected.labels(coin=self._shown(coin), reason=reason).inc(count)
        poison = frozenset((coin, reason) for coin, reason in rejected if reason != "not_new")
        for coin, reason in sorted(poison - self._poison)[:10]:
            get_logger().warning(
                "price.rejected", coin=self._shown(coin), reason=reason, **facts.get((coin, reason), {})
            )
        self._poison = poison
        self._reasons = {
            coin: f"its price was rejected as {reason}" + _in_brackets(facts.get((coin, reason), {}))
            for coin, reason in poison
            if coin in self._coins
        }

    def _shown(self, coin: str) -> str:
        return coin if coin in self._coins else "other"


def _in_brackets(facts: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in facts.items())})" if facts else ""
