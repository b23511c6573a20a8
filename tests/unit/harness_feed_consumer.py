"""A feed consumer in virtual time, between a bus and a history in memory."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.unit import fake_event_loop
from tests.unit.fake_history import HistoryTwin, breaches

from cotacoes.feed.consumer import CountIgnored, Emit, FeedConsumer
from cotacoes.feed.feeds import FeedEvent, Feeds
from cotacoes.model.live_message import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.recovery_events import GapLost, QuoteReceived
from cotacoes.testing.memory_bus import MemoryBus

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COIN = "bitcoin"
EPOCH = 5


class LoggedBus(MemoryBus):
    """Remembers when it was listened to; `hangs_up` ends every link at once, and if it `hangs`, none is ever made."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed_at: list[float] = []
        self.hangs_up = False
        self.hangs = False

    @contextlib.asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        self.subscribed_at.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.Event().wait()
        if self.hangs_up:
            asyncio.get_running_loop().call_soon(self.cut)
        async with super().subscribe(channels) as messages:
            yield messages


class FeedSystem:
    """A writer, its bus, its history, and the reader of the consumer's events, who may not be `reading`."""

    def __init__(self) -> None:
        self.bus = LoggedBus()
        self.history = HistoryTwin()
        self.events: list[FeedEvent] = []
        self.reading = asyncio.Event()
        self.reading.set()

    def record(self, count: int, coin: str = COIN, epoch: int = EPOCH) -> list[Quote]:
        """The coin's next quotes, in the history; nothing is published."""
        ever = [quote for quote in self.history.written if quote.coin == coin]
        last = ever[-1].position if ever else None
        seq = last.seq if last is not None and last.epoch == epoch else 0
        new = [
            Quote(coin, "USD", Decimal("67012.3400"), epoch, n, NOON, NOON, "sim", last if n == 1 else None)
            for n in range(seq + 1, seq + 1 + count)
        ]
        self.history.written += new
        return new

    async def publish(self, count: int = 1, coin: str = COIN, epoch: int = EPOCH) -> None:
        """The coin's next quotes, in the history and on the bus."""
        quotes = self.record(count, coin, epoch)
        await self.bus.publish([(channel(coin), b"\n".join(map(encode_quote, quotes)))])

    async def beat(self, coin: str = COIN) -> None:
        """The heartbeat that the writer sends now."""
        ever = [quote for quote in self.history.written if quote.coin == coin]
        position = ever[-1].position if ever else None
        prev = next((q.prev for q in ever if position is not None and q.epoch == position.epoch and q.seq == 1), None)
        await self.bus.publish([(channel(coin), encode_heartbeat(Heartbeat(coin, position, prev, NOON)))])

    async def take(self, events: Sequence[FeedEvent]) -> None:
        for event in events:
            await self.reading.wait()
            await asyncio.sleep(0)  # who takes them may be interrupted by whatever else happens
            self.events.append(event)

    def seqs(self, coin: str = COIN) -> list[int]:
        return [
            event.quote.seq for event in self.events if isinstance(event, QuoteReceived) and event.quote.coin == coin
        ]

    def positions(self, coin: str) -> list[Position]:
        received = [event.quote for event in self.events if isinstance(event, QuoteReceived)]
        return [quote.position for quote in received if quote.coin == coin]

    def emitted(self) -> list[Any]:
        """The seq of each quote, and each other event by its class."""
        return [event.quote.seq if isinstance(event, QuoteReceived) else type(event) for event in self.events]

    def breaches(self, start: Position | None, coin: str = COIN) -> list[str]:
        return breaches(
            [quote for quote in self.history.written if quote.coin == coin],
            [
                event.quote.position
                for event in self.events
                if isinstance(event, QuoteReceived) and event.quote.coin == coin
            ],
            [(e.gap.after, e.gap.through) for e in self.events if isinstance(e, GapLost) and e.gap.coin == coin],
            start,
        )


Scenario = Callable[[FeedSystem], Coroutine[Any, Any, None]]


def following(
    scenario: Scenario,
    *,
    prepare: Callable[[FeedSystem], Any] = lambda _: None,
    take: Callable[[FeedSystem], Emit] = lambda world: world.take,
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    coins: Sequence[str] = (COIN,),
    newcomers: Sequence[str] | None = None,
    since: Mapping[str, Position] | None = None,
    count_ignored: CountIgnored = lambda *_: None,
    bus_quiet_s: float = 0.0,
) -> FeedSystem:
    """Run a consumer of `coins` beside the scenario; later there are `newcomers` too.

    `prepare` is done before it starts; `take` says who takes what it finds out, the world if nobody else.
    """

    async def ask() -> Sequence[str]:
        return newcomers or ()

    async def run() -> FeedSystem:
        clock = asyncio.get_running_loop().time
        world = FeedSystem()
        prepare(world)
        feeds = Feeds(coins, clock(), since=since)
        taker = take(world)
        consumer = FeedConsumer(
            feeds,
            world.bus,
            world.history,
            taker,
            clock=clock,
            random=random.Random(1),
            count_ignored=count_ignored,
            bus_quiet_s=bus_quiet_s,
        )
        async with world.bus, asyncio.TaskGroup() as group:
            work = [consumer.run(newcomers=None if newcomers is None else ask), *(start() for start in beside)]
            tasks = [group.create_task(one) for one in work]
            await asyncio.sleep(0.1)
            await scenario(world)
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
        return world

    return fake_event_loop.run(run())
