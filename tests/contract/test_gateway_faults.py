"""Whatever happens to the gateway or its links, a client that comes back gets each quote once, in order."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.contract.conftest import Server
from tests.contract.harness_gateway import GatewaySystem
from tests.contract.harness_stream_proxy import StreamProxy

BACK_S = 12.0  # what is promised for a link that is dead without saying so
CLIENTS = 1_000
ALL_BACK_S = 20.0


@pytest.fixture
async def world(valkey: Server, seeded: random.Random) -> AsyncIterator[GatewaySystem]:
    async with GatewaySystem(valkey.port, seeded).running() as world:
        yield world


async def blackhole(proxy: StreamProxy, chance: random.Random) -> None:
    proxy.blackhole(new=False)


async def reset(proxy: StreamProxy, chance: random.Random) -> None:
    proxy.reset()


async def cut(proxy: StreamProxy, chance: random.Random) -> None:
    cuts = proxy.cuts
    proxy.cut_after(chance.randint(1, 1500))
    async with asyncio.timeout(10):
        while proxy.cuts == cuts:
            await asyncio.sleep(0.02)


async def throttle(proxy: StreamProxy, chance: random.Random) -> None:
    proxy.throttle(chance.uniform(2_000, 3_000))
    await asyncio.sleep(2)
    proxy.mend()


async def delay(proxy: StreamProxy, chance: random.Random) -> None:
    proxy.delay(chance.uniform(0.1, 0.4))
    await asyncio.sleep(1)
    proxy.mend()


Fault = Callable[[StreamProxy, random.Random], Awaitable[None]]
FAULTS = [reset, cut, throttle, delay]


@pytest.mark.parametrize("fault", [*FAULTS, blackhole])
async def test_faults_between_redis_and_the_gateway_cost_no_client_a_quote(world: GatewaySystem, fault: Fault) -> None:
    listener = world.listen()
    await world.until_whole(listener)
    await fault(world.redis_proxy, world.chance)
    await world.writer.write(1)
    await world.until_whole(listener, limit_s=BACK_S)
    assert listener.closes == []
    world.assert_whole(listener)


@pytest.mark.parametrize("fault", [*FAULTS, blackhole])
async def test_faults_between_the_gateway_and_a_client_cost_it_nothing(world: GatewaySystem, fault: Fault) -> None:
    touched, other = world.listen(), world.listen(direct=True)
    await world.until_whole(touched, other)
    await fault(world.proxy, world.chance)
    await world.writer.write(1)
    await world.until_whole(touched, other, limit_s=BACK_S + 2)
    assert other.closes == []
    world.assert_whole(touched, other)


async def test_clients_resume_exactly_after_the_gateway_was_killed_and_restarted(world: GatewaySystem) -> None:
    every, conflated = world.listen(), world.listen(mode="conflate")
    await world.until_whole(every, conflated)
    await world.gateway.end(signal.SIGKILL)
    await asyncio.sleep(0.5)
    await world.gateway.start()
    await world.until_whole(every, conflated)
    world.assert_whole(every)


async def test_a_gateway_says_that_it_stops_and_clients_resume_exactly(world: GatewaySystem) -> None:
    listener = world.listen()
    await world.until_whole(listener)
    await world.gateway.end(signal.SIGTERM)
    assert world.gateway.process.returncode == 0
    await world.gateway.start()
    await world.until_whole(listener)
    bye = next(frame for frame in listener.frames if frame["type"] == "bye")
    assert bye["reason"] == "shutdown"
    assert listener.closes[0] == 1001
    world.assert_whole(listener)


async def test_a_writer_that_restarts_unheard_leaves_no_hole(world: GatewaySystem) -> None:
    listener = world.listen()
    await world.until_whole(listener)
    world.redis_proxy.blackhole(new=False)
    world.writer.epoch += 1000
    await world.writer.write(5)
    world.redis_proxy.reset()
    await world.until_whole(listener)
    world.assert_whole(listener)


async def test_a_client_at_a_tenth_of_the_speed_gets_everything_and_costs_the_others_nothing(
    world: GatewaySystem,
) -> None:
    slow, quick = world.listen(), world.listen(direct=True)
    await world.until_whole(slow, quick)
    world.proxy.throttle(20_000)
    for _ in range(20):
        await world.writer.write(50)
        await asyncio.sleep(0.05)
    await world.until_whole(quick, limit_s=3.0)
    world.proxy.mend()
    await world.until_whole(slow, quick)
    world.assert_whole(slow, quick)
    assert slow.closes == quick.closes == []


async def test_a_thousand_clients_that_are_cut_together_are_back_within_twenty_seconds(
    valkey: Server, seeded: random.Random
) -> None:
    async with GatewaySystem(valkey.port, seeded).running() as world:
        listeners = [world.listen() for _ in range(CLIENTS)]
        await world.until_whole(*listeners, limit_s=60)
        world.proxy.reset()
        async with asyncio.timeout(ALL_BACK_S):
            while not all(listener.closes for listener in listeners):
                await asyncio.sleep(0.02)
            await world.until_whole(*listeners)
        world.assert_whole(*listeners)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_hundred_faults_on_both_sides_of_the_gateway_cost_no_client_a_quote(
    valkey: Server, seeded: random.Random
) -> None:
    async with GatewaySystem(valkey.port, seeded).running() as world:
        listeners = [world.listen() for _ in range(5)] + [world.listen(direct=True) for _ in range(5)]
        for _ in range(100):
            proxy = seeded.choice([world.proxy, world.redis_proxy])
            await seeded.choice([*FAULTS, blackhole])(proxy, seeded)
            if seeded.random() < 0.1:
                world.writer.epoch += 1000
            if seeded.random() < 0.1:
                await world.gateway.end(seeded.choice([signal.SIGKILL, signal.SIGTERM]))
                await world.gateway.start()
        await world.until_whole(*listeners, limit_s=60)
        world.assert_whole(*listeners)
