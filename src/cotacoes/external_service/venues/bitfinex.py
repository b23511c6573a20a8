"""Bitfinex v2: `ticker`, arrays without names and without a time, whose channel is a number.

The answer to a subscription gives its number; the ticker as it is follows. A channel with nothing to say sends
`[CHANNEL,"hb"]` every 15 s. The last price may lie outside bid and ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from cotacoes.external_service.venues.prices import Character
from cotacoes.external_service.venues.session import (
    TEXT_CHARACTERS_MAX,
    Decision,
    Floor,
    Session,
    Top,
    encode,
    number,
    reader,
)

CHANNELS_MAX = 25
HEARTBEAT_BEATS = 15


class _Request(msgspec.Struct, rename="camel"):
    event: str
    channel: str = ""
    symbol: str = ""
    chan_id: int | None = None
    cid: int | None = None


_read = reader(_Request)


class BitfinexSession(Session):
    name = "bitfinex"
    character = Character(frames_per_s=3.0, spread_bps=Decimal("0.6"), lag_s=0.15, digits=5)
    currencies = ("USD", "USDT")

    def __init__(self, floor: Floor, query: str = "") -> None:
        super().__init__(floor)
        self._channels: dict[str, int] = {}
        self._beats = 0

    def welcome(self) -> Sequence[bytes]:
        return [encode({"event": "info", "version": 2, "serverId": "simulated", "platform": {"status": 1}})]

    def on_message(self, text: bytes) -> Sequence[bytes]:
        request = _read(text)
        if request is None:
            return [_error(_Request("error"), 10000, "error: invalid message")]
        if request.event == "ping":
            return [encode({"event": "pong", "ts": self.floor.now_ns() // 1_000_000, "cid": request.cid})]
        if request.event == "unsubscribe":
            return self._unsubscribe(request)
        if request.event != "subscribe" or request.channel != "ticker":
            return [_error(request, 10300, "channel: unknown")]
        if request.symbol not in self.symbols and len(self.symbols) >= CHANNELS_MAX:
            return [_error(request, 10305, "channel: limit")]
        decision = self.subscribe(request.symbol)
        if decision is Decision.IGNORED:
            return []
        if decision is not Decision.OPEN:
            return [_error(request, 10300, "symbol: invalid")]
        channel = self._channels.setdefault(request.symbol, self.floor.random.randrange(1, 10**6))
        answer = {
            "event": "subscribed",
            "channel": "ticker",
            "chanId": channel,
            "symbol": request.symbol,
            "pair": request.symbol.removeprefix("t"),
        }
        return [encode(answer), self.frame(self.floor.top(request.symbol))]

    def frame(self, top: Top) -> bytes:
        last = number(top.last)
        change, relative = Decimal("13.5"), Decimal("0.00541864")
        book = [_price(top.bid), number(top.bid_size), _price(top.ask), number(top.ask_size)]
        day = [change, relative, last, Decimal("22581.92240769"), last, last]
        return encode([self._channels[top.symbol], [*book, *day, None]])

    def heartbeat(self) -> bytes | None:
        self._beats += 1
        if self._beats % HEARTBEAT_BEATS or not self._channels:
            return None
        return encode([next(iter(self._channels.values())), "hb"])

    def farewell(self) -> Sequence[bytes]:
        return [encode({"event": "info", "code": 20060, "msg": "Entering in Maintenance mode."})]

    def _unsubscribe(self, request: _Request) -> Sequence[bytes]:
        symbol = next((name for name, channel in self._channels.items() if channel == request.chan_id), None)
        if symbol is None:
            return [_error(request, 10400, "unsubscribe: invalid")]
        del self._channels[symbol]
        self.symbols.pop(symbol, None)
        return [encode({"event": "unsubscribed", "status": "OK", "chanId": request.chan_id})]


def _price(price: Decimal | None) -> Decimal | None:
    return None if price is None else number(price)


def _error(request: _Request, code: int, text: str) -> bytes:
    shown = {"channel": request.channel[:TEXT_CHARACTERS_MAX], "symbol": request.symbol[:TEXT_CHARACTERS_MAX]}
    return encode({**shown, "event": "error", "msg": text, "code": code})
