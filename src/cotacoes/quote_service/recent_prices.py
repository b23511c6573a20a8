"""The newest recorded prices of a coin, by which the next price is judged.

They depend on the history alone: of the newest `PRICES_MAX` quotes those whose `at` lies within the window. So a
restart, a log that was opened again and a second writer come to the same verdict from the same quotes. A recorded price
that is a step away from all of them shows that the market had really moved (it was confirmed, or the window was empty),
so earlier prices judge no longer.

Two queues give the lowest and the highest price; each new price removes those that it makes irrelevant, so most windows
need a few dozen entries, and none more than `PRICES_MAX`.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, Self

from cotacoes.model.quote import Observation, Quote

FUTURE_MAX = timedelta(seconds=5)  # how far a source's clock may run ahead of ours
PRICES_MAX = 1_000  # the log holds at least so many of each coin, so a restart finds the same prices


@dataclass(frozen=True)
class JumpLimit:
    """`factor` is the largest step up or down, `window` how long a recorded price judges the next one.

    A larger step is believed after `confirm_prices` consistent prices over a time of at least `confirm`.
    """

    factor: Decimal = Decimal(10)
    window: timedelta = timedelta(seconds=300)
    confirm_prices: int = 10
    confirm: timedelta = timedelta(seconds=30)

    def allows(self, low: Decimal, high: Decimal, price: Decimal) -> bool:
        """Whether `price` is no larger step away from any price between `low` and `high`."""
        return price <= low * self.factor and price * self.factor >= high


class _PriceEntry(NamedTuple):
    number: int
    at: datetime
    price: Decimal


class RecentPrices:
    """See the head of this file. `newest` is the last price added, `at` the time under which it was recorded."""

    def __init__(self, limit: JumpLimit) -> None:
        self.newest: Observation | Quote | None = None
        self.at: datetime | None = None
        self._limit = limit
        self._count = 0
        self._lows: deque[_PriceEntry] = deque()  # ascending in price: the first is the lowest
        self._highs: deque[_PriceEntry] = deque()  # descending

    def copy(self) -> Self:
        """A copy that can be added to without changing this one."""
        copied = copy.copy(self)
        copied._lows, copied._highs = self._lows.copy(), self._highs.copy()
        return copied

    def recorded_at(self, observed_at: datetime, now: datetime) -> datetime:
        """The `at` of the price to be recorded next."""
        return recorded_at(self.at, observed_at, now)

    def add(self, recorded: Observation | Quote, at: datetime) -> None:
        """Add a price that was recorded under `at`, which is not below the one before."""
        self.newest, self.at = recorded, at
        self.add_older([(at, recorded.price)])

    def add_older(self, prices: Iterable[tuple[datetime, Decimal]]) -> None:
        """Add prices that were recorded before the newest one, ascending."""
        lows, highs = self._lows, self._highs
        for at, price in prices:
            self._count += 1
            begin, first = at - self._limit.window, self._count - PRICES_MAX
            for queue in (lows, highs):
                while queue and (queue[0].at < begin or queue[0].number <= first):
                    queue.popleft()
            if lows and not self._limit.allows(lows[0].price, highs[0].price, price):
                lows.clear()
                highs.clear()
            entry = _PriceEntry(self._count, at, price)
            while lows and lows[-1].price >= price:
                lows.pop()
            while highs and highs[-1].price <= price:
                highs.pop()
            lows.append(entry)
            highs.append(entry)

    def bounds(self, at: datetime) -> tuple[Decimal, Decimal] | None:
        """The lowest and the highest price that judge one recorded under `at`; None if there are none.

        Nothing is dropped here, since the price may be rejected.
        """
        begin = at - self._limit.window
        low, high = _first_since(begin, self._lows), _first_since(begin, self._highs)
        return None if low is None or high is None else (low, high)


def _first_since(begin: datetime, queue: deque[_PriceEntry]) -> Decimal | None:
    for entry in queue:
        if entry.at >= begin:
            return entry.price
    return None


def recorded_at(before: datetime | None, observed_at: datetime, now: datetime) -> datetime:
    """The `at` of a price: the source's time, but not later than now, and never below `before`, that of the last one.

    If `before` lies ahead of the clock, `at` stays there until the clock has caught up.
    """
    own = min(observed_at, now)
    return own if before is None else max(before, own)
