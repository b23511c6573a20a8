"""Whatever happens to its link or to Redis, the subscriber shows each quote once, in order, and says what it missed."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.conftest import free_port
from tests.contract.conftest import Server, start_valkey
from tests.contract.harness_client_subscriber import COIN, SubscriberSystem, subscribing

from cotacoes.adapters.redis_bus import CONNECT_DEADLINE_S, IDLE_S, PONG_S
from cotacoes.feed.consumer import RECONNECT_MOST_S
from cotacoes.quote_service.publisher import HEARTBEAT_S

BACK_S = 12.0  # what is promised for a link that is dead without saying so
SMALL_BUFFER = "32768"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator["Servers"]:
    servers = Servers(tmp_path)
    yield servers
    servers.kill()


class Servers:
    """A Valkey that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._running: Server = start_valkey(folder, self.port)

    def kill(self) -> None:
        self._running.process.kill()
        self._running.process.wait(10)

    def start(self) -> None:
        self._running = start_valkey(self._folder, self.port)


@pytest.fixture
async def world(servers: Servers) -> AsyncIterator[SubscriberSystem]:
    async with subscribing(servers.port) as world:
        yield world


async def command(port: int, *words: str) -> bytes:
    """One command to Valkey; the first line of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(" ".join(words).encode() + b"\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


async def assert_got_back(world: SubscriberSystem) -> None:
    """All that is written by now comes; the loss is said, and its end; nothing is missing, doubled or out of order."""
    await world.until_whole()
    await world.until_line("recovered")  # behind the last of the quotes that it brings
    kinds = world.kinds()
    assert {"gap", "recovered"} <= set(kinds)
    assert kinds.count("recovered") <= kinds.count("gap")
    assert "gone" not in kinds
    assert world.breaches() == []


@pytest.mark.parametrize(
    ("new", "for_s"), [(False, 3.0), (True, 8.0)], ids=["the one that there is", "new ones too, for 8 s"]
)
async def test_a_link_in_a_black_hole_is_found_dead_and_everything_is_recovered_within_twelve_seconds(
    world: SubscriberSystem, seeded: random.Random, new: bool, for_s: float
) -> None:
    """The old link stays dead, so that only a new one recovers; the seconds are a sum of deadlines on any machine."""
    assert IDLE_S + PONG_S + RECONNECT_MOST_S + CONNECT_DEADLINE_S + HEARTBEAT_S <= BACK_S
    await asyncio.sleep(seeded.uniform(0.0, 1.0))
    world.proxy.blackhole(new=new)
    await asyncio.sleep(for_s)
    world.proxy.mend()  # for those that come from now on
    await world.until_line("recovered")
    await assert_got_back(world)


async def test_a_reset_link_costs_nothing(world: SubscriberSystem, seeded: random.Random) -> None:
    for number in range(1, 4):
        world.history.away = True  # so that what the subscriber says is known
        world.proxy.blackhole(new=False)
        await world.writer.write(seeded.randint(1, 100))
        world.proxy.reset()
        await world.until_line("gap", number)
        world.history.away = False
        await world.until_whole()
    await assert_got_back(world)


async def test_a_message_cut_anywhere_in_its_middle_is_shown_once(
    world: SubscriberSystem, seeded: random.Random
) -> None:
    for number in range(1, 6):
        world.proxy.cut_after(seeded.randint(1, 3000))
        await world.until_cut(number)
        await world.writer.write(1)
        await world.until_whole()
    await assert_got_back(world)


async def test_over_a_slow_link_each_quote_comes_late_but_once(world: SubscriberSystem, seeded: random.Random) -> None:
    world.proxy.throttle(seeded.uniform(2_000, 3_000))  # half of what is published
    await asyncio.sleep(3)
    world.proxy.mend()
    await world.until_whole()
    assert world.breaches() == []


async def test_a_link_too_slow_for_redis_is_cut_and_everything_is_recovered(
    world: SubscriberSystem, servers: Servers
) -> None:
    await small_buffers(servers)
    world.proxy.throttle(1_000)
    await world.writer.overflow()
    world.proxy.mend()
    await assert_got_back(world)


async def test_a_delayed_link_only_delays(world: SubscriberSystem, seeded: random.Random) -> None:
    world.proxy.delay(seeded.uniform(0.1, 0.5))
    await asyncio.sleep(2)
    await world.until_whole()
    assert world.kinds() == []
    assert world.breaches() == []


async def test_a_paused_subscriber_that_redis_cut_recovers_everything(
    world: SubscriberSystem, servers: Servers
) -> None:
    await small_buffers(servers)
    world.process.send_signal(signal.SIGSTOP)
    await world.writer.overflow()
    world.process.send_signal(signal.SIGCONT)
    await assert_got_back(world)


async def test_quotes_written_while_redis_was_down_are_recovered(world: SubscriberSystem, servers: Servers) -> None:
    servers.kill()
    await asyncio.sleep(1)
    servers.start()
    await assert_got_back(world)


async def test_a_flushed_redis_costs_nothing(world: SubscriberSystem, servers: Servers) -> None:
    assert await command(servers.port, "FLUSHALL") == b"+OK\r\n"
    await world.until_whole()
    await asyncio.sleep(1)
    assert world.kinds() == []
    assert world.breaches() == []


@pytest.mark.parametrize("eras", [1, 3])
async def test_a_writer_that_restarts_while_nobody_listens_leaves_no_hole(
    world: SubscriberSystem, servers: Servers, eras: int
) -> None:
    servers.kill()
    for _ in range(eras):
        await world.writer.write(2)
        world.writer.epoch += 1000
        await world.writer.write(2)
    servers.start()
    await world.until_whole()
    assert len({position.epoch for position in world.shown()}) == eras + 1
    await assert_got_back(world)


async def test_a_new_epoch_that_is_received_is_no_gap(world: SubscriberSystem) -> None:
    world.writer.epoch += 1000
    await world.writer.write(2)
    await world.until_whole()
    assert world.kinds() == []
    assert world.breaches() == []


async def test_while_the_history_is_away_nothing_is_skipped(world: SubscriberSystem, servers: Servers) -> None:
    world.history.away = True
    servers.kill()
    await world.writer.write(5)
    servers.start()
    await world.until_line("gap")
    last = world.shown()[-1]
    await asyncio.sleep(1)
    assert world.shown()[-1] == last
    world.history.away = False
    await assert_got_back(world)


async def test_what_the_history_dropped_meanwhile_is_reported_as_gone_and_the_rest_is_recovered(
    world: SubscriberSystem, servers: Servers, seeded: random.Random
) -> None:
    servers.kill()
    await asyncio.sleep(0.2)
    await world.writer.write(20)
    world.history.floor[COIN] = len(world.history.written) - seeded.randint(1, 15)
    servers.start()
    await world.until_whole()
    await world.until_line("recovered")
    assert world.kinds() == ["gap", "gone", "recovered"]
    assert world.breaches() == []


async def test_after_a_since_everything_that_follows_is_shown(servers: Servers) -> None:
    async with subscribing(servers.port, "--since", "1732400000000-2", history_first=2500) as world:
        assert world.shown()[0].seq == 3
        assert world.breaches(world.history.written[1].position) == []


async def small_buffers(servers: Servers) -> None:
    """A subscriber that is some 32 KB behind is cut."""
    limit = f'"pubsub {SMALL_BUFFER} {SMALL_BUFFER} 1"'
    assert await command(servers.port, "CONFIG", "SET", "client-output-buffer-limit", limit) == b"+OK\r\n"
