"""What is let in: the rules by which a price from the source is recorded, or turned away by name.

| reason         | rule                                                                                      |
|----------------|-------------------------------------------------------------------------------------------|
| `unknown_coin` | the coin is none of ours                                                                   |
| `future`       | observed more than `FUTURE_MAX` ahead of our clock                                         |
| `old`          | observed more than `OLD_MAX` ago: nobody's current price                                   |
| `not_new`      | observed at the time already recorded: the same price again, no reason for alarm           |
| `backwards`    | observed before the price already recorded                                                 |
| `absurd`       | a step of more than `jump_factor_max` from a price recorded within `jump_window_s`, of the  |
|                | same origin and currency                                                                   |
| `origins`      | one name of origin more than `ORIGINS_MAX`: the shards keep each, and number them           |

`old`, `not_new` and `backwards` are for who polls the newest price; on a tape every price is new.

What can not be read as a price at all never gets here: the adapter of the source rejects it (malformed, not_finite,
zero, negative, bad_time). What was recorded is passed in, and never remembered here: after a restart, a failure of the
log or a late answer of a shard there must not be two opinions on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from cotacoes.quote import Observation, Quote
from cotacoes.telemetry import QuoteMetrics, get_logger

FUTURE_MAX = timedelta(seconds=5)
OLD_MAX = timedelta(hours=1)
ORIGINS_MAX = 100  # a deployment has a handful; a source that makes them up would use the shards' numbers up


@dataclass(frozen=True)
class JumpLimit:
    """`factor`: the largest step up or down; `window`: how long a recorded price judges the next one."""

    factor: Decimal
    window: timedelta


class Screen:
    """Judges one observation at a time, of `coins`. `is_tape`: every price is new, however old."""

    def __init__(self, coins: Collection[str], jump: JumpLimit, *, is_tape: bool = False) -> None:
        self._coins = coins  # not a copy: a coin may join
        self._is_tape = is_tape
        self._jump = jump
        self._origins: set[str] = set()

    def judge(self, observation: Observation, last: Observation | Quote | None, now: datetime) -> str | None:
        """Why not to record it after `last`, the coin's newest price; None where it is good."""
        if observation.coin not in self._coins:
            return "unknown_coin"
        if observation.observed_at > now + FUTURE_MAX:
            return "future"
        if not self._is_tape:
            if observation.observed_at < now - OLD_MAX:
                return "old"
            if last is not None and observation.observed_at <= last.observed_at:
                return "not_new" if observation.observed_at == last.observed_at else "backwards"
        if last is not None and self._is_absurd(last, observation):
            return "absurd"
        return None if self._is_known_origin(observation.origin) else "origins"

    def _is_known_origin(self, origin: str) -> bool:
        if origin not in self._origins and len(self._origins) < ORIGINS_MAX:
            self._origins.add(origin)
        return origin in self._origins

    def _is_absurd(self, last: Observation | Quote, new: Observation) -> bool:
        if (last.origin, last.currency) != (new.origin, new.currency):
            return False
        if new.observed_at - last.observed_at > self._jump.window:
            return False
        return new.price > last.price * self._jump.factor or new.price * self._jump.factor < last.price


class Refusals:
    """Counts what was turned away, and says in the log when a kind of poison begins."""

    def __init__(self, coins: Collection[str], metrics: QuoteMetrics) -> None:
        self._coins = coins
        self._metrics = metrics
        self._poison: frozenset[tuple[str, str]] = frozenset()

    def count(self, refused: Counter[tuple[str, str]]) -> None:
        """Of one answer: (coin, reason) with how often."""
        for (coin, reason), count in refused.items():
            self._metrics.screened.labels(coin=self._shown(coin), reason=reason).inc(count)
        poison = frozenset((coin, reason) for coin, reason in refused if reason != "not_new")
        for coin, reason in sorted(poison - self._poison)[:10]:
            get_logger().warning("price.refused", coin=self._shown(coin), reason=reason)
        self._poison = poison

    def _shown(self, coin: str) -> str:
        return coin if coin in self._coins else "other"
