"""The gateway's answers with their types: prices as `Decimal`, times as `datetime`.

An answer that is none of these is ServiceUnavailableError: it did not come from a gateway that works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec

from cotacoes.errors import ServiceUnavailableError
from cotacoes.errors.values import explain_message
from cotacoes.feed.history import HistoryPage, read_page
from cotacoes.model.candle import CandleJson
from cotacoes.model.quote import Position, Quote, QuoteJson, first_gap, parse_price, parse_time


@dataclass(frozen=True, slots=True)
class CurrentQuote:
    """The newest quote, which is at most `age_s` seconds old by the source's own time.

    `status` is fresh or stale by the gateway's limit; `source` is live, or cache where the last poll brought none.
    """

    quote: Quote
    age_s: float
    status: str
    source: str


@dataclass(frozen=True, slots=True)
class QuoteCandle:
    """What the price did in one interval, from `at` on, over `count` quotes; once `closed` nothing is added to it."""

    coin: str
    currency: str
    origin: str
    at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    mean: Decimal
    count: int
    closed: bool


@dataclass(frozen=True, slots=True)
class CandlePage:
    """Some candles of one origin and currency; `next` is the start of those that follow, None where none do."""

    candles: list[QuoteCandle]
    currency: str
    origin: str
    next: str | None


class _Current(QuoteJson, frozen=True, kw_only=True):
    age_ms: Annotated[int, msgspec.Meta(ge=0)]
    status: Literal["fresh", "stale"]
    source: Literal["live", "cache"]


class _Candles(msgspec.Struct, frozen=True):
    currency: str
    origin: str
    candles: list[CandleJson]
    next: str | None


def read_current(coin: str, answer: Mapping[str, Any], waited_s: float) -> CurrentQuote:
    """The newest quote, of which the answer took so long to get here at most."""
    try:
        told = msgspec.convert(answer, _Current)
        return CurrentQuote(_of(coin, told.quote()), told.age_ms / 1000 + waited_s, told.status, told.source)
    except ValueError as error:
        raise _malformed(error) from error


def read_quotes(coin: str, answer: Mapping[str, Any], after: Position | None) -> HistoryPage:
    """A page that follows a position, if there is one, without a hole but for the gaps that it tells."""
    try:
        page = read_page(coin, answer)
        if first_gap(page.quotes, after, page.gap_before) is not None:
            raise ValueError("the history has a hole")
        if page.more and not page.quotes:
            raise ValueError("nothing, and more to come")
    except ValueError as error:
        raise _malformed(error) from error
    return page


def read_candles(coin: str, answer: Mapping[str, Any]) -> CandlePage:
    """A page of candles that are not empty."""
    try:
        page = msgspec.convert(answer, _Candles)
        candles = [_candle(coin, page, told) for told in page.candles]
        if page.next is not None and (not candles or parse_time(page.next) <= candles[-1].at):
            raise ValueError("the next page is not a later one")
    except ValueError as error:
        raise _malformed(error) from error
    return CandlePage(candles, page.currency, page.origin, page.next)


def _candle(coin: str, page: _Candles, told: CandleJson) -> QuoteCandle:
    prices = (told.open, told.high, told.low, told.close)
    first, high, low, last = [parse_price(price or "") for price in prices]
    # a mean is rounded, down to nothing where the prices are that small
    mean = Decimal(0) if told.mean == "0" else parse_price(told.mean or "")
    at = parse_time(told.at)
    return QuoteCandle(
        coin, page.currency, page.origin, at, first, high, low, last, mean, told.count, closed=told.closed
    )


def _of(coin: str, quote: Quote) -> Quote:
    if quote.coin != coin:
        raise ValueError("a quote of another coin")
    return quote


def _malformed(error: Exception) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"the gateway did not answer as it should: {explain_message(error)}")
