"""The candle: the exact open, high, low and close of a coin's price over an interval.

A candle is made of quotes of one origin and one currency, so an invented price never mixes with a real one. It carries
its first and last position, so candles of any two parts of an interval can be merged in any order.

Intervals begin at full minutes, hours and days of UTC. Minutes and hours are stored; the others are merged from them. A
candle is closed once the coin has a quote beyond its end: `at` never falls, so nothing can be added any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import msgspec

from cotacoes.model.quote import (
    ComputedText,
    Position,
    PriceText,
    Quote,
    TimeText,
    computed_price,
    exact_sum,
    format_price,
    format_time,
)

INTERVALS = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440}  # name to minutes
STORED_MINUTES = (1, 60)
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)  # the start of all intervals, in SQL too


@dataclass(frozen=True, slots=True)
class Candle:
    """A candle whose interval begins at `at`; `count` and `sum` are of its quotes, `first` and `last` their ends."""

    at: datetime
    currency: str
    origin: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    count: int
    sum: Decimal
    first: Position
    last: Position


class CandleJson(msgspec.Struct, frozen=True):
    """A candle in an answer; in an empty one all prices are null."""

    at: TimeText
    open: PriceText | None
    high: PriceText | None
    low: PriceText | None
    close: PriceText | None
    mean: ComputedText | None
    count: Annotated[int, msgspec.Meta(ge=0)]
    closed: bool

    @classmethod
    def of(cls, candle: Candle, *, closed: bool) -> CandleJson:
        return cls(
            at=format_time(candle.at),
            open=format_price(candle.open),
            high=format_price(candle.high),
            low=format_price(candle.low),
            close=format_price(candle.close),
            mean=format_price(computed_price(candle.sum, candle.count)),
            count=candle.count,
            closed=closed,
        )

    @classmethod
    def empty(cls, at: datetime, *, closed: bool) -> CandleJson:
        return cls(format_time(at), None, None, None, None, None, 0, closed)


def stored_minutes(minutes: int) -> int:
    """The minutes of the stored candles from which a candle of `minutes` is made."""
    return max(stored for stored in STORED_MINUTES if minutes % stored == 0)


def interval_start(at: datetime, minutes: int) -> datetime:
    """The beginning of the interval that contains `at`."""
    return at - (at - _ORIGIN) % timedelta(minutes=minutes)


def interval_starts(start: datetime, end: datetime, minutes: int) -> Iterator[datetime]:
    """The beginnings of the intervals in [start, end), from an aligned `start` on."""
    while start < end:
        yield start
        start += timedelta(minutes=minutes)


def candles_of(quotes: Iterable[Quote], minutes: int) -> list[Candle]:
    """The candles of these quotes, in the order of time, then of origin and currency."""
    groups: dict[tuple[datetime, str, str], list[Quote]] = {}
    for quote in quotes:
        key = (interval_start(quote.at, minutes), quote.origin, quote.currency)
        groups.setdefault(key, []).append(quote)
    return [candle_over(at, groups[at, origin, currency]) for at, origin, currency in sorted(groups)]


def merged(candles: Iterable[Candle], minutes: int) -> list[Candle]:
    """Merge candles in any order into candles of `minutes`; each quote must be in only one of them."""
    groups: dict[tuple[datetime, str, str], list[Candle]] = {}
    for candle in candles:
        key = (interval_start(candle.at, minutes), candle.origin, candle.currency)
        groups.setdefault(key, []).append(candle)
    return [_merged(at, groups[at, origin, currency]) for at, origin, currency in sorted(groups)]


def candle_over(at: datetime, quotes: Sequence[Quote]) -> Candle:
    """The candle of all these quotes, at least one, that begins at `at`."""
    first = min(quotes, key=lambda quote: quote.position)
    last = max(quotes, key=lambda quote: quote.position)
    prices = [quote.price for quote in quotes]
    return Candle(
        at=at,
        currency=first.currency,
        origin=first.origin,
        open=first.price,
        high=max(prices),
        low=min(prices),
        close=last.price,
        count=len(prices),
        sum=exact_sum(prices),
        first=first.position,
        last=last.position,
    )


def _merged(at: datetime, parts: Sequence[Candle]) -> Candle:
    first = min(parts, key=lambda part: part.first)
    last = max(parts, key=lambda part: part.last)
    return Candle(
        at=at,
        currency=first.currency,
        origin=first.origin,
        open=first.open,
        high=max(part.high for part in parts),
        low=min(part.low for part in parts),
        close=last.close,
        count=sum(part.count for part in parts),
        sum=exact_sum(part.sum for part in parts),
        first=first.first,
        last=last.last,
    )
