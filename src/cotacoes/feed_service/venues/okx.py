"""OKX: the channel `tickers`.

* The text `ping` is answered with the text `pong`, neither of which is JSON. A connection is cut after 30 s of silence.
* No frame is marked as a snapshot, but each subscription is answered with one: the first book of a symbol.
* A side without orders has the price `""`.
* The notice 64008 comes 30 to 60 s before a planned cut.
* An address may open three connections a second; a connection may subscribe 480 times an hour.

https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-tickers-channel
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
    Leaving,
    SubscriptionRefused,
    Venue,
    decode,
    read_book,
    read_unix,
    shorten,
    symbol_in,
)

_CUT_AHEAD = "64008"
_MILLISECOND = timedelta(milliseconds=1)


class _Argument(msgspec.Struct, rename="camel"):
    channel: str = ""
    inst_id: str = ""


class _Frame(msgspec.Struct):
    arg: _Argument | None = None
    data: msgspec.Raw = msgspec.Raw(b"[]")
    event: str = ""
    code: str = ""
    msg: str = ""


class _Ticker(msgspec.Struct, rename="camel"):
    inst_id: str
    bid_px: msgspec.Raw
    ask_px: msgspec.Raw
    ts: str


_frame = msgspec.json.Decoder(_Frame)
_tickers = msgspec.json.Decoder(list[_Ticker])
_NO_ARGUMENT = _Argument()


class OkxSession:
    """Knows which symbols have had their first book."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = dict.fromkeys(symbols)
        self._awaited = set(symbols)

    def opening(self) -> Sequence[str]:
        wanted = [{"channel": "tickers", "instId": symbol} for symbol in self._symbols]
        return [json.dumps({"op": "subscribe", "args": [argument]}) for argument in wanted]

    def read(self, frame: bytes) -> Sequence[Event]:
        if frame == b"pong":
            return ALIVE
        read = decode(_frame, frame)
        if read.event:
            return self._read_event(read)
        if read.arg is not None and read.arg.channel == "tickers":
            tickers = [ticker for ticker in decode(_tickers, read.data) if ticker.inst_id in self._symbols]
            return [self._book(ticker) for ticker in tickers] or ALIVE
        return ALIVE

    def _book(self, ticker: _Ticker) -> Event:
        is_first = ticker.inst_id in self._awaited
        self._awaited.discard(ticker.inst_id)
        at = read_unix(ticker.ts, _MILLISECOND)
        return read_book(ticker.inst_id, ticker.bid_px, ticker.ask_px, exchange_at=at, is_snapshot=is_first)

    def _read_event(self, frame: _Frame) -> Sequence[Event]:
        if frame.event == "error":
            return (SubscriptionRefused(symbol_in(frame.msg, self._symbols), shorten(frame.msg)),)
        if frame.event == "notice" and frame.code == _CUT_AHEAD:
            return (Leaving(shorten(frame.msg)),)
        return SUBSCRIBED if frame.event == "subscribe" else ALIVE


OKX = Venue(
    name="okx",
    url="wss://ws.okx.com:8443/ws/v5/public",
    session=OkxSession,
    heartbeat_s=10.0,
    ping="ping",
    ping_s=10.0,
)
