"""Bybit spot: `orderbook.1`, since `tickers` has neither bid nor ask.

A snapshot answers a subscription. After it come snapshots and deltas; a delta names only the sides that changed, and
`u` counts the frames of a symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import (
    TEXT_CHARACTERS_MAX,
    Decision,
    Floor,
    Session,
    Top,
    encode,
    plain,
    reader,
)

_TOPIC = "orderbook.1."
ARGS_MAX = 10  # of one request
SNAPSHOT_SHARE = 0.5  # of the books; the rest are deltas
SIZE_SHARE = 0.5  # of the deltas whose price stands say a new size


class _Request(msgspec.Struct):
    op: str
    args: list[str] = []
    req_id: str | int | None = None


_read = reader(_Request)


class BybitSession(Session):
    name = "bybit"
    character = Character(frames_per_s=10.0, spread_bps=Decimal("0.1"), lag_s=0.04, digits=6)
    currencies = ("USDT", "USDC")

    def __init__(self, floor: Floor, query: str = "") -> None:
        super().__init__(floor)
        self._connection = f"{floor.random.getrandbits(64):016x}"
        self._sent: dict[str, tuple[list[str], list[str]]] = {}
        self._updates: dict[str, int] = {}

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None:
            return [self._answer(None, "", False, "Invalid request")]
        if request.op == "ping":
            return [self._answer(request.req_id, "ping", True, "pong")]
        if len(request.args) > ARGS_MAX:
            return [self._answer(request.req_id, request.op, False, f"args size >{ARGS_MAX}")]
        topics = request.args
        symbols = [topic.removeprefix(_TOPIC) for topic in topics]
        if request.op == "unsubscribe":
            for symbol in symbols:
                self.symbols.pop(symbol, None)
                self._sent.pop(symbol, None)
            return [self._answer(request.req_id, "unsubscribe", True, "")]
        if request.op != "subscribe":
            return [self._answer(request.req_id, request.op, False, "unknown op")]
        return self._subscribe(request, topics, symbols)

    def frame(self, top: Top) -> bytes:
        bids, asks = _side(top.bid, top.bid_size), _side(top.ask, top.ask_size)
        before = self._sent.get(top.symbol)
        is_whole = top.bid is not None and top.ask is not None
        if before is None or not is_whole or self.floor.random.random() < SNAPSHOT_SHARE:
            return self._book(top, "snapshot", bids, asks)
        old_bid, old_ask = before
        return self._book(top, "delta", self._changed(old_bid, bids), self._changed(old_ask, asks))

    def missed(self, symbol: str) -> None:
        self._sent.pop(symbol, None)  # the next one is a snapshot

    def _subscribe(self, request: _Request, topics: list[str], symbols: list[str]) -> Sequence[bytes]:
        decisions = [
            self.subscribe(symbol) if symbol != topic else Decision.UNKNOWN
            for symbol, topic in zip(symbols, topics, strict=True)
        ]
        if Decision.IGNORED in decisions:
            return []
        wrong = next((t for t, decision in zip(topics, decisions, strict=True) if decision is not Decision.OPEN), None)
        if wrong is not None:
            for symbol in symbols:  # one wrong topic refuses the whole request
                self.symbols.pop(symbol, None)
            reason = f"error:handler not found,topic:{wrong[:TEXT_CHARACTERS_MAX]}"
            return [self._answer(request.req_id, "subscribe", False, reason)]
        for symbol in symbols:
            self._sent.pop(symbol, None)
        answer = self._answer(request.req_id, "subscribe", True, "subscribe")
        return [answer, *(self.frame(self.floor.top(symbol)) for symbol in symbols)]

    def _book(self, top: Top, kind: str, bids: list[list[str]], asks: list[list[str]]) -> bytes:
        if top.bid is not None and top.ask is not None:
            self._sent[top.symbol] = (_side(top.bid, top.bid_size)[0], _side(top.ask, top.ask_size)[0])
        else:
            self._sent.pop(top.symbol, None)
        at_ms = top.at_ns // 1_000_000
        update = self._updates.get(top.symbol, top.number) + 1
        self._updates[top.symbol] = update
        data = {"s": top.symbol, "b": bids, "a": asks, "u": update, "seq": top.number + 112_603_120_000}
        topic = f"{_TOPIC}{top.symbol}"
        return encode({"topic": topic, "ts": at_ms, "type": kind, "data": data, "cts": at_ms - 1})

    def _changed(self, old: list[str], side: list[list[str]]) -> list[list[str]]:
        """What a delta says about a side: the old level's end if the price moved, otherwise the new size or nothing."""
        if side[0][0] != old[0]:
            return [[old[0], "0"], *side]
        return side if self.floor.random.random() < SIZE_SHARE else []

    def _answer(self, given_id: str | int | None, op: str, is_good: bool, text: str) -> bytes:
        fields: dict[str, Any] = {"success": is_good, "ret_msg": text, "conn_id": self._connection}
        if given_id is not None:
            fields["req_id"] = str(given_id)[:TEXT_CHARACTERS_MAX]
        return encode({**fields, "op": op[:TEXT_CHARACTERS_MAX]})


def _side(price: Decimal | None, size: Decimal) -> list[list[str]]:
    return [] if price is None else [[plain(price), plain(size)]]
