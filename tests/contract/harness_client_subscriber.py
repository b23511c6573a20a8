"""client_subscriber as a process between a real Valkey behind a proxy and a history over HTTP; both are written here.

    Writer ──▶ Valkey ──▶ StreamProxy ──▶ client_subscriber --json ──▶ lines
       └─────▶ HistoryTwin ──▶ HTTP ───────────┘

The oracle is `SubscriberSystem.breaches`: each quote that was written since the first one shown is shown or reported
as gone, once, in order.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from fastapi import APIRouter
from tests.contract.harness_stream_proxy import StreamProxy
from tests.harness_http_server import serving
from tests.unit.fake_history import HistoryTwin, breaches

from cotacoes import config
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.errors import BusUnavailableError, ServiceUnavailableError
from cotacoes.model.live_message import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote, QuoteJson
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.pub_sub.recovery_events import Wanted
from cotacoes.up.supervision import die_with_parent
from cotacoes.web.app import build_app

COIN = "bitcoin"
EVERY_S = 0.05
HEARTBEAT_S = 1.0
LIMIT_S = 30.0


def small_steps(seq: int) -> Decimal:
    """A price whose digits name its quote."""
    return Decimal(f"67012.{seq}")


class Writer:
    """Records a quote each `EVERY_S` and publishes it, with a heartbeat each second, whether Redis is there or not.

    `price` gives the price of the quote with this number.
    """

    def __init__(self, port: int, history: HistoryTwin, price: Callable[[int], Decimal] = small_steps) -> None:
        self.epoch = 1_732_400_000_000
        self._price = price
        self._bus = RedisBus(f"redis://127.0.0.1:{port}", deadline_s=0.5)
        self._history = history

    @property
    def last(self) -> Quote | None:
        return self._history.written[-1] if self._history.written else None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        beat_at = loop.time()
        async with self._bus:
            while True:
                await self.write(1)
                if loop.time() >= beat_at:
                    beat_at = loop.time() + HEARTBEAT_S
                    await self._publish(encode_heartbeat(self._beat()))
                await asyncio.sleep(EVERY_S)

    async def write(self, count: int) -> None:
        """So many more quotes, in one message."""
        quotes = [self._record() for _ in range(count)]
        await self._publish(b"\n".join(map(encode_quote, quotes)))

    async def overflow(self) -> None:
        """Publish messages without a line until nobody listens any more, cut off by Redis for being behind."""
        async with asyncio.timeout(LIMIT_S):
            while await self._bus.publish([(channel(COIN), b"\n" * 500_000)]) != [0]:
                await asyncio.sleep(0)

    def _record(self) -> Quote:
        last, now = self.last, datetime.now(UTC)
        seq = last.seq + 1 if last is not None and last.epoch == self.epoch else 1
        prev = last.position if last is not None and seq == 1 else None
        quote = Quote(COIN, "USD", self._price(seq), self.epoch, seq, now, now, "sim", prev)
        self._history.written.append(quote)
        return quote

    async def _publish(self, message: bytes) -> None:
        with contextlib.suppress(BusUnavailableError):
            await self._bus.publish([(channel(COIN), message)])

    def _beat(self) -> Heartbeat:
        assert self.last is not None
        prev = next(quote.prev for quote in self._history.written if quote.epoch == self.last.epoch)
        return Heartbeat(COIN, self.last.position, prev, datetime.now(UTC))


class SubscriberSystem:
    """See the head of this file. `lines` are those of the subscriber so far, each with the time of the loop."""

    def __init__(self, port: int) -> None:
        self.history = HistoryTwin()
        self.writer = Writer(port, self.history)
        self.proxy = StreamProxy(port)
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self.process: asyncio.subprocess.Process

    def kinds(self) -> list[str]:
        """The types of the lines so far, quotes left out."""
        return [line["type"] for _, line in self.lines if line["type"] != "quote"]

    def shown(self) -> list[Position]:
        return [Position(line["epoch"], line["seq"]) for _, line in self.lines if line["type"] == "quote"]

    def breaches(self, since: Position | None = None) -> list[str]:
        """What is wrong with all that was shown and reported as gone, up to the last one shown."""
        shown = self.shown()
        gone = [
            (None if line["after"] is None else Position.parse(line["after"]), Position.parse(line["through"]))
            for _, line in self.lines
            if line["type"] == "gone"
        ]
        written = [quote for quote in self.history.written if quote.position <= shown[-1]]
        start = since or next(quote.before for quote in written if quote.position == shown[0])
        return breaches(written, shown, gone, start)

    async def until(self, what: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        async with asyncio.timeout(limit_s):
            while not what():
                assert self.process.returncode is None
                await asyncio.sleep(0.02)

    async def until_line(self, kind: str, count: int = 1, *, limit_s: float = LIMIT_S) -> None:
        await self.until(lambda: self.kinds().count(kind) >= count, limit_s)

    async def until_cut(self, count: int) -> None:
        await self.until(lambda: self.proxy.cuts >= count)

    async def until_whole(self) -> None:
        """Return once all is shown that is written by now."""
        assert self.writer.last is not None
        target = self.writer.last.position
        await self.until(lambda: self.shown() and self.shown()[-1] >= target)


@contextlib.asynccontextmanager
async def subscribing(port: int, *arguments: str, history_first: int = 3) -> AsyncIterator[SubscriberSystem]:
    """A subscriber, begun with `arguments`, that shows what is written, of which so many quotes were there before."""
    world = SubscriberSystem(port)
    await world.writer.write(history_first)
    async with serving(history_app(world.history)) as history_port, world.proxy, _running(world.writer.run()):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COTACOES_")}
        environment["COTACOES_REDIS_URL"] = f"redis://127.0.0.1:{world.proxy.port}"
        environment["COTACOES_QUOTE_URL"] = f"http://127.0.0.1:{history_port}"
        world.process = await asyncio.create_subprocess_exec(
            *die_with_parent.launcher(signal.SIGKILL),
            *(sys.executable, "-W", "error", "-m", "cotacoes", "client-subscriber", "--json", COIN, *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with _running(_read(world)):
                await world.until(lambda: world.proxy.connections and world.shown())
                await world.until_whole()
                yield world
        finally:
            with contextlib.suppress(ProcessLookupError):
                world.process.kill()
            await world.process.wait()


async def _read(world: SubscriberSystem) -> None:
    assert world.process.stdout is not None
    async for line in world.process.stdout:
        world.lines.append((asyncio.get_running_loop().time(), json.loads(line)))


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


def history_app(history: HistoryTwin) -> Any:
    """The routes of quote_service that a subscriber asks."""
    router = APIRouter()

    @router.get("/v1/positions")
    async def positions() -> Any:
        last = str(history.written[-1].position)
        return {"coins": {COIN: {"position": last, "through": last, "pending": 0, "shard": "shard1"}}}

    @router.get("/v1/quotes/{coin}")
    async def quotes(coin: str, after: str | None = None, last: int | None = None, limit: int = 1000) -> Any:
        if history.away:
            raise ServiceUnavailableError("the history is away")
        page = history.page(coin, Wanted(None if after is None else Position.parse(after), last), limit)
        return {
            "coin": coin,
            "quotes": [msgspec.to_builtins(QuoteJson.from_quote(quote)) for quote in page.quotes],
            "next": str(page.quotes[-1].position) if page.quotes else after,
            "more": page.more,
            "floor": None,
        }

    return build_app("quote_service", config.load({}), Metrics(), router)
