"""Gemini: the streams `SYMBOL@bookTicker`, much like Binance's but with a time, in nanoseconds.

* The book ticker of a quiet symbol may be silent for half a minute. The server's own pings are frames of the protocol,
  which a reader does not see, so the adapter asks for an answer with `{"method":"ping"}`.
* A subscription is not marked as answered by a snapshot, so the first book of a symbol counts as one.
* One invalid stream fails its whole message, so each symbol has a message of its own; its `id` finds the symbol again.
* An address may open 300 connections in five minutes.

https://developer.gemini.com/websocket/streams
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from cotacoes.feed_service.venues.venue import (
    ALIVE,
    SUBSCRIBED,
    Event,
    SubscriptionRefused,
    Venue,
    decode,
    read_book,
    read_unix,
    shorten,
)

_ABSENT = msgspec.Raw(b"")
_PING_ID = 0  # subscriptions count from 1
_OK = 200
_MICROSECOND = timedelta(microseconds=1)


class _Error(msgspec.Struct):
    msg: str = ""


class _Frame(msgspec.Struct):
    """A book ticker, or the answer to a message of ours."""

    s: str = ""
    b: msgspec.Raw = _ABSENT
    a: msgspec.Raw = _ABSENT
    E: int | None = None
    e: str = "bookTicker"  # the documentation shows none
    id: int | str | None = None
    status: int = _OK
    error: _Error | None = None


_frame = msgspec.json.Decoder(_Frame)


class GeminiSession:
    """Knows which symbols have had their first book."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = dict(enumerate(symbols, start=_PING_ID + 1))
        self._known = frozenset(symbols)
        self._awaited = set(symbols)

    def opening(self) -> Sequence[str]:
        return [
            json.dumps({"id": number, "method": "subscribe", "params": [f"{symbol}@bookTicker"]})
            for number, symbol in self._symbols.items()
        ]

    def read(self, frame: bytes) -> Sequence[Event]:
        read = decode(_frame, frame)
        if read.id is not None:
            return self._read_answer(read)
        if read.s not in self._known or read.e != "bookTicker" or _ABSENT in (read.b, read.a):
            return ALIVE
        is_first = read.s in self._awaited
        self._awaited.discard(read.s)
        at = None if read.E is None else read_unix(read.E // 1000, _MICROSECOND)
        return (read_book(read.s, read.b, read.a, exchange_at=at, is_snapshot=is_first),)

    def _read_answer(self, frame: _Frame) -> Sequence[Event]:
        if frame.id == _PING_ID:
            return ALIVE
        if frame.status == _OK:
            return SUBSCRIBED
        symbol = self._symbols.get(frame.id) if isinstance(frame.id, int) else None
        return (SubscriptionRefused(symbol, shorten(frame.error.msg if frame.error else f"status {frame.status}")),)


GEMINI = Venue(
    name="gemini",
    url="wss://ws.gemini.com",
    session=GeminiSession,
    heartbeat_s=10.0,
    ping=json.dumps({"id": _PING_ID, "method": "ping"}),
    ping_s=10.0,
)
