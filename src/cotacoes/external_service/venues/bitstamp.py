"""Bitstamp: `order_book_*`, a hundred levels of each side in every frame.

There is no snapshot. The first books after a subscription are old: up to 6.2 s in a recording. A client is asked to
reconnect by `bts:request_reconnect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import TEXT_CHARACTERS_MAX, Decision, Session, Top, encode, reader

LEVELS = 100
_CHANNEL = "order_book_"


class _Data(msgspec.Struct):
    channel: str = ""


class _Request(msgspec.Struct):
    event: str
    data: _Data = msgspec.field(default_factory=_Data)


_read = reader(_Request)


class BitstampSession(Session):
    name = "bitstamp"
    character = Character(frames_per_s=5.0, spread_bps=Decimal(1), lag_s=0.2, digits=6, clock_ahead_s=0.07)
    currencies = ("USD", "USDT", "USDC")
    late_starts_s = (6.2, 4.0, 2.0)

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None:
            return [_error("Incorrect JSON format.")]
        channel = request.data.channel
        symbol = channel.removeprefix(_CHANNEL)
        if request.event == "bts:heartbeat":
            return [encode({"event": "bts:heartbeat", "channel": "", "data": {"status": "success"}})]
        if request.event == "bts:unsubscribe":
            self.symbols.pop(symbol, None)
            return [_event("bts:unsubscription_succeeded", channel)]
        if request.event != "bts:subscribe" or symbol == channel:
            return [_error("Bad subscription string.")]
        decision = self.subscribe(symbol)
        if decision is Decision.IGNORED:
            return []
        if decision is not Decision.OPEN:
            return [_error("Bad subscription string.")]
        return [_event("bts:subscription_succeeded", channel)]

    def frame(self, top: Top) -> bytes:
        at_us = top.at_ns // 1_000
        data = {
            "timestamp": str(at_us // 1_000_000),
            "microtimestamp": str(at_us),
            "bids": _levels(top.bid, top.bid_size, -top.unit),
            "asks": _levels(top.ask, top.ask_size, top.unit),
        }
        return encode({"data": data, "channel": f"{_CHANNEL}{top.symbol}", "event": "data"})

    def farewell(self) -> Sequence[bytes]:
        return [encode({"event": "bts:request_reconnect", "channel": "", "data": ""})]


def _levels(best: Decimal | None, size: Decimal, step: Decimal) -> list[list[str]]:
    """A hundred levels from the best one on, a step apart; those that would not be above zero are left out."""
    if best is None:
        return []
    text = f"{size:.8f}"
    prices = (best + step * index for index in range(LEVELS))
    return [[f"{price:f}", text] for price in prices if price > 0]


def _event(event: str, channel: str) -> bytes:
    return encode({"event": event, "channel": channel[:TEXT_CHARACTERS_MAX], "data": {}})


def _error(reason: str) -> bytes:
    return encode({"event": "bts:error", "channel": "", "data": {"code": None, "message": reason}})
