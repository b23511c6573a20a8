"""The window: what a coin's price did over the last hour, day or week, exact.

    1h    from the minutes                             its closes: one a minute
    24h   from the hours, from minutes at both ends    one an hour
    7d    the same                                     one every four hours

A window ends at a full minute, so stored candles cover it completely and no quote is read for it. Like a candle it has
one origin and one currency. All its figures, including the change, are of the quotes held, which may span less than its
name promises: `from` and `to` are the first and last full minutes with a quote, and the window is `complete` if these
are its own ends. Two counts describe what lies between: `minutes` with a quote, and `holes`, places where the history
lacks recorded quotes. A hole belongs to the window in which it ends, so the holes of consecutive windows add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import msgspec

from cotacoes.model.candle import Candle, candle_over, interval_start, interval_starts, stored_minutes
from cotacoes.model.quote import (
    ComputedText,
    CurrencyText,
    OriginText,
    PriceText,
    Quote,
    TimeText,
    change_percent,
    computed_price,
    format_price,
    format_time,
)

WINDOWS = {"1h": 60, "24h": 1_440, "7d": 10_080}  # name to minutes
DEFAULT_WINDOW = "24h"
_STEPS = {"1h": 1, "24h": 60, "7d": 240}  # minutes of one close, for at most 61 closes


@dataclass(frozen=True, slots=True)
class Window:
    """A window: `name` is one of WINDOWS; `end` is a full minute, exclusive."""

    name: str
    end: datetime

    @classmethod
    def until(cls, name: str, now: datetime) -> Window:
        """The window that ends with the last full minute."""
        return cls(name, interval_start(now, 1))

    @property
    def start(self) -> datetime:
        """The beginning of the window, inclusive."""
        return self.end - timedelta(minutes=WINDOWS[self.name])

    @property
    def step(self) -> int:
        """The minutes for which each close stands."""
        return _STEPS[self.name]

    @property
    def steps(self) -> list[datetime]:
        """The beginnings of the steps; the first lies before the window if that begins within a step."""
        return list(interval_starts(interval_start(self.start, self.step), self.end, self.step))

    @property
    def whole(self) -> tuple[datetime, datetime]:
        """The range, possibly empty, that the longest stored candles cover; minutes cover the rest on both sides."""
        minutes = stored_minutes(self.step)
        start, end = interval_start(self.start, minutes), interval_start(self.end, minutes)
        return (start if start == self.start else start + timedelta(minutes=minutes)), end


@dataclass(frozen=True)
class WindowView:
    """A shard's view of one coin over a window.

    `candle` is of all its quotes, None without any; `closes` has the last price of each step with a quote, by the
    beginning of the step; `minutes` counts minutes with a quote, from `start` to `end`.
    """

    candle: Candle | None = None
    closes: Mapping[datetime, Decimal] = field(default_factory=dict)
    minutes: int = 0
    holes: int = 0
    start: datetime | None = None
    end: datetime | None = None


class WindowJson(msgspec.Struct, frozen=True, kw_only=True):
    """A coin's window in an answer; its figures are null without a quote.

    They are of the quotes between `from` and `to`, which are the window's own ends if it is `complete`. The window is
    `closed`, and final, once the shard has a quote beyond its end.
    """

    currency: CurrencyText | None = None
    origin: OriginText | None = None
    open: PriceText | None = None
    high: PriceText | None = None
    low: PriceText | None = None
    close: PriceText | None = None
    change_percent: ComputedText | None = None
    mean: ComputedText | None = None
    count: int = 0
    from_: TimeText | None = msgspec.field(name="from", default=None)
    to: TimeText | None = None
    complete: bool = False
    minutes: int
    holes: int
    closed: bool
    closes: list[PriceText | None]

    @classmethod
    def of(cls, window: Window, view: WindowView, *, closed: bool) -> WindowJson:
        candle, prices = view.candle, [view.closes.get(at) for at in window.steps]
        closes = [None if price is None else format_price(price) for price in prices]
        if candle is None:
            return cls(minutes=view.minutes, holes=view.holes, closed=closed, closes=closes)
        return cls(
            currency=candle.currency,
            origin=candle.origin,
            open=format_price(candle.open),
            high=format_price(candle.high),
            low=format_price(candle.low),
            close=format_price(candle.close),
            change_percent=format_price(change_percent(candle.open, candle.close)),
            mean=format_price(computed_price(candle.sum, candle.count)),
            count=candle.count,
            from_=None if view.start is None else format_time(view.start),
            to=None if view.end is None else format_time(view.end),
            complete=(view.start, view.end) == (window.start, window.end),
            minutes=view.minutes,
            holes=view.holes,
            closed=closed,
            closes=closes,
        )


def window_of(quotes: Sequence[Quote], window: Window) -> WindowView:
    """The view from all quotes of a coin, ascending: the definition of a window, against which shards are tested."""
    if not quotes:
        return WindowView()
    holes = sum(
        later.before != earlier.position and window.start <= later.at < window.end
        for earlier, later in pairwise(quotes)
    )
    kind = (quotes[-1].origin, quotes[-1].currency)
    ours = [one for one in quotes if window.start <= one.at < window.end and (one.origin, one.currency) == kind]
    return WindowView(
        candle_over(window.start, ours) if ours else None,
        {interval_start(one.at, window.step): one.price for one in ours},  # the last one of each step stays
        len({interval_start(one.at, 1) for one in ours}),
        holes,
        interval_start(ours[0].at, 1) if ours else None,
        interval_start(ours[-1].at, 1) + timedelta(minutes=1) if ours else None,
    )
