"""The formats of recordings, recognised by content. To add one: a reader of a line, and how its first line looks.

    format                                        one price for each
    raw Binance frames: `ns {json}`               bookTicker, the exact mid of bid and ask; or trade
    trades as CSV with a header                   row
    our own (`cotacoes record`): NDJSON           quote

`received_ns` gives order and pace, `observed_ns` is the price's own time: of a book ticker, which carries none, the
receive time; of a trade the exchange's time, but never later than its receipt, since exchanges' clocks run ahead.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from cotacoes.live import decode_message
from cotacoes.quote import (
    PriceError,
    Quote,
    computed_price,
    exact_sum,
    parse_price,
    parse_time,
    to_microseconds,
)

_FRAME_LINE = re.compile(rb"([0-9]{1,19}) (\{.*)", re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OWN_HEAD = b'{"v":1,"type":"recording"'
OWN_GAP = b'{"v":1,"type":"gap"'


class Pair(NamedTuple):
    """What a pair of an exchange is called here."""

    coin: str
    currency: str


PAIRS: Mapping[str, Pair] = {
    "BTCUSDT": Pair("bitcoin", "USDT"),
    "ETHUSDT": Pair("ethereum", "USDT"),
    "BTC-USD": Pair("bitcoin", "USD"),
    "ETH-USD": Pair("ethereum", "USD"),
}


class Recorded(NamedTuple):
    """One price of a recording; times in ns since 1970."""

    received_ns: int
    observed_ns: int
    coin: str
    currency: str
    price: Decimal


class MalformedError(Exception):
    """A line that is none of the format."""


Read = Callable[[bytes], Recorded | None]  # None: a line of another stream or pair; raises MalformedError


def recognise(line: bytes, price: str, pairs: Mapping[str, Pair]) -> Read:
    """How to read what begins with this line; MalformedError where that can not be told from it."""
    if _FRAME_LINE.match(line):
        return _BinanceFrames(price, pairs).read
    if line.startswith(OWN_HEAD):
        return _read_own
    header = [name.strip().lower() for name in _cells(line.removeprefix(_BYTE_ORDER_MARK))]
    if {"symbol", "price", "timestamp"} <= set(header):
        return _TradeRows(header, pairs).read
    raise MalformedError


class _Frame(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _BookTicker(msgspec.Struct):
    s: str
    b: str
    a: str


class _Trade(msgspec.Struct):
    s: str
    p: str
    T: int


_frame = msgspec.json.Decoder(_Frame)
_book_ticker = msgspec.json.Decoder(_BookTicker)
_trade = msgspec.json.Decoder(_Trade)


class _BinanceFrames:
    """Lines of a receive time in ns, a space, and a frame as the exchange sent it."""

    def __init__(self, price: str, pairs: Mapping[str, Pair]) -> None:
        self._stream = "@trade" if price == "trade" else "@bookTicker"
        self._price_of = self._trade if price == "trade" else self._mid
        self._pairs = pairs
        self._last: dict[str, tuple[str, str, Decimal]] = {}

    def read(self, line: bytes) -> Recorded | None:
        match = _FRAME_LINE.match(line)
        if match is None:
            raise MalformedError
        try:
            frame = _frame.decode(match[2])
            return self._price_of(int(match[1]), frame.data) if frame.stream.endswith(self._stream) else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PriceError) as error:
            raise MalformedError from error

    def _mid(self, received_ns: int, data: msgspec.Raw) -> Recorded | None:
        ticker = _book_ticker.decode(data)
        pair = self._pairs.get(ticker.s)
        if pair is None:
            return None
        bid, ask, mid = self._last.get(ticker.s, ("", "", Decimal(0)))
        if (bid, ask) != (ticker.b, ticker.a):  # nine frames of ten repeat both
            mid = computed_price(exact_sum([parse_price(ticker.b), parse_price(ticker.a)]), 2)
            self._last[ticker.s] = (ticker.b, ticker.a, mid)
        return Recorded(received_ns, received_ns, pair.coin, pair.currency, mid)

    def _trade(self, received_ns: int, data: msgspec.Raw) -> Recorded | None:
        trade = _trade.decode(data)
        pair = self._pairs.get(trade.s)
        if pair is None:
            return None
        observed_ns = min(trade.T * 1_000_000, received_ns)
        return Recorded(received_ns, observed_ns, pair.coin, pair.currency, parse_price(trade.p))


class _TradeRows:
    """Rows of CSV under a header; a row's `timestamp` is its receive time as well."""

    def __init__(self, header: Sequence[str], pairs: Mapping[str, Pair]) -> None:
        self._width = len(header)
        self._columns = [header.index(name) for name in ("symbol", "price", "timestamp")]
        self._pairs = pairs
        self._is_header = True

    def read(self, line: bytes) -> Recorded | None:
        if self._is_header:
            self._is_header = False
            return None
        cells = _cells(line)
        if len(cells) != self._width:
            raise MalformedError
        symbol, price, timestamp = (cells[column] for column in self._columns)
        pair = self._pairs.get(symbol)
        if pair is None:
            return None
        try:
            time_ns = to_microseconds(parse_time(timestamp)) * 1000
            return Recorded(time_ns, time_ns, pair.coin, pair.currency, parse_price(price))
        except ValueError as error:
            raise MalformedError from error


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r\n")]), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _read_own(line: bytes) -> Recorded | None:
    """A line as `cotacoes record` writes it: the head, then live messages."""
    if line.startswith((OWN_HEAD, OWN_GAP)):
        return None
    try:
        told = decode_message(line)
    except (ValueError, RecursionError) as error:
        raise MalformedError from error
    if len(told) != 1:
        raise MalformedError
    quote = told[0]
    if not isinstance(quote, Quote):
        return None
    received_ns, observed_ns = (to_microseconds(time) * 1000 for time in (quote.at, quote.observed_at))
    return Recorded(received_ns, observed_ns, quote.coin, quote.currency, quote.price)
