"""OKX: `tickers`. A ping and its pong are bare texts, not JSON.

A connection on which nothing was pushed or heard for 30 s is closed. Notice 64008 announces a planned end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import (
    SUBSCRIPTIONS_MAX,
    TEXT_CHARACTERS_MAX,
    Decision,
    Floor,
    Session,
    Top,
    encode,
    plain,
    reader,
)


class _Arg(msgspec.Struct):
    channel: str = ""
    inst_id: str = msgspec.field(default="", name="instId")


class _Request(msgspec.Struct):
    op: str
    args: list[_Arg] = []


_read = reader(_Request)


class OkxSession(Session):
    name = "okx"
    character = Character(frames_per_s=10.0, spread_bps=Decimal("0.1"), lag_s=0.03, digits=6)
    currencies = ("USDT", "USDC", "USD")
    silence_s_max = 30.0

    def __init__(self, floor: Floor, query: str = "") -> None:
        super().__init__(floor)
        self._connection = f"{floor.random.getrandbits(32):08x}"

    def on_message(self, text: bytes) -> Sequence[bytes]:
        if text == b"ping":
            return [b"pong"]
        request = _read(text)
        if request is None or request.op not in {"subscribe", "unsubscribe"}:
            return [self._error("60012", f"Invalid request: {text[:TEXT_CHARACTERS_MAX].decode(errors='replace')}")]
        args = request.args[:SUBSCRIPTIONS_MAX]
        if request.op == "unsubscribe":
            for arg in args:
                self.symbols.pop(arg.inst_id, None)
            return [self._event("unsubscribe", arg) for arg in args]
        return [frame for arg in args for frame in self._subscribe(arg)]

    def frame(self, top: Top) -> bytes:
        last = plain(top.last)
        data = {
            "instType": "SPOT",
            "instId": top.symbol,
            "last": last,
            "lastSz": "0.00164251",
            "askPx": plain(top.ask),
            "askSz": plain(top.ask_size),
            "bidPx": plain(top.bid),
            "bidSz": plain(top.bid_size),
            "open24h": last,
            "high24h": last,
            "low24h": last,
            "sodUtc0": last,
            "sodUtc8": last,
            "volCcy24h": "229576048.730317321",
            "vol24h": "3601.1585121",
            "ts": str(top.at_ns // 1_000_000),
        }
        return encode({"arg": {"channel": "tickers", "instId": top.symbol}, "data": [data]})

    def farewell(self) -> Sequence[bytes]:
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return [encode({"event": "notice", "code": "64008", "msg": text, "connId": self._connection})]

    def _subscribe(self, arg: _Arg) -> Iterator[bytes]:
        decision = self.subscribe(arg.inst_id) if arg.channel == "tickers" else Decision.UNKNOWN
        if decision is Decision.OPEN:
            yield self._event("subscribe", arg)
            yield self.frame(self.floor.top(arg.inst_id))
        elif decision is not Decision.IGNORED:
            channel, symbol = arg.channel[:TEXT_CHARACTERS_MAX], arg.inst_id[:TEXT_CHARACTERS_MAX]
            yield self._error("60018", f"Wrong URL or channel:{channel},instId:{symbol} doesn't exist.")

    def _event(self, event: str, arg: _Arg) -> bytes:
        shown = {"channel": arg.channel[:TEXT_CHARACTERS_MAX], "instId": arg.inst_id[:TEXT_CHARACTERS_MAX]}
        return encode({"event": event, "arg": shown, "connId": self._connection})

    def _error(self, code: str, text: str) -> bytes:
        return encode({"event": "error", "code": code, "msg": text, "connId": self._connection})
