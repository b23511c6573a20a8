"""A report leaves nothing behind: not after a branch that does not end, a client that left, or a crowd."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from tests.contract.conftest import Databases, psql
from tests.contract.harness_report import ALL, OF_READERS, OUT_OF_TIME, ReportSystem, Shards, filled
from tests.harness_http_server import connect

from cotacoes.adapters.http_client import CONNECTIONS_MAX as HTTP_MAX
from cotacoes.adapters.postgres.pool import CONNECTIONS_MAX, Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.aggregator_service import app
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import DeadlineExceededError
from cotacoes.model.window import Window
from cotacoes.patterns.scatter_gather.gather import still_running
from cotacoes.patterns.sharding.shard import ShardView
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.web.overview import Overview
from cotacoes.web.process import HttpService
from cotacoes.web.service_client import Addresses, ServiceClient

FOR_EVER_S = 30.0  # of a report whose client hangs up: only that can end it within the bound of a test
BOUND_S = 10.0
CROWD = 200
CROWD_DEADLINE_S = 2.0
DISTINCT = 20  # questions of a crowd, by the number of logs
HURRIED, HURRIED_MS = 40, 1_200  # of a crowd, each with a deadline of its own


@pytest.fixture(scope="module")
def shards(admin_dsn: str, templates: Databases) -> Iterator[Shards]:
    with filled(admin_dsn, templates) as shards:
        yield shards


async def until(is_so: Callable[[], bool], limit_s: float = BOUND_S) -> None:
    async with asyncio.timeout(limit_s):
        while not is_so():
            await asyncio.sleep(0.01)


class Stubborn:
    """Swallows every cancellation until it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.released.set()

    async def hold(self) -> None:
        while not self.released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.released.wait()


class StubbornShard(PostgresShard):
    def __init__(self, name: str, dsn: str, stubborn: Stubborn) -> None:
        super().__init__(name, dsn, deadline_s=5.0)
        self._stubborn = stubborn

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        await self._stubborn.hold()
        return await super().newest(coins, count, window)


class StubbornClient(ServiceClient):
    def __init__(self, addresses: Addresses, stubborn: Stubborn) -> None:
        super().__init__(addresses, deadline_s=5.0)
        self._stubborn = stubborn

    async def overview(self, coins: Sequence[str], parts: Sequence[str], *, venues: bool = False) -> Overview:
        await self._stubborn.hold()
        return await super().overview(coins, parts, venues=venues)


def wired(settings: Settings, client: Stubborn, shard1: Stubborn) -> HttpService:
    """The service as `app.build` makes it, with a client and a shard1 that may be stubborn."""
    directory = ShardDirectory(
        {shard: settings.dsn(shard) for shard in SHARDS},
        settings.seed_placement,
        settings.data / "directory.json",
        open_shard=lambda name, dsn: StubbornShard(name, dsn, shard1 if name == "shard1" else Stubborn()),
    )
    asking = StubbornClient(Addresses(quote_service=settings.url("quote_service")), client)

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with directory, asking:
            yield

    return app.wire(settings, asking, directory, resources)


@pytest.mark.parametrize("who", ["client", "shard1"])
async def test_a_branch_that_swallows_its_cancellation_delays_no_report_and_is_counted_until_it_ends(
    shards: Shards, tmp_path: Path, who: str
) -> None:
    client, shard1 = Stubborn(), Stubborn()
    named = {"client": {"quote_service"}, "shard1": {"shard1"}}[who]
    world = ReportSystem(shards, tmp_path, build=lambda settings: wired(settings, client, shard1))
    async with world.running():
        await world.whole()
        stubborn = {"client": client, "shard1": shard1}[who]
        stubborn.released.clear()
        try:
            for asked in (1, 2):
                missing = await world.missing()
                assert named <= missing.keys()
                assert {missing[part] for part in named} == {"abandoned"}
                assert still_running() == asked * len(named)
                assert await counted(world) == asked * len(named)
        finally:
            stubborn.released.set()
        await until(lambda: still_running() == 0)
        assert await counted(world) == 0
        await world.whole()


async def counted(world: ReportSystem) -> float:
    text = (await world.get("/metrics")).text
    (line,) = (line for line in text.splitlines() if line.startswith("cotacoes_branches_abandoned "))
    return float(line.split()[1])


@pytest.mark.parametrize("header", [b"", b"X-Deadline-Ms: 25000\r\n"], ids=["shared", "hurried"])
async def test_no_work_continues_for_a_client_that_hangs_up(shards: Shards, tmp_path: Path, header: bytes) -> None:
    async with ReportSystem(shards, tmp_path, deadline_s=FOR_EVER_S).running() as world:
        await world.whole()
        for proxy in world.proxies.values():
            proxy.freeze()
        async with hanging_up(world, header):
            await until(lambda: all(proxy.held for proxy in world.proxies.values()))
            assert work() > 0
        await until(lambda: work() == 0)
        for proxy in world.proxies.values():
            proxy.thaw()
        await no_queries(shards)
        await world.whole()


async def test_a_client_that_hangs_up_takes_nothing_from_another_with_the_same_question(
    shards: Shards, tmp_path: Path
) -> None:
    async with ReportSystem(shards, tmp_path, deadline_s=FOR_EVER_S).running() as world:
        await world.whole()
        proxy = world.proxies["shard1"]
        proxy.freeze()
        async with hanging_up(world):
            await until(lambda: proxy.held > 0)
            other = asyncio.create_task(world.get())
            await asyncio.sleep(0.1)  # it boards the flight
        await asyncio.sleep(0.1)  # the service notices the hang-up
        proxy.thaw()
        assert world.read(await other) == {}


async def test_a_query_that_waits_for_a_client_that_hung_up_ends_by_the_deadline(
    shards: Shards, tmp_path: Path
) -> None:
    """A server that waits for a lock does not notice that its client hung up."""
    admin = Session("shard1", shards.admin[0], connect_s=BOUND_S, deadline_s=BOUND_S)
    async with ReportSystem(shards, tmp_path, deadline_s=2.0).running() as world, admin, admin.transaction():
        await world.whole()
        await admin.execute("LOCK TABLE fence IN ACCESS EXCLUSIVE MODE")
        async with hanging_up(world), asyncio.timeout(BOUND_S):
            while not await queries(shards):
                await asyncio.sleep(0.01)
        await until(lambda: work() == 0)
        await no_queries(shards)


@contextlib.asynccontextmanager
async def hanging_up(world: ReportSystem, header: bytes = b"") -> AsyncIterator[None]:
    """A client that asks for a report and hangs up at the end."""
    _, writer = await connect(world.port)
    writer.write(f"GET {ALL} HTTP/1.1\r\nHost: x\r\n".encode() + header + b"Cache-Control: no-cache\r\n\r\n")
    try:
        yield
    finally:
        writer.transport.abort()


async def test_a_crowd_gets_answers_in_time_despite_a_frozen_shard_and_leaves_nothing_behind(
    shards: Shards, tmp_path: Path
) -> None:
    async with ReportSystem(shards, tmp_path, deadline_s=CROWD_DEADLINE_S).running() as world:
        await world.whole()
        before = await left(world)
        await asyncio.gather(
            *(world.get(f"{ALL}&last={last}") for last in range(1, DISTINCT + 1))
        )  # the pools are full
        frozen = world.proxies["shard2"]
        frozen.freeze()
        async with world.asking():
            await asyncio.gather(*(ask_as(number, world) for number in range(CROWD)))
        frozen.thaw()
        await until(lambda: work() == 0)
        await world.whole()
        for part, most in {"shard1": CONNECTIONS_MAX, "shard2": CONNECTIONS_MAX, "quote_service": HTTP_MAX}.items():
            await until(lambda part=part, most=most: world.proxies[part].links <= most)  # type: ignore[misc]
        async with asyncio.timeout(BOUND_S):
            while max(await connections(shards)) > CONNECTIONS_MAX:
                await asyncio.sleep(0.05)
            while any(now > then for now, then in zip(await left(world), before, strict=True)):
                await asyncio.sleep(0.05)
        await world.whole()


async def ask_as(number: int, world: ReportSystem) -> None:
    """Ask as one of a crowd; what is missing beside the frozen shard was late."""
    last = number % DISTINCT + 1
    is_hurried = number < HURRIED
    headers = {"x-deadline-ms": str(HURRIED_MS + number)} if is_hurried else {}
    answer = await world.get(f"{ALL}&last={last}", headers=headers)
    if is_hurried and answer.status_code == DeadlineExceededError.status:  # an answer in time, without a report
        return
    missing = world.read(answer, last)
    assert "shard2" in missing
    assert set(missing.values()) <= OUT_OF_TIME


async def left(world: ReportSystem) -> tuple[int, int]:
    """How many tasks and open files there are, once every connection that is seen is cut.

    An HTTP client notices only when it asks again that those at rest were cut: so it does, once.
    """
    await cut(world)
    await world.get("/report/full?parts=pending")
    await cut(world)
    return len(asyncio.all_tasks()), psutil.Process().num_fds()


async def cut(world: ReportSystem) -> None:
    async with asyncio.timeout(BOUND_S):
        while any(proxy.links for proxy in world.proxies.values()):
            for proxy in world.proxies.values():
                proxy.reset()
            await asyncio.sleep(0.02)


def work() -> int:
    """The number of branches and flights of reports."""
    kinds = {"_Gathering._ask", "SingleFlight._fly"}
    return len([task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") in kinds])


async def connections(shards: Shards, which: str = "") -> list[int]:
    """The number of connections of the aggregator to each shard, as the shard sees it."""
    sql = f"SELECT count(*) {OF_READERS} {which}"
    return [int(count) for count in await asyncio.gather(*(asyncio.to_thread(psql, dsn, sql) for dsn in shards.admin))]


async def queries(shards: Shards) -> int:
    """The number of queries that the aggregator has under way."""
    return sum(await connections(shards, "AND state = 'active'"))


async def no_queries(shards: Shards) -> None:
    async with asyncio.timeout(BOUND_S):
        while await queries(shards):
            await asyncio.sleep(0.05)
