"""Kraken v2: `ticker` with `event_trigger`.

Prices are JSON numbers from which Kraken cuts trailing zeros. A connection begins with the status of the system. Each
symbol of a subscription is answered on its own, then its snapshot follows. A heartbeat comes about once a second while
nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import (
    SUBSCRIPTIONS_MAX,
    TEXT_CHARACTERS_MAX,
    Decision,
    Session,
    Top,
    encode,
    number,
    reader,
    utc_text,
)

_HEARTBEAT = encode({"channel": "heartbeat"})


class _Params(msgspec.Struct):
    channel: str = ""
    symbol: list[str] = []
    event_trigger: str = "trades"
    snapshot: bool = True


class _Request(msgspec.Struct):
    method: str
    params: _Params = msgspec.field(default_factory=_Params)
    req_id: int | None = None


_read = reader(_Request)


class KrakenSession(Session):
    name = "kraken"
    character = Character(frames_per_s=8.0, spread_bps=Decimal("0.1"), lag_s=0.1, digits=6)
    currencies = ("USD", "USDT", "USDC")
    beats_in_silence_only = True

    def welcome(self) -> Sequence[bytes]:
        return [self._status("online")]

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None:
            return [encode({"error": "Malformed request", "success": False})]
        if request.method == "ping":
            return [self._answer(request, {})]
        if request.method not in {"subscribe", "unsubscribe"} or request.params.channel != "ticker":
            return [self._answer(request, {"error": "Method or channel not supported", "success": False})]
        symbols = request.params.symbol[:SUBSCRIPTIONS_MAX]
        if request.method == "unsubscribe":
            for symbol in symbols:
                self.symbols.pop(symbol, None)
            return [self._answer(request, _done(symbol, request.params)) for symbol in symbols]
        return [frame for symbol in symbols for frame in self._subscribe(request, symbol)]

    def frame(self, top: Top) -> bytes:
        return self._ticker(top, "update")

    def heartbeat(self) -> bytes | None:
        return _HEARTBEAT if self.symbols else None

    def farewell(self) -> Sequence[bytes]:
        return [self._status("maintenance")]

    def _subscribe(self, request: _Request, symbol: str) -> Iterator[bytes]:
        decision = self.subscribe(symbol)
        if decision is Decision.OPEN:
            yield self._answer(request, _done(symbol, request.params))
            if request.params.snapshot:
                yield self._ticker(self.floor.top(symbol), "snapshot")
        elif decision is not Decision.IGNORED:
            shown = symbol[:TEXT_CHARACTERS_MAX]
            reason = f"Currency pair not supported {shown}" if decision is Decision.UNKNOWN else "Exceeded msg rate"
            yield self._answer(request, {"error": reason, "success": False, "symbol": shown})

    def _ticker(self, top: Top, kind: str) -> bytes:
        last = number(top.last)
        data = {
            "symbol": top.symbol,
            "bid": number(top.bid or Decimal(0)),
            "bid_qty": number(top.bid_size),
            "ask": number(top.ask or Decimal(0)),
            "ask_qty": number(top.ask_size),
            "last": last,
            "volume": Decimal("1020.88387727"),
            "vwap": last,
            "low": last,
            "high": last,
            "change": Decimal("0.7"),
            "change_pct": 0,
            "trades": top.number,
            "timestamp": utc_text(top.at_ns, 6),
        }
        return encode({"channel": "ticker", "type": kind, "data": [data]})

    def _status(self, system: str) -> bytes:
        data = {
            "version": "2.0.10",
            "system": system,
            "api_version": "v2",
            "connection_id": self.floor.random.getrandbits(63),
        }
        return encode({"channel": "status", "type": "update", "data": [data]})

    def _answer(self, request: _Request, fields: dict[str, Any]) -> bytes:
        now = utc_text(self.floor.now_ns(), 6)
        method = "pong" if request.method == "ping" else request.method[:TEXT_CHARACTERS_MAX]
        given = {} if request.req_id is None else {"req_id": request.req_id}
        return encode({"method": method, **given, **fields, "time_in": now, "time_out": now})


def _done(symbol: str, params: _Params) -> dict[str, Any]:
    result = {
        "channel": "ticker",
        "event_trigger": params.event_trigger[:TEXT_CHARACTERS_MAX],
        "snapshot": params.snapshot,
        "symbol": symbol[:TEXT_CHARACTERS_MAX],
    }
    return {"result": result, "success": True}
