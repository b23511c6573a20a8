"""Bitstamp: the channels `order_book_SYMBOL`, the best hundred levels of each side.

* A frame has 5 kB, of which two prices are read; the rest is checked to be JSON and skipped.
* The first frames after a subscription were up to 6.2 s old in a recording, so the first book of a symbol counts as a
  snapshot. The exchange's clock ran 0.07 s ahead.
* There is no heartbeat but the answer to `bts:heartbeat`.
* `bts:request_reconnect` announces the end of a connection, which lives for 90 days at most.
* A refusal does not name its channel, so each symbol has a message of its own.

https://www.bitstamp.net/websocket/v2/
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from cotacoes.errors import FrameError
from cotacoes.feed_service.venues.venue import (
    ALIVE,
    SUBSCRIBED,
    Event,
    Leaving,
    SubscriptionRefused,
    Venue,
    decode,
    read_book,
    read_unix,
    shorten,
    symbol_in,
)

_CHANNEL = "order_book_"
_FIRST_PRICE = re.compile(rb'\s*\[\s*(?:\]|\[\s*("[^"\\]*"))')
_MICROSECOND = timedelta(microseconds=1)


class _Frame(msgspec.Struct):
    event: str = ""
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _OrderBook(msgspec.Struct):
    microtimestamp: str
    bids: msgspec.Raw
    asks: msgspec.Raw


class _Refusal(msgspec.Struct):
    message: str = ""


_frame = msgspec.json.Decoder(_Frame)
_order_book = msgspec.json.Decoder(_OrderBook)
_refusal = msgspec.json.Decoder(_Refusal)


class BitstampSession:
    """Knows which symbols have had their first book."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = {f"{_CHANNEL}{symbol}": symbol for symbol in symbols}
        self._awaited = set(symbols)

    def opening(self) -> Sequence[str]:
        return [json.dumps({"event": "bts:subscribe", "data": {"channel": channel}}) for channel in self._symbols]

    def read(self, frame: bytes) -> Sequence[Event]:
        read = decode(_frame, frame)
        if read.event == "data":
            symbol = self._symbols.get(read.channel)
            return ALIVE if symbol is None else (self._book(symbol, decode(_order_book, read.data)),)
        if read.event == "bts:request_reconnect":
            return (Leaving("the venue asks for a new connection"),)
        if read.event == "bts:error":
            return self._read_refusal(read)
        return SUBSCRIBED if read.event == "bts:subscription_succeeded" else ALIVE

    def _book(self, symbol: str, book: _OrderBook) -> Event:
        is_first = symbol in self._awaited
        self._awaited.discard(symbol)
        at = read_unix(book.microtimestamp, _MICROSECOND)
        return read_book(symbol, _best(book.bids), _best(book.asks), exchange_at=at, is_snapshot=is_first)

    def _read_refusal(self, frame: _Frame) -> Sequence[Event]:
        message = decode(_refusal, frame.data).message
        symbol = self._symbols.get(frame.channel) or symbol_in(message, self._symbols.values())
        return (SubscriptionRefused(symbol, shorten(message)),)


def _best(levels: msgspec.Raw) -> bytes:
    """The price of the first level, as it stands; empty if there is no level."""
    first = _FIRST_PRICE.match(levels)
    if first is None:
        raise FrameError("a side of the book is not a list of levels")
    return first[1] or b""


BITSTAMP = Venue(
    name="bitstamp",
    url="wss://ws.bitstamp.net",
    session=BitstampSession,
    heartbeat_s=10.0,
    lifetime_s=90 * 86_400.0,
    ping='{"event":"bts:heartbeat"}',
    ping_s=10.0,
)
