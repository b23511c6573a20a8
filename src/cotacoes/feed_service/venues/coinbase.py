"""Coinbase Advanced Trade: the channels `ticker` and `heartbeats`.

* The time is in the envelope alone, with nine decimal places.
* `price` is the last trade and may lie outside the book of the same frame, so it is not read.
* `sequence_num` counts the frames of a connection over all of its channels; a jump means lost frames.
* Without `heartbeats`, once a second, a quiet channel is closed after 60 to 90 s.
* A product in USDC is the same book as the one in USD: `BTC-USDC` is answered as `BTC-USD`.
* A refused product may fail its whole message, so each product has a message of its own. Eight messages a second are
  the limit without a key, and the first must come within five seconds.

https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from cotacoes.feed_service.venues.venue import (
    ALIVE,
    SUBSCRIBED,
    Event,
    SequenceGap,
    SubscriptionRefused,
    Venue,
    decode,
    read_book,
    read_time,
    shorten,
    symbol_in,
)
from cotacoes.model.venue_symbols import coinbase_book


class _Frame(msgspec.Struct):
    channel: str = ""
    timestamp: str = ""
    sequence_num: int | None = None
    events: msgspec.Raw = msgspec.Raw(b"[]")
    type: str = ""
    message: str = ""


class _Ticker(msgspec.Struct):
    product_id: str
    best_bid: msgspec.Raw
    best_ask: msgspec.Raw


class _TickerEvent(msgspec.Struct):
    type: str
    tickers: list[_Ticker]


_frame = msgspec.json.Decoder(_Frame)
_events = msgspec.json.Decoder(list[_TickerEvent])


class CoinbaseSession:
    """Counts the frames of its connection."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = {coinbase_book(symbol): symbol for symbol in symbols}
        self._next: int | None = None

    def opening(self) -> Sequence[str]:
        heartbeats = {"type": "subscribe", "channel": "heartbeats"}
        tickers = [{"type": "subscribe", "channel": "ticker", "product_ids": [product]} for product in self._symbols]
        return [json.dumps(message) for message in (heartbeats, *tickers)]

    def read(self, frame: bytes) -> Sequence[Event]:
        read = decode(_frame, frame)
        lost = self._lost(read.sequence_num)  # first, since a frame that cannot be read is not lost
        found = self._read_channel(read)
        return (SequenceGap(lost), *found) if lost else found

    def _read_channel(self, frame: _Frame) -> Sequence[Event]:
        if frame.channel == "ticker":
            return self._read_tickers(frame) or ALIVE
        if frame.type == "error":
            return (SubscriptionRefused(symbol_in(frame.message, self._symbols), shorten(frame.message)),)
        return SUBSCRIBED if frame.channel == "subscriptions" else ALIVE

    def _read_tickers(self, frame: _Frame) -> Sequence[Event]:
        at = read_time(frame.timestamp)
        return [
            read_book(symbol, ticker.best_bid, ticker.best_ask, exchange_at=at, is_snapshot=event.type == "snapshot")
            for event in decode(_events, frame.events)
            for ticker in event.tickers
            if (symbol := self._symbols.get(ticker.product_id)) is not None
        ]

    def _lost(self, number: int | None) -> int:
        """How many frames are missing before the one of this number."""
        if number is None:
            return 0
        expected, self._next = self._next, number + 1
        return 0 if expected is None else max(0, number - expected)


COINBASE = Venue(
    name="coinbase",
    url="wss://advanced-trade-ws.coinbase.com",
    session=CoinbaseSession,
    heartbeat_s=1.0,
    pause_s=0.15,
)
