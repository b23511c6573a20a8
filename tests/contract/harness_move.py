"""A coin that moves between three shards, and its writer, for the tests of the move."""

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.contract.conftest import Placed, psql
from tests.harness_agreements import agreement_of

from cotacoes.adapters.postgres.moving_shard import PostgresMovingShard
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin.copies import LIMITS, MoveLimits
from cotacoes.admin.copying import MoveProgress, OnStep
from cotacoes.admin.move import Mover
from cotacoes.admin.purge import purge
from cotacoes.errors import CoinMovedError, FenceClosedError
from cotacoes.model.candle import INTERVALS, candles_of
from cotacoes.model.quote import Quote, QuoteJson, first_gap
from cotacoes.model.window import WINDOWS, Window, window_of
from cotacoes.patterns.sharding.moving import MovingShard
from cotacoes.patterns.sharding.shard import Home, Shard, Stored
from cotacoes.testing.memory_move import MemoryMovingShard
from cotacoes.testing.memory_shard import MemoryShard

COIN = "bitcoin"
NAMES = ("shard1", "shard2", "shard3")
START = datetime(2026, 11, 20, 22, tzinfo=UTC)
ALWAYS = (START - timedelta(days=9), START + timedelta(days=99))


class KilledError(BaseException):
    """Stands for a kill of the mover: no error handler of this project catches it."""


async def nothing(step: str, progress: MoveProgress) -> None:
    """Do nothing after a step."""


@dataclass
class ThreeShards:
    """Three shards as services see them; `connect` opens an administrator's connections to them."""

    shards: dict[str, Shard]
    connect: Callable[[], contextlib.AbstractAsyncContextManager[dict[str, MovingShard]]]
    dsns: dict[str, str] = field(default_factory=dict)
    limits: MoveLimits = LIMITS

    async def move(self, to: str, on_step: OnStep = nothing, *, abort: bool = False) -> MoveProgress:
        """Move the coin as the command does, with connections of its own."""
        async with self.connect() as shards:
            away = set(NAMES) - set(shards)
            mover = Mover(
                COIN, shards, away, random=random.Random(1), clock=time.monotonic, on_step=on_step, limits=self.limits
            )
            return await (mover.abort(to) if abort else mover.move(to))

    async def purge(self, grace: timedelta = timedelta(0)) -> tuple[int, list[str]]:
        said: list[str] = []

        async def say(line: str) -> None:
            said.append(line)

        async with self.connect() as shards:
            return await purge(COIN, shards, set(NAMES) - set(shards), grace=grace, say=say, limits=self.limits), said

    async def state(self, shard: str) -> str:
        async with self.connect() as shards:
            copy = await shards[shard].copy(COIN)
        return "none" if copy is None else copy.state

    async def directory(self) -> tuple[str, int]:
        home = (await self.shards["shard1"].directory()).homes[COIN]
        return home.shard, home.placement


def in_memory() -> ThreeShards:
    shards = {name: MemoryShard(name, [COIN] if name == "shard1" else []) for name in NAMES}
    shards["shard1"].homes[COIN] = Home(1, "shard1", 1)

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[dict[str, MovingShard]]:
        connections = {name: MemoryMovingShard(shard, COIN) for name, shard in shards.items() if not shard.away}
        try:
            yield dict(connections)
        finally:
            for connection in connections.values():
                connection.end()

    return ThreeShards(dict(shards), connect)


@contextlib.asynccontextmanager
async def on_postgres(placed: Placed) -> AsyncIterator[ThreeShards]:
    first, second = placed(f"{COIN}:shard1")
    _, third = placed(f"{COIN}:shard1")  # a shard on which nothing lives is like any other
    dsns = dict(zip(NAMES, (first, second, third), strict=True))
    psql(third, "UPDATE identity SET name = 'shard3'")
    psql(dsns["shard1"], f"INSERT INTO shard (name, dsn) VALUES ('shard3', '{dsns['shard3']}')")

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[dict[str, MovingShard]]:
        async with contextlib.AsyncExitStack() as stack:
            yield {name: await stack.enter_async_context(PostgresMovingShard(name, dsns[name])) for name in NAMES}

    async with contextlib.AsyncExitStack() as stack:
        shards: dict[str, Shard] = {
            name: await stack.enter_async_context(PostgresShard(name, dsns[name], deadline_s=5.0)) for name in NAMES
        }
        yield ThreeShards(shards, connect, dsns)


class Writer:
    """A writer like quote_service: it delivers in order what it records, later or to another shard if needed."""

    def __init__(
        self, world: ThreeShards, *, epoch: int = 5, log: Sequence[Quote] = (), every: timedelta | None = None
    ) -> None:
        self.world = world
        self.log = list(log)
        self.shard = "shard1"
        self.placement: int | None = None
        self._epoch = epoch
        self._every = every or timedelta(seconds=601)

    def record(self, count: int) -> None:
        for _ in range(count):
            before = self.log[-1] if self.log else None
            is_first = before is None or before.epoch != self._epoch
            seq = 1 if before is None or is_first else before.seq + 1
            at = START if before is None else before.at + self._every
            number = len(self.log)
            self.log.append(
                Quote(
                    COIN,
                    "USD" if number % 11 else "EUR",
                    Decimal(f"{67000 + number * 7919 % 1000}.{number % 7}0"),
                    self._epoch,
                    seq,
                    at - timedelta(milliseconds=3),
                    at,
                    "sim" if number % 5 else "replay:x",
                    before.position if before is not None and is_first else None,
                    agreement_of(number // 60),
                )
            )

    def begin_epoch(self) -> None:
        self._epoch += 1
        self.placement = None

    async def deliver(self) -> bool:
        """Deliver the log; False if the fence is closed."""
        for _ in range(5):
            try:
                await self._deliver()
            except FenceClosedError:
                self.placement = None
                return False
            except CoinMovedError as moved:
                self.placement = None
                self.shard = moved.to or (await self.world.directory())[0]
            else:
                return True
        raise AssertionError("no shard takes the quotes")

    async def _deliver(self) -> None:
        shard = self.world.shards[self.shard]
        if self.placement is None:
            self.placement = (await shard.become_writer(COIN, self._epoch, "a")).placement
        through = (await shard.fence(COIN)).through
        due = [quote for quote in self.log if through is None or quote.position > through]
        for first in range(0, len(due), 50):
            await shard.append(COIN, self.placement, self._epoch, due[first : first + 50])


async def filled(world: ThreeShards, *, days: int = 4) -> Writer:
    """Some days of quotes of several origins, in three epochs, with conflicts."""
    writer = Writer(world)
    for _ in range(3):
        writer.record(48 * days)
        await writer.deliver()
        assert writer.placement is not None
        wrong = [_dearer(quote) for quote in writer.log[-9:-6]]
        stored = await world.shards["shard1"].append(COIN, writer.placement, writer.log[-1].epoch, wrong)
        assert stored == Stored(0, conflicts=3)
        writer.begin_epoch()
    writer.record(20)
    await writer.deliver()
    return writer


def _dearer(quote: Quote) -> Quote:
    fields = QuoteJson.from_quote(quote)
    return QuoteJson(**{name: getattr(fields, name) for name in fields.__struct_fields__} | {"price": "99.5"}).quote()


async def check(world: ThreeShards, log: Sequence[Quote], at: str, *, conflicts: int | None = None) -> None:
    """Check that a shard holds the log once, in order, with its candles and windows, and that no other shard does."""
    shard = world.shards[at]
    held = await shard.after(COIN, None, 10**6)
    assert [QuoteJson.from_quote(quote) for quote in held] == [QuoteJson.from_quote(quote) for quote in log]
    assert first_gap(held, None) is None
    fence = await shard.fence(COIN)
    assert (fence.newest, fence.floor) == (log[-1], log[0].position)
    for kind in {(quote.origin, quote.currency) for quote in log}:
        ours = [quote for quote in log if (quote.origin, quote.currency) == kind]
        for minutes in INTERVALS.values():
            assert (await shard.candles(COIN, minutes, *ALWAYS, 10**6, kind)).candles == candles_of(ours, minutes)
    for length in WINDOWS:
        window = Window.until(length, log[-1].at + timedelta(minutes=1))
        assert (await shard.newest([COIN], 1, window))[COIN].window == window_of(log, window)
    for name, other in world.shards.items():
        if name != at:
            with pytest.raises(CoinMovedError):
                await other.after(COIN, None, 1)
            assert await other.newest([COIN], 1) == {}
    if conflicts is not None:
        async with world.connect() as shards:
            assert (await shards[at].aside_count(1)).conflicts == conflicts


def killed_after(number: int) -> OnStep:
    """Kill the mover after so many steps."""
    left = [number]

    async def kill(step: str, _: MoveProgress) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError(step)

    return kill


def killed_at(wanted: str) -> OnStep:
    async def kill(step: str, _: MoveProgress) -> None:
        if step == wanted:
            raise KilledError(step)

    return kill
