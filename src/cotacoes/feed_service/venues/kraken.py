"""Kraken, WebSocket v2: the channel `ticker`.

* Prices are JSON numbers, from which Kraken itself has cut trailing zeros; a float would lose digits of others.
* A ticker is sent on trades by default; with `event_trigger: bbo` on every change of the best bid and ask.
* A heartbeat comes about once a second, but only while nothing else does.
* Each symbol of a subscription is confirmed or refused by itself.
* An address may open about 150 connections in ten minutes.

https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/ticker
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
    read_time,
    shorten,
    symbol_in,
)


class _Frame(msgspec.Struct):
    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    method: str = ""
    success: bool | None = None
    symbol: str | None = None
    error: str = ""


class _Ticker(msgspec.Struct):
    symbol: str
    bid: msgspec.Raw
    ask: msgspec.Raw
    timestamp: str | None = None  # since 2025


class _Status(msgspec.Struct):
    system: str = ""


_frame = msgspec.json.Decoder(_Frame)
_tickers = msgspec.json.Decoder(list[_Ticker])
_statuses = msgspec.json.Decoder(list[_Status])


class KrakenSession:
    """Reads each frame by itself."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = dict.fromkeys(symbols)

    def opening(self) -> Sequence[str]:
        wanted = {"channel": "ticker", "symbol": list(self._symbols), "event_trigger": "bbo"}
        return [json.dumps({"method": "subscribe", "params": wanted})]

    def read(self, frame: bytes) -> Sequence[Event]:
        read = decode(_frame, frame)
        if read.channel == "ticker":
            is_snapshot = read.type == "snapshot"
            tickers = [ticker for ticker in decode(_tickers, read.data) if ticker.symbol in self._symbols]
            return [_book(ticker, is_snapshot=is_snapshot) for ticker in tickers] or ALIVE
        if read.channel == "status":
            return _read_status(decode(_statuses, read.data))
        if read.success is False:
            return self._read_refusal(read)
        return SUBSCRIBED if read.method == "subscribe" else ALIVE

    def _read_refusal(self, frame: _Frame) -> Sequence[Event]:
        symbol = frame.symbol if frame.symbol in self._symbols else symbol_in(frame.error, self._symbols)
        return (SubscriptionRefused(symbol, shorten(frame.error)),)


def _book(ticker: _Ticker, *, is_snapshot: bool) -> Event:
    at = None if ticker.timestamp is None else read_time(ticker.timestamp)
    return read_book(ticker.symbol, ticker.bid, ticker.ask, exchange_at=at, is_snapshot=is_snapshot)


def _read_status(statuses: list[_Status]) -> Sequence[Event]:
    under_maintenance = any(status.system == "maintenance" for status in statuses)
    return (Leaving("the venue is under maintenance"),) if under_maintenance else ALIVE


KRAKEN = Venue(name="kraken", url="wss://ws.kraken.com/v2", session=KrakenSession, heartbeat_s=1.0)
