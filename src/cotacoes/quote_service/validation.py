"""What is let in: the rules by which a price from the source is recorded, or refused by name.

| reason         | rule                                                                                      |
|----------------|-------------------------------------------------------------------------------------------|
| `unknown_coin` | the coin is not one of ours                                                               |
| `future`       | observed more than `FUTURE_MAX` ahead of our clock                                        |
| `old`          | observed more than `OLD_MAX` ago: nobody's current price                                  |
| `not_new`      | observed at the time already recorded: the same price again, no reason for alarm          |
| `backwards`    | observed before the price already recorded                                                |
| `currency`     | in another currency than the coin has, by the directory or else by its newest quote       |
| `origins`      | one name of origin more than `ORIGINS_MAX`: the shards keep each, and number them         |
| `absurd`       | a step of more than the jump limit's factor from any price recorded within its window,    |
|                | of whatever origin, as long as the step is not confirmed                                  |

`old`, `not_new` and `backwards` are for a poll of the newest price; on a tape every price is new. A recorded price
whose `observed_at` lies more than `FUTURE_MAX` ahead of the clock is known to bear a false time (the clock was ahead
when it was recorded, and has been set right), so no price is `not_new` or `backwards` because of it.

A step is confirmed by a number of prices in a row that are no step from each other, each observed later than the one
before, over some time: that of our clock, so a lie that is told many times in a moment is not believed; on a tape,
which may be replayed faster, that of the tape. A single price in the old range ends it. What was refused is remembered
here for this alone. What was *recorded* is passed in, and never remembered here: after a restart, a failure of the log
or a late answer of a shard there must not be two opinions on it.

What cannot be read as a price at all never gets here: the adapter of the source rejects it (malformed, not_finite,
zero, negative, bad_time).
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
UNKNOWN = "?"  # stands for every coin that is not ours: their names are a stranger's
ORIGINS_MAX = 100  # a deployment has a handful; a source that makes them up would use the shards' numbers up
Facts = Mapping[tuple[str, str], Mapping[str, str]]  # of a coin and a reason


@dataclass(frozen=True)
class Refusal:
    """Why a price is not recorded; `facts` are what a log line adds to the reason."""

    reason: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Move:
    """A step that may turn out to be real: the refused prices that speak for it."""

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
    """Judges one observation at a time. `currency_of` is what the directory says of a coin, None if nothing.

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

    def judge(self, observation: Observation, recent: RecentPrices | None, now: datetime) -> Refusal | None:
        """Why not to record it after the coin's `recent` prices (None: the coin is unknown); None if it is good."""
        if recent is None:
            return Refusal("unknown_coin")
        if observation.observed_at > now + FUTURE_MAX:
            return Refusal("future")
        if not self._is_tape and (reason := _not_newer(observation, recent, now)) is not None:
            return Refusal(reason)
        expected = self._currency_of(observation.coin) or (None if recent.newest is None else recent.newest.currency)
        if expected is not None and observation.currency != expected:
            return Refusal("currency", {"currency": observation.currency, "expected": expected})
        if observation.origin not in self._origins and len(self._origins) >= ORIGINS_MAX:
            return Refusal("origins")
        refusal = self._judge_step(observation, recent, now)
        if refusal is None:  # else nothing is stored under this name
            self._origins.add(observation.origin)
        return refusal

    def _judge_step(self, observation: Observation, recent: RecentPrices, now: datetime) -> Refusal | None:
        coin, price = observation.coin, observation.price
        bounds = recent.bounds(recent.recorded_at(observation.observed_at, now))
        if bounds is None or self._jump.allows(*bounds, price):
            self._moves.pop(coin, None)
            return None
        if self._is_confirmed(observation, self._moment(observation, recent, now)):
            return None  # the move is forgotten once a price of the new range is judged
        low, high = map(format_price, bounds)
        return Refusal("absurd", {"price": format_price(price), "low": low, "high": high})

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
        """When the price speaks for a move. A source cannot make the time up that passes between two of them."""
        if not self._is_tape:
            return now
        # a tape may be replayed faster than the clock; before the newest recorded price there is nothing to confirm
        return min(now, observation.observed_at if recent.at is None else max(observation.observed_at, recent.at))


def _not_newer(observation: Observation, recent: RecentPrices, now: datetime) -> str | None:
    """Why this is not a newer price than the newest one recorded."""
    if observation.observed_at < now - OLD_MAX:
        return "old"
    if recent.newest is None or recent.newest.observed_at > now + FUTURE_MAX:
        return None
    if observation.observed_at == recent.newest.observed_at:
        return "not_new"
    return "backwards" if observation.observed_at < recent.newest.observed_at else None


class Refusals:
    """Counts what was refused, and says in the log when a kind of poison begins."""

    def __init__(self, coins: Collection[str], metrics: QuoteMetrics) -> None:
        self._coins = coins
        self._metrics = metrics
        self._poison: frozenset[tuple[str, str]] = frozenset()
        self._whys: Mapping[str, str] = {}

    def why(self, coin: str) -> str | None:
        """Why the last answer's price of the coin was refused, in words; None if it was not."""
        return self._whys.get(coin)

    def count(self, refused: Counter[tuple[str, str]], facts: Facts, *, unknown: int = 0) -> None:
        """Of one answer: (coin, reason) with how often, what is known of one such price, and how many are not ours."""
        if unknown:
            refused[UNKNOWN, "unknown_coin"] += unknown
        for (coin, reason), count in refused.items():
            self._metrics.prices_rejected.labels(coin=self._shown(coin), reason=reason).inc(count)
        poison = frozenset((coin, reason) for coin, reason in refused if reason != "not_new")
        for coin, reason in sorted(poison - self._poison)[:10]:
            get_logger().warning(
                "price.refused", coin=self._shown(coin), reason=reason, **facts.get((coin, reason), {})
            )
        self._poison = poison
        self._whys = {
            coin: f"its price was refused as {reason}" + _in_brackets(facts.get((coin, reason), {}))
            for coin, reason in poison
            if coin in self._coins
        }

    def _shown(self, coin: str) -> str:
        return coin if coin in self._coins else "other"


def _in_brackets(facts: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in facts.items())})" if facts else ""
