"""Scenarios of the live stream in memory that are run short in one place and long in another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from tests.unit import fake_event_loop
from tests.unit.harness_gateway_stream import MemoryClient, StreamRig, assert_tiles

from cotacoes.observability.metrics import Metrics
from cotacoes.web.background import Restarts


def run(scenario: Callable[[StreamRig], Coroutine[Any, Any, None]], *coins: str, **settings: Any) -> None:
    """A scenario beside a hub that runs, in virtual time."""

    async def beside() -> None:
        rig = StreamRig(*coins, **settings)
        running = asyncio.create_task(rig.hub.run(Restarts(Metrics())))
        try:
            await scenario(rig)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    fake_event_loop.run(beside())


async def settle() -> None:
    await asyncio.sleep(0.1)


def since(position: str, coin: str = "bitcoin") -> dict[str, dict[str, str]]:
    return {"since": {coin: position}}


def race(chance: random.Random, *, subscriptions: int) -> None:
    """Subscribe in the middle of publishing, so many times: the first is the next, no hole, none twice."""

    async def scenario(rig: StreamRig) -> None:
        client = rig.client(room=100_000_000)
        for attempt in range(subscriptions):
            await rig.publish(count=chance.randrange(3))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0.0, 0.004, 0.02]))
            written = rig.history.of("bitcoin")
            place = {}
            if written and chance.random() < 0.5:
                place = since(str(written[max(0, len(written) - chance.randrange(1, 6))].position))
            client.subscribe("bitcoin", **place)
            await rig.publish(count=chance.randrange(3))
            await asyncio.sleep(0.05)
            client.frames.clear()
            client.read()
            written = rig.history.of("bitcoin")
            last = written[-1].position if written else None
            assert_tiles(client.frames, rig.history, "bitcoin", through=last)
            if attempt % 100 == 0:
                client.cut()
                client = rig.client(room=100_000_000)

    run(scenario, stream_messages_per_s=1_000)


def anything(chance: random.Random, *, steps: int, ring_bytes: int) -> None:
    """Clients of every kind come, read, do not read; the history comes and goes and forgets: each stream tiles it."""

    async def scenario(rig: StreamRig) -> None:
        clients: list[MemoryClient] = []
        for _ in range(steps):
            step = chance.random()
            coin = chance.choice(rig.coins)
            if step < 0.5:
                await rig.publish(coin, count=chance.choice([1, 5, 100]), new_era=chance.random() < 0.1)
            elif step < 0.6:
                clients.append(_begun(rig, chance))
            elif step < 0.65:
                rig.history.away = not rig.history.away
            elif step < 0.7:
                written = len(rig.history.of(coin))
                rig.history.floor[coin] = max(
                    rig.history.floor.get(coin, 0), min(written - 1, chance.randrange(1 + written))
                )
            for client in clients:
                if chance.random() < 0.4:
                    client.read(chance.choice([100, 10_000, None]))
            await asyncio.sleep(chance.choice([0.0, 0.005, 0.2]))
        rig.history.away = False
        quiet = 0
        while quiet < 20:  # a history that was away is asked again after a second
            await asyncio.sleep(0.2)
            came = [client.read() for client in clients]
            quotes = [frame for frames in came for frame in frames if frame["type"] == "quote"]
            quiet = 0 if quotes else quiet + 1
        assert clients
        for client in clients:
            for coin in client.coins:  # type: ignore[attr-defined]
                held = rig.history.of(coin)
                assert_tiles(client.frames, rig.history, coin, through=held[-1].position if held else None)

    run(scenario, "bitcoin", "ethereum", stream_ring_bytes=ring_bytes, stream_stall_s=600, stream_age_max_s=1e6)


def _begun(rig: StreamRig, chance: random.Random) -> MemoryClient:
    client = rig.client(room=chance.choice([0, 100_000]))
    coins = chance.sample(rig.coins, chance.randrange(1, len(rig.coins) + 1))
    client.coins = coins  # type: ignore[attr-defined]
    mode = chance.choice(["every", "every", "conflate", "interval:100"])
    place = {}
    for coin in coins:
        if rig.history.of(coin) and chance.random() < 0.6:
            place[coin] = str(chance.choice(rig.history.of(coin)).position)
    client.subscribe(*coins, mode=mode, since=place)
    return client
