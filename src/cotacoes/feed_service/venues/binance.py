"""Binance: one combined stream of `bookTicker` and `trade`.

* A book ticker has neither a time nor an event name. The `trade` stream on the same connection shows the clock, which
  ran 1.27 s ahead in a recording.
* An unknown symbol is confirmed like any other, and then nothing comes.
* The best bid and ask stood still for 13.6 s in a busy market.
* A connection lives for 24 hours; the event `serverShutdown` announces an earlier end. More than five messages a second
  end it, and an address may open 300 connections in five minutes.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from cotacoes.feed_service.venues.venue import (
    ALIVE,
    SUBSCRIBED,
    ClockSeen,
    Event,
    Leaving,
    SubscriptionRefused,
    Venue,
    decode,
    read_book,
    read_unix,
    shorten,
)

_SYMBOLS_PER_MESSAGE = 50  # a message of two streams each stays below 4 kB


class _Error(msgspec.Struct):
    msg: str = ""


class _Frame(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    e: str = ""  # of an event outside any stream
    id: int | str | None = None
    code: int | None = None
    msg: str = ""
    error: _Error | None = None


class _BookTicker(msgspec.Struct):
    s: str
    b: msgspec.Raw
    a: msgspec.Raw


class _Event(msgspec.Struct):
    e: str = ""
    E: int | None = None


_frame = msgspec.json.Decoder(_Frame)
_book_ticker = msgspec.json.Decoder(_BookTicker)
_event = msgspec.json.Decoder(_Event)
_MILLISECOND = timedelta(milliseconds=1)


class BinanceSession:
    """Reads each frame by itself."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = dict.fromkeys(symbols)

    def opening(self) -> Sequence[str]:
        symbols = list(self._symbols)
        starts = range(0, len(symbols), _SYMBOLS_PER_MESSAGE)
        return [_subscription(symbols[start : start + _SYMBOLS_PER_MESSAGE], start) for start in starts]

    def read(self, frame: bytes) -> Sequence[Event]:
        read = decode(_frame, frame)
        if read.stream.endswith("@bookTicker"):
            ticker = decode(_book_ticker, read.data)
            return (read_book(ticker.s, ticker.b, ticker.a),) if ticker.s in self._symbols else ALIVE
        if read.stream:
            return _read_event(decode(_event, read.data))
        if read.error is not None or read.code is not None:
            return (SubscriptionRefused(None, shorten(read.error.msg if read.error else read.msg)),)
        if read.e:
            return _read_event(_Event(read.e))
        return SUBSCRIBED if read.id is not None else ALIVE


def _subscription(symbols: Sequence[str], number: int) -> str:
    streams = [f"{symbol.lower()}@{stream}" for symbol in symbols for stream in ("bookTicker", "trade")]
    return json.dumps({"method": "SUBSCRIBE", "params": streams, "id": number + 1})


def _read_event(event: _Event) -> Sequence[Event]:
    if event.e == "serverShutdown":
        return (Leaving("the server shuts down"),)
    return ALIVE if event.E is None else (ClockSeen(read_unix(event.E, _MILLISECOND)),)


BINANCE = Venue(
    name="binance",
    url="wss://stream.binance.com:9443/stream",
    session=BinanceSession,
    lifetime_s=86_400.0,
    pause_s=0.25,
)
