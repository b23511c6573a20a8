"""`Client.stream` of a real gateway, through a proxy: whatever happens in between, what came tiles what was written."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.contract.conftest import Server
from tests.contract.harness_client_subscriber import COIN
from tests.contract.harness_gateway import GatewaySystem
from tests.unit.fake_history import breaches

from cotacoes.client import Client, Gap, NewestQuote, Position, Quote, StaleQuote, Stream
from cotacoes.errors import UnknownCoinError

BACK_S = 12.0  # what is promised for a link that is dead without saying so
LIMIT_S = 30.0


@pytest.fixture
async def world(valkey: Server, seeded: random.Random) -> AsyncIterator[GatewaySystem]:
    async with GatewaySystem(valkey.port, seeded).running() as world:
        yield world


class Reader:
    """Everything that a stream yields from its first event on, read by a task."""

    def __init__(self, stream: Stream) -> None:
        self.events: list[Quote | Gap] = []
        self._stream = stream

    async def run(self) -> None:
        async for event in self._stream:
            self.events.append(event)

    @property
    def position(self) -> Position | None:
        if not self.events:
            return None
        last = self.events[-1]
        return last.position if isinstance(last, Quote) else last.through

    async def until(self, position: Position, limit_s: float = LIMIT_S) -> None:
        """Return once it has come so far."""
        async with asyncio.timeout(limit_s):
            while self.position is None or self.position < position:
                await asyncio.sleep(0.02)

    def breaches(self, world: GatewaySystem, start: Position | None) -> list[str]:
        gaps = [(event.after, event.through) for event in self.events if isinstance(event, Gap)]
        shown = [event.position for event in self.events if isinstance(event, Quote)]
        return breaches([one for one in world.history.written if one.position <= shown[-1]], shown, gaps, start)


def newest(world: GatewaySystem) -> Position:
    assert world.writer.last is not None
    return world.writer.last.position


async def blackhole(world: GatewaySystem) -> None:
    world.proxy.blackhole(new=False)


async def reset(world: GatewaySystem) -> None:
    world.proxy.reset()


async def cut(world: GatewaySystem) -> None:
    cuts = world.proxy.cuts
    world.proxy.cut_after(world.chance.randint(1, 1500))
    async with asyncio.timeout(LIMIT_S):
        while world.proxy.cuts == cuts:
            await asyncio.sleep(0.02)


async def kill(world: GatewaySystem) -> None:
    await world.gateway.end(signal.SIGKILL)
    await asyncio.sleep(0.5)
    await world.gateway.start()


async def stop(world: GatewaySystem) -> None:
    await world.gateway.end(signal.SIGTERM)
    await world.gateway.start()


async def start_a_new_era(world: GatewaySystem) -> None:
    world.redis_proxy.blackhole(new=False)
    world.writer.epoch += 1000
    await world.writer.write(5)
    world.redis_proxy.reset()


async def write_much(world: GatewaySystem) -> None:
    for _ in range(20):
        await world.writer.write(500)
    world.proxy.reset()


Fault = Callable[[GatewaySystem], Awaitable[None]]


@pytest.mark.parametrize("fault", [blackhole, reset, cut, kill, stop, start_a_new_era, write_much])
async def test_whatever_happens_a_stream_has_each_quote_once_in_order(world: GatewaySystem, fault: Fault) -> None:
    start = world.history.written[0].position
    async with Client(f"http://127.0.0.1:{world.proxy.port}") as client, asyncio.TaskGroup() as group:
        reader = Reader(client.stream(COIN, since=start, max_age=60.0))
        reading = group.create_task(reader.run())
        await reader.until(newest(world))
        await fault(world)
        await world.writer.write(1)
        await reader.until(newest(world), BACK_S + 2)
        reading.cancel()
    assert reader.breaches(world, start) == []
    assert [event for event in reader.events if isinstance(event, Gap)] == []


async def test_what_the_history_no_longer_holds_is_reported(world: GatewaySystem) -> None:
    start = world.history.written[0].position
    await world.writer.write(500)
    world.history.floor[COIN] = 100
    await kill(world)
    async with Client(f"http://127.0.0.1:{world.proxy.port}") as client, asyncio.TaskGroup() as group:
        reader = Reader(client.stream(COIN, since=start))
        reading = group.create_task(reader.run())
        await reader.until(newest(world))
        reading.cancel()
    assert isinstance(reader.events[0], Gap)
    assert reader.breaches(world, start) == []


@pytest.mark.parametrize("mode", ["conflate", "interval:100"])
async def test_in_a_mode_that_skips_quotes_their_ranges_cover_what_was_written(world: GatewaySystem, mode: str) -> None:
    async with Client(f"http://127.0.0.1:{world.proxy.port}") as client, asyncio.TaskGroup() as group:
        reader = Reader(client.stream(COIN, mode=mode))
        reading = group.create_task(reader.run())
        await reader.until(newest(world))
        for _ in range(3):
            await cut(world)
            await world.writer.write(1)
            await reader.until(newest(world))
        reading.cancel()
    known = reader.events[0].position if isinstance(reader.events[0], Quote) else None
    for event in reader.events[1:]:
        assert isinstance(event, NewestQuote)
        assert event.after == known
        known = event.position


async def test_a_feed_that_stops_becomes_stale_at_max_age(world: GatewaySystem) -> None:
    async with Client(f"http://127.0.0.1:{world.proxy.port}") as client:
        stream = client.stream(COIN, max_age=2.0)
        await anext(stream)
        world.redis_proxy.blackhole()
        with pytest.raises(StaleQuote) as stale:
            async with asyncio.timeout(LIMIT_S):
                async for event in stream:
                    assert isinstance(event, Quote)
    assert stale.value.coin == COIN
    assert stale.value.age >= 2.0


async def test_a_coin_that_does_not_exist_is_raised(world: GatewaySystem) -> None:
    async with Client(f"http://127.0.0.1:{world.proxy.port}") as client:
        with pytest.raises(UnknownCoinError):
            await anext(client.stream("bitcon"))
