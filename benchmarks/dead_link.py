"""`dead-link`: a subscriber's link to Redis dies without a word; how long until it has everything back.

Between the two is a proxy that at some moment passes nothing more, in either direction, and keeps the connection open,
as a router does that has forgotten it; new connections pass. 50 quotes a second go on being recorded and published, and
a heartbeat each second. The time is from that moment until every quote recorded by then, and since, is handed on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random

from benchmarks.fanout_history import COIN, beat_after, make_quotes
from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.servers import valkey_server
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.feed.consumer import FeedConsumer
from cotacoes.feed.feeds import FeedEvent, Feeds
from cotacoes.feed.history import PAGE_QUOTES, HistoryPage
from cotacoes.model.live_message import channel, encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.recovery_events import GapFilled, GapLost, QuoteReceived, Wanted

AIM = Aim(12.0)
SILENT_AIM = Aim(0)
RATE = 50
QUOTES = RATE * 60
DEADLINE_S = 30.0
DEADLINE_OF_CALL_S = 2.0


class Link:
    """The proxy. `die` is for the connections that there are."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._dead = asyncio.Event()

    def die(self) -> None:
        self._dead.set()
        self._dead = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dead = self._dead
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        pumps = [asyncio.create_task(self._pump(*way, dead)) for way in ((reader, back), (there, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for one in (writer, back):
            one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dead: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            if not dead.is_set():
                writer.write(data)


class Memory:
    """The history: what was recorded so far."""

    def __init__(self) -> None:
        self.recorded: list[Quote] = []

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> HistoryPage:
        if wanted.last is not None:
            return HistoryPage(self.recorded[-wanted.last :], more=False)
        later = [quote for quote in self.recorded if wanted.after is None or quote.position > wanted.after]
        return HistoryPage(later[:limit], more=len(later) > limit)


def measure(effort: Effort) -> list[Row]:
    with valkey_server() as port:
        runs = [asyncio.run(_run(port)) for _ in range(effort.runs)]
    return [
        Row("dead link, until all is back", "s", [seconds for seconds, _, _ in runs], AIM),
        Row("dead link, quotes got back", "quotes", [back for _, back, _ in runs]),
        Row("dead link, quotes lost in silence", "quotes", [silent for _, _, silent in runs], SILENT_AIM),
    ]


async def _run(port: int) -> tuple[float, float, float]:
    """Seconds until all was back, how many quotes that were, and how many vanished unreported."""
    history, link, events = Memory(), Link(port), list[FeedEvent]()

    async def take(new: Sequence[FeedEvent]) -> None:
        events.extend(new)

    async with await asyncio.start_server(link.serve, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            RedisBus(f"redis://127.0.0.1:{port}", deadline_s=DEADLINE_OF_CALL_S) as bus,
            RedisBus(url, deadline_s=DEADLINE_OF_CALL_S) as far,
        ):
            feeds = Feeds([COIN], time.monotonic())
            follower = FeedConsumer(feeds, far, history, take, clock=time.monotonic, random=Random())
            tasks = [asyncio.create_task(follower.run()), asyncio.create_task(_write(bus, history))]
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await _until(lambda: len(events) > RATE)
                    died_at, number = time.monotonic(), len(events)
                    link.die()
                    await _until(lambda: any(isinstance(event, GapFilled) for event in events[number:]))
                    seconds = time.monotonic() - died_at
            except TimeoutError as error:
                raise MeasureError(f"nothing was back within {DEADLINE_S:g} s") from error
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    return seconds, sum(e.quotes for e in events if isinstance(e, GapFilled)), _silent(history.recorded, events)


async def _write(bus: RedisBus, history: Memory) -> None:
    for number, quote in enumerate(make_quotes(1, QUOTES, RATE)):
        history.recorded.append(quote)
        beats = [(channel(COIN), beat_after(quote))] if number % RATE == 0 else []
        await bus.publish([(channel(COIN), encode_quote(quote)), *beats])
        await asyncio.sleep(1 / RATE)


async def _until(what: Callable[[], bool]) -> None:
    while not what():  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0.01)


def _silent(recorded: Sequence[Quote], events: Sequence[FeedEvent]) -> int:
    """Quotes between the first and the last handed on that are neither handed on nor reported as lost."""
    seen = [event.quote.position for event in events if isinstance(event, QuoteReceived)]
    lost: list[tuple[Position | None, Position]] = [
        (event.gap.after, event.gap.through) for event in events if isinstance(event, GapLost)
    ]
    owed = {quote.position for quote in recorded if seen[0] <= quote.position <= seen[-1]}
    missing = owed - set(seen)
    return sum(not any((a is None or a < one) and one <= b for a, b in lost) for one in missing)
