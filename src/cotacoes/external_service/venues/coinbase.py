"""Coinbase Advanced Trade: `ticker` and `heartbeats`.

Only the envelope has a time, with nine places. `sequence_num` counts the frames of a connection over all channels. A
subscription is answered with a snapshot, and then with the list of what is subscribed. `-USDC` products answer as
`-USD`. `price` is the last trade and may lie outside the book of the same frame.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

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
    utc_text,
)


class _Request(msgspec.Struct):
    type: str
    channel: str = ""
    product_ids: list[str] = []


_read = reader(_Request)


class CoinbaseSession(Session):
    name = "coinbase"
    character = Character(frames_per_s=10.0, spread_bps=Decimal("0.05"), lag_s=0.05, digits=7, clock_ahead_s=-0.01)
    currencies = ("USD",)

    def __init__(self, floor: Floor, query: str = "") -> None:
        super().__init__(floor)
        self._sequence = 0
        self._has_heartbeats = False
        self._heartbeats = 0

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None or request.type not in {"subscribe", "unsubscribe"}:
            return [_error("failed to parse message")]
        if request.channel == "heartbeats":
            self._has_heartbeats = request.type == "subscribe"
            return [self._subscriptions()]
        if request.channel != "ticker":
            return [_error(f"channel {request.channel[:TEXT_CHARACTERS_MAX]} is not supported")]
        products = [_canonical(product) for product in request.product_ids[:SUBSCRIPTIONS_MAX]]
        if request.type == "unsubscribe":
            for product in products:
                self.symbols.pop(product, None)
            return [self._subscriptions()]
        return self._subscribe(products)

    def frame(self, top: Top) -> bytes:
        return self._ticker(top, "update")

    def heartbeat(self) -> bytes | None:
        if not self._has_heartbeats:
            return None
        at_ns = self.floor.now_ns()
        self._heartbeats += 1
        seconds, beyond = divmod(at_ns, 1_000_000_000)
        current = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{beyond:09d} +0000 UTC"
        return self._envelope(
            "heartbeats", at_ns, [{"current_time": current, "heartbeat_counter": str(self._heartbeats)}]
        )

    def _subscribe(self, products: list[str]) -> Sequence[bytes]:
        decisions = {product: self.subscribe(product) for product in products}
        if Decision.IGNORED in decisions.values():
            return []
        wrong = next((product for product, decision in decisions.items() if decision is not Decision.OPEN), None)
        if wrong is not None:
            return [_error(f"failed to subscribe: {wrong[:TEXT_CHARACTERS_MAX]} is not a valid product")]
        return [*(self._ticker(self.floor.top(product), "snapshot") for product in products), self._subscriptions()]

    def _ticker(self, top: Top, kind: str) -> bytes:
        last = plain(top.last)
        ticker = {
            "type": "ticker",
            "product_id": top.symbol,
            "price": last,
            "volume_24_h": "6629.927726",
            "low_24_h": last,
            "high_24_h": last,
            "low_52_w": last,
            "high_52_w": last,
            "price_percent_chg_24_h": "0.03813791548644",
            "best_bid": plain(top.bid),
            "best_ask": plain(top.ask),
            "best_bid_quantity": plain(top.bid_size),
            "best_ask_quantity": plain(top.ask_size),
        }
        return self._envelope("ticker", top.at_ns, [{"type": kind, "tickers": [ticker]}])

    def _subscriptions(self) -> bytes:
        subscribed: dict[str, list[str]] = {}
        if self.symbols:
            subscribed["ticker"] = list(self.symbols)
        if self._has_heartbeats:
            subscribed["heartbeats"] = ["heartbeats"]
        return self._envelope("subscriptions", self.floor.now_ns(), [{"subscriptions": subscribed}])

    def _envelope(self, channel: str, at_ns: int, events: list[Any]) -> bytes:
        self._sequence += 1
        return encode(
            {
                "channel": channel,
                "timestamp": utc_text(at_ns, 9),
                "sequence_num": self._sequence - 1,
                "events": events,
            }
        )


def _canonical(product: str) -> str:
    return product.removesuffix("C") if product.endswith("-USDC") else product


def _error(reason: str) -> bytes:
    return encode({"type": "error", "message": reason})
