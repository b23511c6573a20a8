"""The gateway as a process between a real Valkey and clients, a proxy on either side, and a history over HTTP.

    Writer ──▶ Valkey ──▶ StreamProxy ──▶ gateway_service ──▶ StreamProxy ──▶ clients
       └─────▶ HistoryTwin ──▶ HTTP ───────────┘

The oracle is `Listener.breaches`: each quote that was written since the first position is received or in a gap,
once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

from tests.conftest import free_port
from tests.contract.harness_client_subscriber import COIN, Writer, history_app, small_steps
from tests.contract.harness_stream_proxy import StreamProxy
from tests.harness_asyncapi import check_frame
from tests.harness_http_server import serving
from tests.unit.fake_history import HistoryTwin, breaches
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from cotacoes.model.quote import Position
from cotacoes.up.supervision import die_with_parent

LIMIT_S = 30.0
PAUSE_S_MOST = 1.0


class Gateway:
    """The process, on a port that it keeps over a kill."""

    def __init__(self, redis_port: int, history_port: int, settings: dict[str, str]) -> None:
        self.port = free_port()
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("COTACOES_")} | {
            "COTACOES_REDIS_URL": f"redis://127.0.0.1:{redis_port}",
            "COTACOES_QUOTE_URL": f"http://127.0.0.1:{history_port}",
            "COTACOES_PORT_BASE": str(self.port),
            "COTACOES_STREAM_ACCEPTS_PER_S": "1000",
            **{f"COTACOES_{name.upper()}": text for name, text in settings.items()},
        }
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *die_with_parent.launcher(signal.SIGKILL),
            *(sys.executable, "-W", "error", "-m", "cotacoes", "gateway-service"),
            env=self._environment,
        )
        async with asyncio.timeout(LIMIT_S):
            while True:
                assert self.process.returncode is None
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.transport.abort()
                    return
                await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(LIMIT_S):
            await self.process.wait()


class Listener:
    """A client as a user would write it: it keeps its last position, and comes back with it.

    `frames` are all that it received; `closes` the codes with which connections ended, None where they were cut.
    """

    def __init__(self, port: int, chance: random.Random, *, mode: str = "every", since: str | None = None) -> None:
        self.frames: list[dict[str, Any]] = []
        self.closes: list[int | None] = []
        self.refusals = 0
        self.begun: Position | None = None
        self.known = None if since is None else Position.parse(since)
        self.has_begun = since is not None
        self._port = port
        self._chance = chance
        self._mode = mode

    @property
    def received(self) -> list[Position]:
        return [Position(frame["epoch"], frame["seq"]) for frame in self.frames if frame["type"] == "quote"]

    async def run(self) -> None:
        while True:
            try:
                async with connect(
                    f"ws://127.0.0.1:{self._port}/v1/ws", compression=None, ping_interval=None, close_timeout=0.2
                ) as link:
                    since = {COIN: str(self.known)} if self.known is not None else {}
                    await link.send(
                        json.dumps({"op": "subscribe", "coins": [COIN], "mode": self._mode, "since": since})
                    )
                    while True:
                        async with asyncio.timeout(11):  # two heartbeats that did not come
                            self._take(json.loads(await link.recv()))
            except ConnectionClosed as end:
                self.closes.append(None if end.rcvd is None else end.rcvd.code)
            except InvalidHandshake:
                self.refusals += 1
            except (OSError, TimeoutError, EOFError):
                self.closes.append(None)
            await asyncio.sleep(self._chance.uniform(0, PAUSE_S_MOST))

    def _take(self, frame: dict[str, Any]) -> None:
        check_frame(frame)
        self.frames.append(frame)
        if frame["type"] == "subscribed" and not self.has_begun:
            begun = frame["coins"][COIN]["position"]
            self.begun = self.known = None if begun is None else Position.parse(begun)
            self.has_begun = True
        elif frame["type"] == "quote":
            self.known = Position(frame["epoch"], frame["seq"])
        elif frame["type"] == "gap":
            self.known = Position.parse(frame["through"])

    def breaches(self, history: HistoryTwin, start: Position | None) -> list[str]:
        """What is wrong with all that was received and reported as gone, up to the last one received."""
        gone = [
            (None if frame["after"] is None else Position.parse(frame["after"]), Position.parse(frame["through"]))
            for frame in self.frames
            if frame["type"] == "gap"
        ]
        written = [quote for quote in history.written if quote.position <= self.received[-1]]
        return breaches(written, self.received, gone, start)


class GatewaySystem:
    """See the head of this file."""

    def __init__(self, redis_port: int, chance: random.Random, price: Callable[[int], Decimal] = small_steps) -> None:
        self.chance = chance
        self.history = HistoryTwin()
        self.writer = Writer(redis_port, self.history, price)
        self.redis_proxy = StreamProxy(redis_port)
        self.gateway: Gateway
        self.proxy: StreamProxy
        self._group: asyncio.TaskGroup

    def listen(self, *, direct: bool = False, mode: str = "every", since: str | None = None) -> Listener:
        """One more client, behind the proxy."""
        port = self.gateway.port if direct else self.proxy.port
        listener = Listener(port, self.chance, mode=mode, since=since)
        self._tasks.append(self._group.create_task(listener.run()))
        return listener

    async def until_whole(self, *listeners: Listener, limit_s: float = LIMIT_S) -> None:
        """Return once they have all that is written by now."""
        assert self.writer.last is not None
        target = self.writer.last.position
        async with asyncio.timeout(limit_s):
            while any(one.known is None or one.known < target for one in listeners):
                await asyncio.sleep(0.02)

    def assert_whole(self, *listeners: Listener) -> None:
        for listener in listeners:
            breaches = listener.breaches(self.history, listener.begun)
            assert breaches == [], f"begun at {listener.begun}: {breaches[:3]}"

    @contextlib.asynccontextmanager
    async def running(self, **settings: str) -> AsyncIterator[GatewaySystem]:
        await self.writer.write(3)
        async with serving(history_app(self.history)) as history_port, self.redis_proxy:
            self.gateway = Gateway(self.redis_proxy.port, history_port, settings)
            await self.gateway.start()
            self.proxy = StreamProxy(self.gateway.port)
            self._tasks = []
            try:
                async with self.proxy, asyncio.TaskGroup() as self._group:
                    self._tasks.append(self._group.create_task(self.writer.run()))
                    try:
                        yield self
                    finally:
                        for task in self._tasks:
                            task.cancel()
            finally:
                await self.gateway.end(signal.SIGKILL)
