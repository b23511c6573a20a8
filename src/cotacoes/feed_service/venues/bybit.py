"""Bybit spot: the topics `orderbook.1.SYMBOL`. The topic `tickers` has neither a bid nor an ask.

* A delta may carry one side alone, so a session keeps the book of each symbol. A snapshot replaces the book.
* Every frame may be a snapshot: it is sent again if nothing changed for 3 s, and in recordings on each change. So only
  the first of a symbol answers the subscription, and the others show that the stream is alive.
* `ts` is when the venue stated the book. `cts`, when the book last changed, would make a quiet book look late.
* A connection needs a ping every 20 s.
* One invalid topic fails its whole message, so each symbol has a message of its own, with the symbol as `req_id`.
* An address may open 500 connections in five minutes.

https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from cotacoes.errors import FrameError
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
    symbol_in,
)

_TOPIC = "orderbook.1."
_MILLISECOND = timedelta(milliseconds=1)

_Level = tuple[msgspec.Raw, msgspec.Raw]  # price, size


class _Frame(msgspec.Struct):
    topic: str = ""
    type: str = ""
    ts: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str = ""


class _Changes(msgspec.Struct):
    b: list[_Level] = []
    a: list[_Level] = []


_frame = msgspec.json.Decoder(_Frame)
_changes = msgspec.json.Decoder(_Changes)


class _Top(NamedTuple):
    """The best price of each side, as it stands in its frame; empty if the side has no orders."""

    bid: bytes = b""
    ask: bytes = b""


class BybitSession:
    """Keeps the book of each symbol, which a snapshot replaces and a delta changes."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = {f"{_TOPIC}{symbol}": symbol for symbol in symbols}
        self._awaited = set(symbols)
        self._tops: dict[str, _Top] = {}

    def opening(self) -> Sequence[str]:
        return [
            json.dumps({"op": "subscribe", "req_id": symbol, "args": [topic]})
            for topic, symbol in self._symbols.items()
        ]

    def read(self, frame: bytes) -> Sequence[Event]:
        try:
            return self._read(decode(_frame, frame))
        except FrameError:
            self._tops.clear()  # the change in it is unknown, so deltas change nothing until the next snapshot
            raise

    def _read(self, frame: _Frame) -> Sequence[Event]:
        symbol = self._symbols.get(frame.topic)
        if symbol is not None:
            return self._read_book(symbol, frame)
        if frame.success is False:
            return self._read_refusal(frame)
        return SUBSCRIBED if frame.op == "subscribe" else ALIVE

    def _read_book(self, symbol: str, frame: _Frame) -> Sequence[Event]:
        top = _Top() if frame.type == "snapshot" else self._tops.get(symbol)
        if top is None:
            return ALIVE
        if frame.ts is None:
            raise FrameError("a book has no time")
        changes = decode(_changes, frame.data)
        top = _Top(_changed(top.bid, changes.b), _changed(top.ask, changes.a))
        at = read_unix(frame.ts, _MILLISECOND)
        book = read_book(symbol, top.bid, top.ask, exchange_at=at, is_snapshot=symbol in self._awaited)
        self._awaited.discard(symbol)
        self._tops[symbol] = top
        return (book,)

    def _read_refusal(self, frame: _Frame) -> Sequence[Event]:
        symbols = self._symbols.values()
        symbol = frame.req_id if frame.req_id in symbols else symbol_in(frame.ret_msg, symbols)
        return (SubscriptionRefused(symbol, shorten(frame.ret_msg)),)


def _changed(best: bytes, levels: Sequence[_Level]) -> bytes:
    """The best price of a side after these changes; a level of size 0 is removed."""
    for price, size in levels:
        is_removed = not bytes(size).strip(b'"0.')
        if not is_removed:
            best = bytes(price)
        elif bytes(price) == best:
            best = b""
    return best


BYBIT = Venue(
    name="bybit",
    url="wss://stream.bybit.com/v5/public/spot",
    session=BybitSession,
    heartbeat_s=10.0,
    ping='{"op":"ping"}',
    ping_s=10.0,
)
