"""Gemini: `SYMBOL@bookTicker`, with a time in nanoseconds.

One invalid stream refuses its whole message. A book comes right after the answer, and is not marked as a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import (
    SUBSCRIPTIONS_MAX,
    Decision,
    Session,
    Top,
    encode,
    plain,
    reader,
)

_STREAM = "@bookTicker"


class _Request(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: list[str] = []


_read = reader(_Request)


class GeminiSession(Session):
    name = "gemini"
    character = Character(frames_per_s=5.0, spread_bps=Decimal("1.5"), lag_s=0.08, digits=7)
    currencies = ("USD",)

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None:
            return [_answer(None, -1130, "Invalid JSON")]
        if request.method == "ping":
            return [_answer(request.id)]
        symbols = [stream.removesuffix(_STREAM) for stream in request.params[:SUBSCRIPTIONS_MAX]]
        if request.method == "unsubscribe":
            for symbol in symbols:
                self.symbols.pop(symbol, None)
            return [_answer(request.id)]
        if request.method != "subscribe":
            return [_answer(request.id, -1020, "Unsupported operation")]
        decisions = [self.floor.decide(symbol) for symbol in symbols]
        if Decision.IGNORED in decisions:
            return []
        if any(decision is not Decision.OPEN for decision in decisions):
            return [_answer(request.id, -1121, "Invalid symbol")]
        opened = [symbol for symbol in symbols if self.subscribe(symbol) is Decision.OPEN]
        return [_answer(request.id), *(self.frame(self.floor.top(symbol)) for symbol in opened)]

    def frame(self, top: Top) -> bytes:
        fields: dict[str, Any] = {"u": top.number, "E": top.at_ns, "s": top.symbol}
        sides = {"b": top.bid, "B": top.bid_size, "a": top.ask, "A": top.ask_size}
        return encode({**fields, **{name: plain(price) for name, price in sides.items()}})


def _answer(given_id: int | str | None, code: int = 0, text: str = "") -> bytes:
    if not code:
        return encode({"id": given_id, "status": 200, "result": {}})
    return encode({"id": given_id, "status": 400, "error": {"code": code, "msg": text}})
