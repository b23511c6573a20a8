"""The live stream of gateway_service in memory: its own code from the handshake on, over transports without sockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.harness_asyncapi import check_frame
from tests.unit.fake_history import HistoryTwin
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from cotacoes import config
from cotacoes.adapters.http_server.context import Context
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.config import SHARDS
from cotacoes.gateway_service.admission import Admission
from cotacoes.gateway_service.hub import CHECK_S, Hub
from cotacoes.gateway_service.status import Status
from cotacoes.gateway_service.status_topic import StatusTopic
from cotacoes.gateway_service.websocket import PING_S, WebSockets
from cotacoes.model.quote import Position, Quote
from cotacoes.model.status import LimitsJson
from cotacoes.observability.metrics import Metrics, StreamMetrics
from cotacoes.patterns.pub_sub.recovery_events import QuoteReceived

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def quote(coin: str, seq: int, epoch: int = 5, prev: Position | None = None) -> Quote:
    return Quote(coin, "USD", Decimal("67012.34"), epoch, seq, NOON, NOON, "sim", prev)


class MemoryTransport(asyncio.Transport):
    """What a connection writes; `room` bytes are taken at once, as by a kernel, the rest waits here to be read."""

    def __init__(self, protocol: Any, room: int) -> None:
        super().__init__()
        self.protocol = protocol
        self.room = room
        self.unread = bytearray()
        self.reads = True
        self.is_closed = False
        self._high = 65_536
        self._is_paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high = high

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return ("127.0.0.1", 50_000)

        class NoSocket:
            def setsockopt(self, *_: Any) -> None:
                raise OSError

        return NoSocket()

    def write(self, data: Any) -> None:
        if self.is_closed:
            return
        self.unread += data
        if len(self.unread) > self.room + self._high and not self._is_paused:
            self._is_paused = True
            self.protocol.pause_writing()

    def take(self, most: int | None = None) -> bytes:
        """Read, as the client."""
        data = bytes(self.unread[:most])
        del self.unread[: len(data)]
        if self._is_paused and len(self.unread) <= self.room + self._high // 4:
            self._is_paused = False
            self.protocol.resume_writing()
        return data

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        self.abort()  # what is unread stays readable for the client

    def abort(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.protocol.connection_lost(None)


class FakeFeeds:
    """States of feeds, as the hub asks about them."""

    def __init__(self, *, has_begun: Callable[[str], bool] = lambda _: True, silent: Sequence[str] = ()) -> None:
        self.silent = silent
        self._has_begun = has_begun

    def has_begun(self, coin: str) -> bool:
        return self._has_begun(coin)


class StreamRig:
    """A hub over a history twin; made inside the loop of the test."""

    def __init__(
        self,
        *coins: str,
        check_s: float = CHECK_S,
        ping_s: float = PING_S,
        admission: type[Admission] = Admission,
        **settings: Any,
    ) -> None:
        self.coins = coins or ("bitcoin",)
        self.settings = config.load({}, **settings)
        self.history = HistoryTwin()
        self.history.delay_s = 0.002
        self.loop = asyncio.get_running_loop()
        self.metrics = StreamMetrics(Metrics())
        self.hub = Hub(
            self.coins,
            self.history,
            self.metrics,
            ring_bytes=self.settings.stream_ring_bytes,
            loop=self.loop,
            now=lambda: NOON,
            random=random.Random(1),
            check_s=check_s,
        )
        self.admission = admission(self.settings, self.metrics, self.loop.time, self.settings.streams_max)
        self.status = Status(
            self.settings.http_services, SHARDS, limits=LimitsJson(5_000, 300_000, 100), source="sim", now=lambda: NOON
        )
        self.wanted = 0
        self.topic = StatusTopic(self.status, self.want)
        self.sockets = WebSockets(
            self.hub, self.admission, self.settings, clock=self.loop.time, topic=self.topic, ping_s=ping_s
        )
        self.connections: set[Any] = set()

    def want(self) -> None:
        self.wanted += 1

    def record(self, coin: str, count: int = 1, *, new_era: bool = False) -> list[Quote]:
        """The next quotes of the coin."""
        recorded: list[Quote] = []
        for _ in range(count):
            last = self.history.of(coin)[-1] if self.history.of(coin) else None
            if last is None or (new_era and not recorded):
                epoch = 5 if last is None else last.epoch + 1
                made = quote(coin, 1, epoch, None if last is None else last.position)
            else:
                made = quote(coin, last.seq + 1, last.epoch)
            self.history.written.append(made)
            recorded.append(made)
        return recorded

    async def publish(self, coin: str = "bitcoin", count: int = 1, *, new_era: bool = False) -> None:
        """Record quotes, and pass them to the hub as FeedConsumer does."""
        await self.hub.apply([QuoteReceived(each) for each in self.record(coin, count, new_era=new_era)])

    def client(self, *, room: int = 0, headers: dict[str, str] | None = None, path: str = "/v1/ws") -> MemoryClient:
        return MemoryClient(self, room, headers or {}, path)


class MemoryClient:
    """A WebSocket client: what it received is in `frames`, with `read`.

    The heartbeat that follows each answer to a subscription is checked, and is in `first_beats` instead.
    """

    def __init__(self, rig: StreamRig, room: int, headers: dict[str, str], path: str) -> None:
        self.connection = rig.sockets.protocol(
            Context(AllowedHosts([]), lambda _: None, connections=rig.connections), lambda: None
        )
        self.transport = MemoryTransport(self.connection, room)
        self.frames: list[dict[str, Any]] = []
        self.first_beats: list[dict[str, Any]] = []
        self._subscribed: dict[str, Any] | None = None  # the answer, until its heartbeat comes
        self.response: Response | None = None
        self.pings = 0
        self.close: tuple[int, str] | None = None
        self.answers_pings = True
        self._protocol = ClientProtocol(parse_uri(f"ws://gateway{path}"))
        self.connection.connection_made(self.transport)
        request = self._protocol.connect()
        for name, text in headers.items():
            request.headers[name] = text
        self._protocol.send_request(request)
        self._pass_on()
        self.read()

    def send(self, op: object) -> None:
        self._protocol.send_text((op if isinstance(op, str) else json.dumps(op)).encode())
        self._pass_on()

    def subscribe(self, *coins: str, **more: Any) -> None:
        self.send({"op": "subscribe", "coins": list(coins), **more})

    def read(self, most: int | None = None) -> list[dict[str, Any]]:
        """The frames that came; pings are answered, and a close is too."""
        data = self.transport.take(most)
        came: list[dict[str, Any]] = []
        if data:
            self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.response = event
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                check_frame(bytes(event.data))
                frame = json.loads(bytes(event.data))
                if self._subscribed is None:
                    came.append(frame)
                else:
                    begun = {coin: one["position"] for coin, one in self._subscribed["coins"].items()}
                    assert frame["type"] == "heartbeat"
                    assert begun.items() <= frame["coins"].items()
                    self.first_beats.append(frame)
                self._subscribed = frame if frame["type"] == "subscribed" else None
            elif isinstance(event, Frame) and event.opcode is Opcode.PING:
                self.pings += 1
        if self._protocol.close_rcvd is not None:
            self.close = (self._protocol.close_rcvd.code, self._protocol.close_rcvd.reason)
        if self.answers_pings:
            self._pass_on()
        self.frames += came
        return came

    def cut(self) -> None:
        self.transport.abort()

    def quotes(self) -> list[tuple[int, int]]:
        """The positions of the quotes that came so far."""
        return [(frame["epoch"], frame["seq"]) for frame in self.frames if frame["type"] == "quote"]

    def _pass_on(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and self.transport.reads and not self.transport.is_closed:
            self.connection.feed(data)


def assert_tiles(
    frames: Sequence[dict[str, Any]], history: HistoryTwin, coin: str, *, through: Position | None
) -> None:
    """What came since `subscribed`, quotes and gaps, is the history up to a position: each once, in order."""
    begun = next(frame for frame in frames if frame["type"] == "subscribed" and coin in frame["coins"])
    known = begun["coins"][coin]["position"]
    after_begun = frames[frames.index(begun) + 1 :]
    for frame in after_begun:
        if frame["type"] == "gap" and frame["coin"] == coin:
            assert frame["after"] == known, "a gap begins where the stream is"
            known = frame["through"]
        elif frame["type"] == "quote" and frame["coin"] == coin:
            position = Position(frame["epoch"], frame["seq"])
            held = history.at(coin, position)
            assert held is not None, f"{position} was never written"
            before = frame["after"] if "after" in frame else _text(held.before)
            assert before == known, f"{position} follows {before}, and {known} is where the stream is"
            known = str(position)
    assert known == _text(through), f"the stream is at {known}, the history at {through}"


def _text(position: Position | None) -> str | None:
    return None if position is None else str(position)
