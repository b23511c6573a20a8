"""A gateway as clients of its stream see it, in memory: by the rules of `/v1/ws`, with a script of what goes wrong.

Nothing of it is shared with the client, so that both cannot be wrong in the same way.
"""

from __future__ import annotations

import asyncio
import enum
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cotacoes.errors import StreamClosedError, StreamRefusedError, StreamUnavailableError
from cotacoes.model.quote import Position, Quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
BEAT_S = 5.0
CUT = StreamUnavailableError("the connection was cut")


def quote(epoch: int, seq: int, prev: Position | None = None, *, coin: str = "bitcoin", at: datetime = NOON) -> Quote:
    return Quote(coin, "USD", Decimal("67012.3400"), epoch, seq, at, at, "sim", prev)


def era(epoch: int, count: int, prev: Position | None = None) -> list[Quote]:
    return [quote(epoch, seq, prev if seq == 1 else None) for seq in range(1, count + 1)]


def text(position: Position | None) -> str | None:
    return None if position is None else f"{position[0]}-{position[1]}"


def quote_frame(quote: Quote, **more: Any) -> str:
    time = quote.at.isoformat().replace("+00:00", "Z")
    fields: dict[str, Any] = {
        "v": 1,
        "type": "quote",
        "coin": quote.coin,
        "currency": quote.currency,
        "price": str(quote.price),
        "epoch": quote.epoch,
        "seq": quote.seq,
        "observed_at": time,
        "at": time,
        "origin": quote.origin,
        "prev": text(quote.prev),
    }
    return json.dumps(fields | more)


def gap_frame(coin: str, after: Position | None, through: Position, reason: str) -> str:
    return json.dumps({"type": "gap", "coin": coin, "after": text(after), "through": text(through), "reason": reason})


def subscribed_frame(coins: Mapping[str, tuple[bool, Position | None]], mode: str = "every") -> str:
    begun = {coin: {"recovered": recovered, "position": text(at)} for coin, (recovered, at) in coins.items()}
    return json.dumps({"type": "subscribed", "id": None, "mode": mode, "coins": begun})


def beat_frame(positions: Mapping[str, Position | None], **more: Any) -> str:
    coins = {coin: text(position) for coin, position in positions.items()}
    sent = {"type": "heartbeat", "sent_at": "2026-11-24T12:00:00.000000Z", "coins": coins, "silent": []}
    return json.dumps(sent | more)


class Fault(enum.Enum):
    """What happens to one frame on its way."""

    DROP = "drop"
    DOUBLE = "double"
    REORDER = "reorder"  # behind the next
    CUT = "cut"  # instead of it the link ends
    HANG = "hang"  # neither it nor any other comes


@dataclass
class Script:
    """One connection. `faults` are by the number of a frame; `before` and `during` change what the twin holds."""

    faults: Mapping[int, Fault] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None
    during: Callable[[], None] = lambda: None
    refusal: Exception | None = None
    end: Exception | None = None  # comes last, and with it the end of the link


class TwinLink:
    """One connection's end at the client."""

    def __init__(self, twin: GatewayTwin, script: Script) -> None:
        self.is_open = True
        self.positions: dict[str, Position | None] = {}
        self.asked: dict[str, Any] = {}
        self._twin = twin
        self._script = script
        self._number = 0
        self._late: list[str | Exception] = []
        self._frames: deque[str | Exception] = deque()
        self._is_hung = False
        self._arrived = asyncio.Event()
        self.received = 0
        self._tick()

    async def send(self, message: str) -> None:
        self.asked = json.loads(message)
        assert self.asked["op"] == "subscribe"
        self._twin.answer(self)
        self._script.during()
        if self._script.end is not None:
            self.beat()
            self._frames += [] if self._is_hung else [*self._late, self._script.end]

    async def receive(self) -> str | bytes:
        while not self._frames:
            self._arrived.clear()
            await self._arrived.wait()
        frame = self._frames.popleft()
        self.received += 1
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.is_open = False
        self._timer.cancel()
        self._twin.links.discard(self)

    def beat(self) -> None:
        if self.positions:
            self.put(beat_frame(self.positions, **self._twin.beats_say))

    def _tick(self) -> None:
        self.beat()
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._tick)

    def send_quote(self, quote: Quote) -> None:
        self.positions[quote.coin] = quote.position
        self.put(quote_frame(quote))

    def put(self, frame: str | Exception) -> None:
        """Send, through the faults."""
        fault = None if self._is_hung else self._script.faults.get(self._number)
        self._number += 1
        if fault is Fault.REORDER:
            self._late.append(frame)
            return
        if fault is Fault.HANG:
            self._is_hung = True
        if self._is_hung or fault is Fault.DROP:
            return
        if fault is Fault.CUT:
            frame = CUT
        self._frames += [frame] * (2 if fault is Fault.DOUBLE else 1) + self._late
        self._late = []
        self._arrived.set()


class GatewayTwin:
    """Holds `history` by coin, but no longer its first `dropped` quotes. After `scripts` all connections are good."""

    def __init__(self, history: Mapping[str, Sequence[Quote]], scripts: Sequence[Script] = ()) -> None:
        self.history = {coin: list(quotes) for coin, quotes in history.items()}
        self.dropped = dict.fromkeys(history, 0)
        self.scripts = deque(scripts)
        self.links: set[TwinLink] = set()
        self.connections: list[tuple[float, TwinLink | Exception]] = []
        self.begins_newest_after_rewriting = False  # with its newest quote, else with the first after the fork
        self.starts: list[Position | None] = []
        self.is_mute = False  # answers no subscription
        self.tells_history = True
        self.beats_say: dict[str, Any] = {}

    async def connect(self, url: str) -> TwinLink:
        assert url.endswith("/v1/ws")
        script = self.scripts.popleft() if self.scripts else Script()
        script.before()
        now = asyncio.get_running_loop().time()
        if script.refusal is not None:
            self.connections.append((now, script.refusal))
            raise script.refusal
        link = TwinLink(self, script)
        self.links.add(link)
        self.connections.append((now, link))
        return link

    def publish(self, *quotes: Quote) -> None:
        for quote in quotes:
            self.history[quote.coin].append(quote)
            for link in self.links:
                if quote.coin in link.positions:
                    link.send_quote(quote)

    def answer(self, link: TwinLink) -> None:
        """What follows a subscription: `subscribed`, gaps, what is to be recovered."""
        if self.is_mute:
            return
        begun: dict[str, tuple[bool, Position | None]] = {}
        frames: list[str] = []
        for coin in link.asked["coins"]:
            held = self.history[coin]
            floor = held[self.dropped[coin] - 1].position if self.dropped[coin] else None
            since = link.asked["since"].get(coin)
            if since is None:
                position = held[-1].before if held else None
                self.starts.append(position)
                begun[coin] = (False, position)
            else:
                known = Position.parse(since)
                position = known
                if known not in {one.position for one in held}:
                    earlier = [one.position for one in held if one.position < known]
                    position = earlier[-1] if earlier else None
                    if self.begins_newest_after_rewriting:
                        position, begun[coin] = held[-1].before, (False, known)
                    frames.append(gap_frame(coin, known, known, "rewritten"))
                elif floor is not None and known < floor:
                    position = floor
                    frames.append(gap_frame(coin, known, floor, "gone"))
                begun.setdefault(coin, (position == known, position))
            link.positions[coin] = position
        link.put(subscribed_frame(begun, link.asked["mode"]))
        for frame in frames:
            link.put(frame)
        for coin, position in list(link.positions.items()) if self.tells_history else ():
            for one in self.history[coin]:
                if position is None or one.position > position:
                    link.send_quote(one)


def closed(code: int, reason: str = "") -> StreamClosedError:
    return StreamClosedError(code, reason)


def refused(status: int, retry_after_s: float | None = None, body: bytes = b"") -> StreamRefusedError:
    return StreamRefusedError(status, retry_after_s=retry_after_s, body=body)


def aged(seconds: float) -> datetime:
    """The time of a quote that is so old at `NOON`."""
    return NOON - timedelta(seconds=seconds)
