"""The formats of recordings, recognised by content. A new one needs a reader of its lines and a case in `recognise`.

    format                                        one price for each
    raw Binance frames: `ns {json}`               bookTicker, the exact mid of bid and ask; or trade
    trades as CSV with a header                   row
    our own (`cotacoes record`): NDJSON           quote

`received_ns` gives order and pace, `observed_ns` is the price's own time: for a book ticker, which has none, the
receive time; for a trade the exchange's time, but never later than its receipt, since exchanges' clocks run ahead. If
it is later by more than `AHEAD_MAX_NS`, that is no clock running ahead, and the line is malformed.

Files are often joined from several, so a CSV may have further headers, each of which sets the columns again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from cotacoes.errors.values import explain_message
from cotacoes.model.live_message import decode_message
from cotacoes.model.quote import (
    Agreement,
    PriceError,
    Quote,
    computed_price,
    exact_sum,
    parse_number,
    parse_price,
    parse_time,
    to_microseconds,
)

AHEAD_MAX_NS = 5_000_000_000
COLUMNS = ("symbol", "price", "timestamp")

_FRAME_LINE = re.compile(rb"([0-9]{1,19}) (\{.*)", re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNIX_TIME = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?\Z", re.ASCII)
# The units in which times since 1970 are written: each is read up to the year 5138.
_UNITS_NS: Sequence[tuple[int, int]] = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))
_OWN_TYPES_BESIDE_MESSAGES = {"recording", "gap", "retracted"}
_OWN_TYPES = {"quote", "heartbeat", *_OWN_TYPES_BESIDE_MESSAGES}


class Pair(NamedTuple):
    """The names of an exchange's pair here."""

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
    agreement: Agreement | None = None


class MalformedError(Exception):
    """A line that does not follow the format; the message says why."""


Read = Callable[[bytes], Recorded | None]  # None: a line of another stream or pair; raises MalformedError


def recognise(line: bytes, price: str, pairs: Mapping[str, Pair]) -> Read:
    """The reader for a file that begins with this line; MalformedError if the line does not show its format."""
    if _FRAME_LINE.match(line):
        return _BinanceFrames(price, pairs).read
    line = line.removeprefix(_BYTE_ORDER_MARK)
    if line.startswith(b"{"):
        if _own_type(line) not in _OWN_TYPES:
            raise MalformedError("this JSON is not a message of `cotacoes record`")
        return _read_own
    header = _header(line)
    if header is not None:
        return _TradeRows(header, pairs).read
    raise MalformedError(f"a CSV needs a header with {', '.join(COLUMNS)}, but this line begins {_preview(line)}")


def unix_ns(time: int) -> int:
    """A time since 1970 in ns; its size shows whether it is in s, ms, us or ns."""
    return time * _unit_ns(time)


def _unit_ns(time: int) -> int:
    return next((unit_ns for below, unit_ns in _UNITS_NS if abs(time) < below), 1)


def _time_ns(text: str) -> int:
    """A time in a CSV: since 1970, or RFC 3339, with T or a space; ValueError otherwise."""
    match = _UNIX_TIME.match(text)
    if match is None:
        return to_microseconds(parse_time(text.replace(" ", "T", 1))) * 1000
    whole, fraction = int(match[1]), match[2] or "0"
    unit_ns = _unit_ns(whole)
    return whole * unit_ns + int(fraction.ljust(9, "0")) * unit_ns // 10**9


def _preview(line: bytes) -> str:
    return ascii(line[:40].decode("utf-8", "replace").rstrip("\r\n"))


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
            raise MalformedError(f"a frame is a receive time and JSON, but this line is {_preview(line)}")
        try:
            frame = _frame.decode(match[2])
            return self._price_of(unix_ns(int(match[1])), frame.data) if frame.stream.endswith(self._stream) else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PriceError) as error:
            raise MalformedError(f"the frame cannot be read: {explain_message(error)}") from error

    def _mid(self, received_ns: int, data: msgspec.Raw) -> Recorded | None:
        ticker = _book_ticker.decode(data)
        pair = self._pairs.get(ticker.s)
        if pair is None:
            return None
        bid, ask, mid = self._last.get(ticker.s, ("", "", Decimal(0)))
        if (bid, ask) != (ticker.b, ticker.a):  # nine of ten frames repeat both
            mid = computed_price(exact_sum([parse_price(ticker.b), parse_price(ticker.a)]), 2)
            self._last[ticker.s] = (ticker.b, ticker.a, mid)
        return Recorded(received_ns, received_ns, pair.coin, pair.currency, mid)

    def _trade(self, received_ns: int, data: msgspec.Raw) -> Recorded | None:
        trade = _trade.decode(data)
        pair = self._pairs.get(trade.s)
        if pair is None:
            return None
        observed_ns = unix_ns(trade.T)
        if observed_ns > received_ns + AHEAD_MAX_NS:
            raise MalformedError(f"the trade time {trade.T} is later than its receipt")
        return Recorded(received_ns, min(observed_ns, received_ns), pair.coin, pair.currency, parse_price(trade.p))


class _TradeRows:
    """Rows of CSV under a header; a row's `timestamp` is its receive time as well."""

    def __init__(self, header: Sequence[str], pairs: Mapping[str, Pair]) -> None:
        self._set_columns(header)
        self._pairs = pairs

    def _set_columns(self, header: Sequence[str]) -> None:
        self._width = len(header)
        self._columns = [header.index(name) for name in COLUMNS]

    def read(self, line: bytes) -> Recorded | None:
        cells = _cells(line)
        pair = self._pairs.get(cells[self._columns[0]]) if len(cells) == self._width else None
        if pair is None:
            self._read_other(line, len(cells))
            return None
        _, price, timestamp = (cells[column] for column in self._columns)
        try:
            time_ns = _time_ns(timestamp)
            return Recorded(time_ns, time_ns, pair.coin, pair.currency, parse_number(price))
        except PriceError as error:
            raise MalformedError(f"the price is {error.reason}: {price[:40]!a}") from error
        except ValueError as error:
            raise MalformedError(f"the timestamp is {timestamp[:40]!a}: {error}") from error

    def _read_other(self, line: bytes, width: int) -> None:
        """Read a line without a price of ours: a header, or the row of another pair."""
        header = _header(line)
        if header is not None:
            self._set_columns(header)
        elif width != self._width:
            raise MalformedError(f"the row has {width} columns, its header {self._width}")


def _header(line: bytes) -> list[str] | None:
    """The columns that this line names, if it is a header."""
    if b"price" not in line.lower():
        return None  # a quick check, for the rows of other pairs
    names = [name.strip().lower() for name in _cells(line.removeprefix(_BYTE_ORDER_MARK))]
    return names if set(COLUMNS) <= set(names) else None


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r\n")], skipinitialspace=True), [])
    except (UnicodeDecodeError, csv.Error):
        return []


class _Message(msgspec.Struct):
    type: str = ""


_message = msgspec.json.Decoder(_Message)


def _own_type(line: bytes) -> str:
    """The `type` of one of our messages, whatever the spaces between its tokens; empty if it has none."""
    try:
        return _message.decode(line).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _read_own(line: bytes) -> Recorded | None:
    """A line as `cotacoes record` writes it: the head, then live messages."""
    try:
        messages = decode_message(line.removeprefix(_BYTE_ORDER_MARK))
    except (ValueError, RecursionError) as error:
        if _own_type(line.removeprefix(_BYTE_ORDER_MARK)) in _OWN_TYPES_BESIDE_MESSAGES:
            return None
        raise MalformedError(f"not a message of `cotacoes record`: {error}") from error
    if len(messages) != 1:
        raise MalformedError("a line holds one message")
    quote = messages[0]
    if not isinstance(quote, Quote):
        return None
    received_ns, observed_ns = (to_microseconds(time) * 1000 for time in (quote.at, quote.observed_at))
    return Recorded(received_ns, observed_ns, quote.coin, quote.currency, quote.price, quote.agreement)
