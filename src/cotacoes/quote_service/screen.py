"""What is let in: the rules by which a price from the source is recorded, or turned away by name.

| reason         | rule                                                                                      |
|----------------|-------------------------------------------------------------------------------------------|
| `unknown_coin` | the coin is none of ours                                                                   |
| `future`       | observed more than `FUTURE_MAX` ahead of our clock                                         |
| `old`          | observed more than `OLD_MAX` ago: nobody's current price                                   |
| `not_new`      | observed at the time already recorded: the same price again, no reason for alarm           |
| `backwards`    | observed before the price already recorded                                                 |
| `absurd`       | a step of more than `jump_factor_max` from a price accepted within `jump_window_s`, of the  |
|                | same origin and currency                                                                   |

What can not be read as a price at all never gets here: the adapter of the source rejects it (malformed, not_finite,
zero, negative, bad_time). Pure: the time is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from cotacoes.quote import Observation, Quote

FUTURE_MAX = timedelta(seconds=5)
OLD_MAX = timedelta(hours=1)


@dataclass(frozen=True)
class JumpLimit:
    """`factor`: the largest step up or down; `window`: how long an accepted price judges the next one."""

    factor: Decimal
    window: timedelta


class Screen:
    """Judges one observation after the other; remembers the last accepted one of each coin."""

    def __init__(self, coins: Iterable[str], jump: JumpLimit) -> None:
        self._last: dict[str, Observation | None] = dict.fromkeys(coins)
        self._jump = jump

    def judge(self, observation: Observation, now: datetime) -> str | None:
        """Why not to record it; None where it is good."""
        if observation.coin not in self._last:
            return "unknown_coin"
        if observation.observed_at > now + FUTURE_MAX:
            return "future"
        if observation.observed_at < now - OLD_MAX:
            return "old"
        last = self._last[observation.coin]
        if last is None:
            return None
        if observation.observed_at <= last.observed_at:
            return "not_new" if observation.observed_at == last.observed_at else "backwards"
        return "absurd" if self._is_absurd(last, observation) else None

    def accept(self, observation: Observation) -> None:
        """It was recorded: it judges the next one."""
        self._last[observation.coin] = observation

    def resume(self, newest: Quote | None) -> None:
        """What was recorded before a restart judges on."""
        if newest is not None:
            self.accept(Observation(newest.coin, newest.currency, newest.price, newest.observed_at, newest.origin))

    def _is_absurd(self, last: Observation, new: Observation) -> bool:
        if (last.origin, last.currency) != (new.origin, new.currency):
            return False
        if new.observed_at - last.observed_at > self._jump.window:
            return False
        return new.price > last.price * self._jump.factor or new.price * self._jump.factor < last.price
