"""Binance: `bookTicker`, which has neither a time nor a name of its event, and `trade`, which has both.

The acknowledgement of a subscription does not say whether the symbol exists; an unknown one stays silent. At
`/stream` each frame is wrapped with the name of its stream. Prices have eight places. Here trades come beside books
alone, to a client that has subscribed to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import SUBSCRIPTIONS_MAX, Decision, Floor, Session, Top, encode, reader

TRADES_SHARE = 0.35  # trades for each book, as recorded


class _Request(msgspec.Struct):
    method: str
    params: list[str] = []
    id: int | str | None = None


_read = reader(_Request)


class BinanceSession(Session):
    name = "binance"
    character = Character(frames_per_s=15.0, spread_bps=Decimal("0.02"), lag_s=0.0, digits=7, clock_ahead_s=0.02)
    currencies = ("USDT", "USDC")
    ping_s = 20.0

    def __init__(self, floor: Floor, query: str = "") -> None:
        super().__init__(floor)
        self._trades: set[str] = set()
        for stream in parse_qs(query).get("streams", [""])[0].split("/")[:SUBSCRIPTIONS_MAX]:
            self._open(stream)

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None or request.method not in {"SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"}:
            return [_error(None if request is None else request.id, "unknown method")]
        if request.method == "LIST_SUBSCRIPTIONS":
            books = [f"{symbol.lower()}@bookTicker" for symbol in self.symbols]
            return [encode({"result": [*books, *(f"{symbol.lower()}@trade" for symbol in self._trades)]})]
        if request.method == "UNSUBSCRIBE":
            for stream in request.params:
                self._close(stream)
            return [_acknowledgement(request.id)]
        decisions = {self._open(stream) for stream in request.params[:SUBSCRIPTIONS_MAX]}
        if Decision.IGNORED in decisions:
            return []
        if Decision.REFUSED in decisions:
            return [_error(request.id, "invalid stream")]
        return [_acknowledgement(request.id)]

    def frame(self, top: Top) -> bytes:
        bid, ask = top.bid or Decimal(0), top.ask or Decimal(0)
        data = {
            "u": top.number,
            "s": top.symbol,
            "b": f"{bid:.8f}",
            "B": f"{top.bid_size if bid else bid:.8f}",
            "a": f"{ask:.8f}",
            "A": f"{top.ask_size if ask else ask:.8f}",
        }
        return _wrapped(top.symbol, "bookTicker", data)

    def beside(self, top: Top) -> bytes | None:
        if top.symbol not in self._trades or self.floor.random.random() >= TRADES_SHARE:
            return None
        at_ms = top.at_ns // 1_000_000
        data = {
            "e": "trade",
            "E": at_ms,
            "s": top.symbol,
            "t": top.number,
            "p": f"{top.last:.8f}",
            "q": f"{top.bid_size:.8f}",
            "T": at_ms,
            "m": top.last == top.bid,
            "M": True,
        }
        return _wrapped(top.symbol, "trade", data)

    def farewell(self) -> Sequence[bytes]:
        return [encode({"e": "serverShutdown", "E": self.floor.now_ns() // 1_000_000})]

    def _open(self, stream: str) -> Decision | None:
        symbol, _, channel = stream.partition("@")
        symbol = symbol.upper()
        if channel == "bookTicker":
            return self.subscribe(symbol)
        if channel == "trade":
            decision = self.floor.decide(symbol)
            if decision is Decision.OPEN and len(self._trades) < SUBSCRIPTIONS_MAX:
                self._trades.add(symbol)
            return decision
        return None

    def _close(self, stream: str) -> None:
        symbol, _, channel = stream.partition("@")
        if channel == "bookTicker":
            self.symbols.pop(symbol.upper(), None)
        else:
            self._trades.discard(symbol.upper())


def _wrapped(symbol: str, channel: str, data: dict[str, Any]) -> bytes:
    return encode({"stream": f"{symbol.lower()}@{channel}", "data": data})


def _acknowledgement(given_id: int | str | None) -> bytes:
    return encode({"result": None, "id": given_id})


def _error(given_id: int | str | None, reason: str) -> bytes:
    return encode({"error": {"code": 2, "msg": f"Invalid request: {reason}"}, "id": given_id})
