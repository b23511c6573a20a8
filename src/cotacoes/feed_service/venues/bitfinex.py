"""Bitfinex, WebSocket v2: the channel `ticker`.

* A ticker is an array without names: BID, BID_SIZE, ASK, ASK_SIZE, … Its prices are JSON numbers, and its LAST may lie
  outside of bid and ask. It has no time at all.
* A frame names its symbol by a channel number, which the answer to the subscription gives.
* A subscription is answered with the ticker as it is, so the first of a channel counts as a snapshot.
* `[CHANNEL,"hb"]` comes every 15 s from a channel with nothing else to say.
* The info codes 20051 and 20060 announce a restart and maintenance.
* A connection may hold 25 channels, and an address may open 20 connections a minute.

https://docs.bitfinex.com/reference/ws-public-ticker
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from cotacoes.feed_service.venues.venue import (
    ALIVE,
    SUBSCRIBED,
    Event,
    Leaving,
    SubscriptionRefused,
    Venue,
    decode,
    read_book,
    shorten,
)

_LEAVING = {20051: "the server restarts", 20060: "the venue is under maintenance"}
_HEARTBEAT = msgspec.Raw(b'"hb"')


class _Message(msgspec.Struct, rename="camel"):
    event: str = ""
    channel: str = ""
    chan_id: int | None = None
    symbol: str = ""
    code: int | None = None
    msg: str = ""


class _Update(msgspec.Struct, array_like=True):
    channel: int
    ticker: msgspec.Raw


class _Ticker(msgspec.Struct, array_like=True):
    """The first of ten fields."""

    bid: msgspec.Raw
    bid_size: msgspec.Raw
    ask: msgspec.Raw


_message = msgspec.json.Decoder(_Message)
_update = msgspec.json.Decoder(_Update)
_ticker = msgspec.json.Decoder(_Ticker)


class BitfinexSession:
    """Knows the symbol of each channel, and which of them have had their first book."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = symbols
        self._channels: dict[int, str] = {}
        self._awaited: set[str] = set()

    def opening(self) -> Sequence[str]:
        return [json.dumps({"event": "subscribe", "channel": "ticker", "symbol": symbol}) for symbol in self._symbols]

    def read(self, frame: bytes) -> Sequence[Event]:
        if not frame.lstrip().startswith(b"["):
            return self._read_message(decode(_message, frame))
        update = decode(_update, frame)
        symbol = self._channels.get(update.channel)
        if symbol is None or update.ticker == _HEARTBEAT:
            return ALIVE
        ticker = decode(_ticker, update.ticker)
        is_first = symbol in self._awaited
        self._awaited.discard(symbol)
        return (read_book(symbol, ticker.bid, ticker.ask, is_snapshot=is_first),)

    def _read_message(self, message: _Message) -> Sequence[Event]:
        if message.event == "subscribed" and message.channel == "ticker" and message.symbol in self._symbols:
            if message.chan_id is not None:
                self._open(message.chan_id, message.symbol)
            return SUBSCRIBED
        if message.event == "error":
            return (
                SubscriptionRefused(message.symbol if message.symbol in self._symbols else None, shorten(message.msg)),
            )
        leaving = _LEAVING.get(message.code or 0) if message.event == "info" else None
        return ALIVE if leaving is None else (Leaving(leaving),)

    def _open(self, channel: int, symbol: str) -> None:
        others = {other: named for other, named in self._channels.items() if named != symbol}
        self._channels = others | {channel: symbol}
        self._awaited.add(symbol)


BITFINEX = Venue(name="bitfinex", url="wss://api-pub.bitfinex.com/ws/2", session=BitfinexSession, heartbeat_s=15.0)
