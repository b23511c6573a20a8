"""One suite over the bus in memory and the bus on a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import free_port
from tests.contract.conftest import Server, end, start_valkey

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.errors import BusUnavailableError
from cotacoes.patterns.pub_sub.bus import MESSAGE_BYTES_MAX, Bus
from cotacoes.testing.memory_bus import QUEUE_MESSAGES_MAX, MemoryBus

DEADLINE_S = 1.0
LIMIT_S = 10.0


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


@dataclass
class Wire:
    """A bus, and what takes it away and brings it back."""

    bus: Bus
    kill: Callable[[], None]
    revive: Callable[[], object]


@contextlib.asynccontextmanager
async def _memory(_: Callable[[], Server]) -> AsyncIterator[Wire]:
    async with MemoryBus() as bus:

        def kill() -> None:
            bus.away = True
            bus.cut()

        def revive() -> None:
            bus.away = False

        yield Wire(bus, kill, revive)


@contextlib.asynccontextmanager
async def _redis(start: Callable[[], Server]) -> AsyncIterator[Wire]:
    server = start()
    async with RedisBus(url(server), deadline_s=DEADLINE_S) as bus:

        def kill() -> None:
            server.process.kill()
            server.process.wait(LIMIT_S)

        yield Wire(bus, kill, start)


@pytest.fixture(autouse=True)
async def no_task_outlives_its_test() -> AsyncIterator[None]:
    yield
    assert [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())] == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []

    def start_one() -> Server:
        started.append(start_valkey(tmp_path, started[0].port if started else free_port()))
        return started[-1]

    yield start_one
    for server in started:
        if server.process.poll() is None:
            end(server)


@pytest.fixture(params=[_memory, _redis], ids=["memory", "redis"])
async def wire(request: pytest.FixtureRequest, start: Callable[[], Server]) -> AsyncIterator[Wire]:
    async with request.param(start) as wire:
        yield wire


@pytest.fixture
def bus(wire: Wire) -> Bus:
    return wire.bus


async def take(messages: AsyncIterator[tuple[str, bytes]], count: int) -> list[tuple[str, bytes]]:
    async with asyncio.timeout(LIMIT_S):
        return [await anext(messages) for _ in range(count)]


async def answered(bus: Bus, messages: list[tuple[str, bytes]], until: list[int] | None = None) -> list[int]:
    """The first answer, or `until`, on a machine that may be too busy for a short deadline."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(BusUnavailableError):
                heard = await bus.publish(messages)
                if until in (None, heard):
                    return heard


async def test_a_publish_returns_how_many_received_each_message(bus: Bus) -> None:
    async with bus.subscribe(["one", "two"]), bus.subscribe(["two"]):
        assert await bus.publish([("one", b"1"), ("two", b"2"), ("three", b"3")]) == [1, 2, 0]
    assert await bus.publish([]) == []


async def test_messages_come_in_the_order_of_their_publishing_over_all_channels(bus: Bus) -> None:
    sent = [(("one", "two")[number % 2], b"%d\nline" % number) for number in range(500)]
    async with bus.subscribe(["one", "two"]) as messages:
        for start in range(0, len(sent), 50):
            await bus.publish(sent[start : start + 50])
        assert await take(messages, len(sent)) == sent


async def test_only_messages_published_after_subscribing_are_received(bus: Bus) -> None:
    await bus.publish([("one", b"before")])
    async with bus.subscribe(["one"]) as messages:
        await bus.publish([("other", b"elsewhere"), ("one", b"after")])
        assert await take(messages, 1) == [("one", b"after")]


async def test_a_message_of_the_maximum_size_arrives_and_a_larger_one_is_refused(bus: Bus) -> None:
    largest = bytes(range(256)) * (MESSAGE_BYTES_MAX // 256)
    async with bus.subscribe(["one"]) as messages:
        await bus.publish([("one", largest)])
        assert await take(messages, 1) == [("one", largest)]
        with pytest.raises(ValueError, match=str(MESSAGE_BYTES_MAX)):
            await bus.publish([("one", b"small"), ("one", largest + b"x")])


async def test_concurrent_publishers_each_get_the_answer_to_their_own(bus: Bus) -> None:
    async with bus.subscribe(["heard"]):
        answers = await asyncio.gather(*(bus.publish([(("heard", "unheard")[n % 2], b"x")] * n) for n in range(50)))
    assert answers == [[1 - n % 2] * n for n in range(50)]


async def test_a_bus_that_is_away_is_named_and_every_link_to_it_ends(wire: Wire) -> None:
    async with wire.bus.subscribe(["one"]) as messages:
        await wire.bus.ping()
        wire.kill()
        with pytest.raises(BusUnavailableError):
            await take(messages, 1)
    with pytest.raises(BusUnavailableError):
        await wire.bus.publish([("one", b"x")])
    with pytest.raises(BusUnavailableError):
        await wire.bus.ping()
    with pytest.raises(BusUnavailableError):
        async with wire.bus.subscribe(["one"]):
            pass


async def test_a_bus_that_is_back_is_used_again_by_both_sides(wire: Wire) -> None:
    assert await wire.bus.publish([("one", b"before")]) == [0]
    wire.kill()
    with pytest.raises(BusUnavailableError):
        await wire.bus.publish([("one", b"lost")])
    wire.revive()
    async with wire.bus.subscribe(["one"]) as messages:
        assert await wire.bus.publish([("one", b"after")]) == [1]
        assert await take(messages, 1) == [("one", b"after")]


async def test_a_bus_that_was_away_unnoticed_loses_nothing_published_after_it(wire: Wire) -> None:
    assert await wire.bus.publish([("one", b"before")]) == [0]
    wire.kill()
    wire.revive()
    await asyncio.sleep(0.01)  # for the end of the old link to be read
    assert await wire.bus.publish([("one", b"after")]) == [0]


async def test_an_iterator_left_in_the_middle_leaves_the_bus_usable(bus: Bus) -> None:
    with pytest.raises(TimeoutError):
        async with bus.subscribe(["one"]) as messages, asyncio.timeout(0.05):
            await bus.publish([("one", b"1"), ("one", b"2")])
            async for _ in messages:
                pass
    assert await answered(bus, [("one", b"x")], until=[0]) == [0]


async def test_a_listener_that_falls_too_far_behind_in_memory_is_cut_off_and_the_others_are_not() -> None:
    async with MemoryBus() as bus, bus.subscribe(["one"]) as slow, bus.subscribe(["one"]) as quick:
        heard: list[int] = []
        for _ in range(QUEUE_MESSAGES_MAX + 1):
            heard = await bus.publish([("one", b"x")])
            await anext(quick)
        assert heard == [2]
        assert await bus.publish([("one", b"x")]) == [1]
        with pytest.raises(BusUnavailableError):
            await anext(slow)


async def test_publishers_cut_off_in_the_middle_each_get_an_answer_or_the_error(wire: Wire) -> None:
    async def publish_on() -> None:
        while True:
            assert await wire.bus.publish([("one", b"x" * 10_000)] * 20) == [0] * 20
            await asyncio.sleep(0)  # the bus in memory never waits

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        ends = [group.create_task(_error_of(publish_on())) for _ in range(10)]
        await wire.bus.ping()
        await asyncio.sleep(0.05)
        wire.kill()
    assert {type(task.result()) for task in ends} == {BusUnavailableError}


async def _error_of(publishing: Coroutine[Any, Any, None]) -> BusUnavailableError | None:
    try:
        await publishing
    except BusUnavailableError as error:
        return error
    return None
