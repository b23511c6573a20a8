"""The gateway's answers as Python objects: prices as `Decimal`, times as `datetime`.

An invalid answer is ServiceUnavailableError: it did not come from a working gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from cotacoes.errors import ServiceUnavailableError
from cotacoes.errors.values import explain_message
from cotacoes.feed.history import HistoryPage, read_page
from cotacoes.model.candle import CandleJson
from cotacoes.model.payloads import CandlesJson, CurrentJson
from cotacoes.model.quote import Position, Quote, QuoteJson, first_gap, parse_price, parse_time


@dataclass(frozen=True, slots=True)
class CurrentQuote:
    """The newest quote, at most `age_s` seconds old by the source's own time.

    `status` is fresh or stale by the gateway's limit; `source` is live, or cache if the last poll brought no price.
    """

    quote: Quote
    age_s: float
    status: str
    source: str


@dataclass(frozen=True, slots=True)
class QuoteCandle:
    """The price over one interval that begins at `at`, from `count` quotes; final once it is `closed`."""

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
    """Candles of one origin and currency; `next` is the start of the next page, None if there is none."""

    candles: list[QuoteCandle]
    currency: str
    origin: str
    next: str | None


def read_current(answer: CurrentJson, waited_s: float) -> CurrentQuote:
    """The newest quote from a checked answer that took at most `waited_s` to arrive."""
    try:
        quote = msgspec.convert(msgspec.to_builtins(answer), QuoteJson).quote()
    except ValueError as error:
        raise _malformed(error) from error
    return CurrentQuote(quote, answer.age_ms / 1000 + waited_s, answer.status, answer.source)


def read_quotes(coin: str, answer: Mapping[str, Any], after: Position | None) -> HistoryPage:
    """A page that follows a position, if one is given, with no holes other than its gaps."""
    try:
        page = read_page(coin, answer)
        if first_gap(page.quotes, after, page.gap_before) is not None:
            raise ValueError("the history has a hole")
        if page.more and not page.quotes:
            raise ValueError("an empty page that is not the last")
    except ValueError as error:
        raise _malformed(error) from error
    return page


def read_candles(coin: str, answer: Mapping[str, Any]) -> CandlePage:
    """A page of candles, none of them empty."""
    try:
        page = msgspec.convert(answer, CandlesJson)
        candles = [_candle(coin, page, candle) for candle in page.candles]
        if page.next is not None and (not candles or parse_time(page.next) <= candles[-1].at):
            raise ValueError("the next page is not a later one")
    except ValueError as error:
        raise _malformed(error) from error
    return CandlePage(candles, page.currency, page.origin, page.next)


def _candle(coin: str, page: CandlesJson, candle: CandleJson) -> QuoteCandle:
    prices = (candle.open, candle.high, candle.low, candle.close)
    first, high, low, last = [parse_price(price or "") for price in prices]
    # the mean of tiny prices may be rounded to zero
    mean = Decimal(0) if candle.mean == "0" else parse_price(candle.mean or "")
    at = parse_time(candle.at)
    return QuoteCandle(
        coin, page.currency, page.origin, at, first, high, low, last, mean, candle.count, closed=candle.closed
    )


def _malformed(error: Exception) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"the gateway gave an invalid answer: {explain_message(error)}")
