"""In any interleaving a moved coin's history is whole: nothing lost, nothing doubled, no read too short.

The model is the log, a list. What is done to the shards in memory at random: writing, delivering as quote_service does,
replaying, reading, a mover that is stopped or killed before and after every single call that it makes, shards that go
away and come back, a writer that takes over, aborts and purges. What the shards hold must be what the list says.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.unit.fake_event_loop import VirtualTimeLoop

from cotacoes.admin.copies import MoveLimits
from cotacoes.admin.copying import MoveProgress
from cotacoes.admin.move import Mover
from cotacoes.admin.purge import purge
from cotacoes.errors import (
    CoinMovedError,
    FenceClosedError,
    SettingError,
    ShardRefusedError,
    ShardUnavailableError,
)
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.sharding.shard import Stored
from cotacoes.testing.memory_move import MemoryMovingShard
from cotacoes.testing.memory_shard import MemoryCopy, MemoryShard

COIN = "bitcoin"
NAMES = ("shard1", "shard2", "shard3")
START = datetime(2026, 11, 24, 23, 50, tzinfo=UTC)
BATCH_QUOTES = 3
RULES_MAX = 60

T = TypeVar("T")
Admin = Callable[[Mover], Awaitable[MoveProgress]]


LIMITS = MoveLimits(
    page_quotes=4, sample_quotes=2, rest_quotes=3, rounds=3, claim_tries=1, claim_wait_s=0.0, purge_quotes=4
)


class KilledError(BaseException):
    """Stands for a kill of the mover."""


class Gate:
    """Holds a task at every `pass_through` until it is released to the next one or killed there."""

    def __init__(self) -> None:
        self._goes_on = asyncio.Event()
        self._holds = asyncio.Event()
        self._is_killed = False

    async def pass_through(self) -> None:
        if self._is_killed:
            raise KilledError
        self._holds.set()
        await self._goes_on.wait()
        self._goes_on.clear()
        if self._is_killed:
            raise KilledError

    async def let_on(self, task: asyncio.Task[Any], *, kill: bool = False) -> None:
        """Return once the task is held again or done."""
        self._is_killed = kill
        self._holds.clear()
        self._goes_on.set()
        holding = asyncio.ensure_future(self._holds.wait())
        await asyncio.wait([task, holding], return_when=asyncio.FIRST_COMPLETED)
        holding.cancel()


class GatedShard:
    """A mover's connection, with a gate before and after every call."""

    def __init__(self, shard: MemoryMovingShard, gate: Gate) -> None:
        self.name = shard.name
        self.shard = shard
        self._gate = gate

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        call = getattr(self.shard, name)

        async def gated(*arguments: Any) -> Any:
            await self._gate.pass_through()
            answer = await call(*arguments)
            await self._gate.pass_through()
            return answer

        return gated


def listed(first: MemoryShard) -> str:
    """The shard that the directory names."""
    return first.homes[COIN].shard if COIN in first.homes else "shard1"


class Delivery:
    """One writer's delivery to the shards, as quote_service does it, from the model's log."""

    def __init__(self, shards: dict[str, MemoryShard], epoch: int, name: str, shard: str) -> None:
        self.shards = shards
        self.epoch = epoch
        self.name = name
        self.shard = shard
        self.placement: int | None = None
        self.delivered: Position | None = None
        self.sent: list[tuple[int, list[Quote]]] = []

    async def deliver(self, log: list[Quote], batches: int) -> None:
        for _ in range(batches):
            try:
                await self._deliver_one(log)
            except CoinMovedError as moved:
                self.placement = None
                self.shard = moved.to or listed(self.shards["shard1"])
            except (FenceClosedError, ShardUnavailableError):
                self.placement = None

    async def _deliver_one(self, log: list[Quote]) -> None:
        shard = self.shards[self.shard]
        if self.placement is None:
            fence = await shard.become_writer(COIN, self.epoch, self.name)
            known = (self.delivered, fence.through)
            self.delivered = None if None in known else min(filter(None, known))
            self.placement = fence.placement
        batch = [one for one in log if self.delivered is None or one.position > self.delivered][:BATCH_QUOTES]
        if batch:
            await shard.append(COIN, self.placement, self.epoch, batch)
            self.delivered = batch[-1].position
            self.sent.append((self.placement, batch))


class MoveModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)  # the pauses of a copy cost nothing
        self.shards = {name: MemoryShard(name, [COIN] if name == "shard1" else []) for name in NAMES}
        self.log: list[Quote] = []
        self.seen = 0
        self.writer = Delivery(self.shards, 1, "a", "shard1")
        self.older: list[Delivery] = []
        self.mover: asyncio.Task[MoveProgress] | None = None
        self.gate = Gate()
        self.connections: list[MemoryMovingShard] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @rule(count=st.integers(1, 6), minutes=st.sampled_from([0, 1, 30, 900]))
    def write(self, count: int, minutes: int) -> None:
        for _ in range(count):
            before = self.log[-1] if self.log else None
            is_first = before is None or before.epoch != self.writer.epoch
            at = START if before is None else before.at + timedelta(minutes=minutes)
            prev = before.position if before is not None and is_first else None
            seq = 1 if before is None or is_first else before.seq + 1
            price = Decimal(f"{100 + len(self.log) * 7919 % 100}.10")
            self.log.append(Quote(COIN, "USD", price, self.writer.epoch, seq, at, at, "sim", prev))

    @rule(batches=st.integers(1, 4))
    def deliver(self, batches: int) -> None:
        self.run(self.writer.deliver(self.log, batches))

    @rule()
    def take_over(self) -> None:
        """Another process takes over the log; the one before it still believes that it is the writer."""
        self.older.append(self.writer)
        self.writer = Delivery(self.shards, self.writer.epoch + 1, f"writer {len(self.older)}", self.writer.shard)

    @precondition(lambda self: self.older)
    @rule(choice=st.randoms(use_true_random=False), is_new=st.booleans())
    def older_writer(self, choice: random.Random, is_new: bool) -> None:
        """It delivers quotes of its own: every shard that knows the newer writer refuses them."""
        old = choice.choice(self.older)
        if not any(copy.writer_epoch > old.epoch for copy in self.homes()):
            return
        made_up = Quote(COIN, "USD", Decimal(1), old.epoch, 999, START, START + timedelta(days=9), "sim")
        shard = self.shards[old.shard]

        async def send() -> None:
            with pytest.raises((ShardRefusedError, ShardUnavailableError)):
                if old.placement is None or is_new:
                    await shard.become_writer(COIN, old.epoch, old.name)
                else:
                    await shard.append(COIN, old.placement, old.epoch, [made_up])

        self.run(send())

    @rule(choice=st.randoms(use_true_random=False))
    def replay(self, choice: random.Random) -> None:
        """A batch arrives late and once more at any shard."""
        writer = choice.choice([self.writer, *self.older])
        if not writer.sent:
            return
        placement, batch = choice.choice(writer.sent)

        async def send() -> None:
            with contextlib.suppress(ShardRefusedError, ShardUnavailableError):
                stored = await self.shards[choice.choice(NAMES)].append(COIN, placement, writer.epoch, batch)
                assert stored == Stored(0, already=len(batch))

        self.run(send())

    @rule()
    def read(self) -> None:
        """A reader that follows the fences sees the exact beginning of the log, and never less than before."""
        self.run(self._read())

    async def _read(self) -> None:
        shard = listed(self.shards["shard1"])
        for _ in range(2 * len(NAMES)):
            try:
                held = await self.shards[shard].after(COIN, None, 10**6)
                newest = (await self.shards[shard].newest([COIN], 2))[COIN]
            except CoinMovedError as moved:
                if moved.to is None:
                    return  # the directory is behind, which is written after the fences
                shard = moved.to
            except ShardUnavailableError:
                return
            else:
                assert held == self.log[: len(held)]
                assert newest.quotes == held[-2:]
                assert len(held) >= self.seen
                self.seen = len(held)
                return
        raise AssertionError("the fences send a reader around in circles")

    @precondition(lambda self: self.mover is None)
    @rule(to=st.sampled_from(NAMES), abort=st.sampled_from([False, False, False, True]))
    def begin(self, to: str, abort: bool) -> None:
        self.gate = Gate()
        self.connections = [MemoryMovingShard(shard, COIN) for shard in self.shards.values()]
        gated = {shard.name: GatedShard(shard, self.gate) for shard in self.connections}
        mover = Mover(COIN, gated, (), random=random.Random(1), clock=lambda: 0.0, on_step=_nothing, limits=LIMITS)

        async def start() -> None:
            self.mover = asyncio.ensure_future(mover.abort(to) if abort else mover.move(to))
            await self.gate.let_on(self.mover)

        self.run(start())
        self._look_at_mover()

    @precondition(lambda self: self.mover is not None)
    @rule(calls=st.integers(1, 12))
    def go_on(self, calls: int) -> None:
        for _ in range(calls):
            if self.mover is not None:
                self.run(self.gate.let_on(self.mover))
                self._look_at_mover()

    @precondition(lambda self: self.mover is not None)
    @rule()
    def go_on_to_the_next_state(self) -> None:
        """Continue until a fence has changed: these are the moments that matter."""
        before = self.states()
        while self.mover is not None and self.states() == before:
            self.go_on(1)

    @precondition(lambda self: self.mover is not None)
    @rule(calls=st.integers(1, 60), every=st.integers(1, 7))
    def go_on_while_it_is_written_and_read(self, calls: int, every: int) -> None:
        for number in range(calls):
            self.go_on(1)
            if number % every == 0:
                self.write(1, 1)
                self.deliver(2)
                self.read()

    def states(self) -> list[tuple[str, int] | None]:
        copies = [shard.copies.get(COIN) for shard in self.shards.values()]
        return [None if copy is None else (copy.state, copy.placement) for copy in copies]

    @precondition(lambda self: self.mover is not None)
    @rule()
    def kill(self) -> None:
        assert self.mover is not None
        while self.mover is not None:  # once more if two calls were under way
            self.run(self.gate.let_on(self.mover, kill=True))
            self._look_at_mover()

    def _look_at_mover(self) -> None:
        if self.mover is not None and self.mover.done():
            error = self.mover.exception()
            assert error is None or isinstance(error, KilledError | SettingError | ShardUnavailableError), error
            self.mover = None
            for connection in self.connections:
                connection.end()

    def admin(self, work: Callable[[dict[str, Any]], Coroutine[Any, Any, object]]) -> None:
        """Another administrator, who is not held and may be refused."""
        connections = {name: MemoryMovingShard(shard, COIN) for name, shard in self.shards.items()}
        try:
            with contextlib.suppress(SettingError, ShardUnavailableError):
                self.run(work(dict(connections)))
        finally:
            for connection in connections.values():
                connection.end()

    @rule(to=st.sampled_from(NAMES), abort=st.booleans())
    def move_at_once(self, to: str, abort: bool) -> None:
        """A whole move or an abort, refused while a mover is at work."""

        def move(shards: dict[str, Any]) -> Coroutine[Any, Any, MoveProgress]:
            mover = Mover(COIN, shards, (), random=random.Random(1), clock=lambda: 0.0, on_step=_nothing, limits=LIMITS)
            return mover.abort(to) if abort else mover.move(to)

        self.admin(move)

    @rule()
    def purge(self) -> None:
        self.admin(lambda shards: purge(COIN, shards, (), grace=timedelta(0), say=_unsaid, limits=LIMITS))

    @rule(name=st.sampled_from(NAMES), is_long=st.sampled_from([False, False, True]))
    def away(self, name: str, is_long: bool) -> None:
        for shard in self.shards.values():
            shard.away = shard.name == name
        if not is_long:
            self.deliver(1)
            self.go_on_if_there_is_a_mover()
            self.back()

    def go_on_if_there_is_a_mover(self) -> None:
        if self.mover is not None:
            self.go_on(2)

    @rule()
    def back(self) -> None:
        for shard in self.shards.values():
            shard.away = False

    def homes(self) -> list[MemoryCopy]:
        here = [shard.copies[COIN] for shard in self.shards.values() if COIN in shard.copies]
        return [copy for copy in here if copy.state in ("open", "closed")]

    @invariant()
    def a_home_holds_the_beginning_of_the_log_and_there_is_one_that_takes_quotes(self) -> None:
        homes = sorted(self.homes(), key=lambda copy: copy.placement)
        assert homes
        for copy in homes:
            assert list(copy.quotes.values()) == self.log[: len(copy.quotes)]
            for minutes in (1, 60):
                counts = [candle.count for (stored, *_), candle in copy.candles.items() if stored == minutes]
                assert sum(counts) == len(copy.quotes)
        assert [copy.state for copy in homes[:-1]] in ([], ["closed"])  # two until the source is left
        # a source that is away at that moment is left later, and meanwhile the new home goes on
        assert all(len(copy.quotes) <= len(homes[-1].quotes) for copy in homes)

    def teardown(self) -> None:
        try:
            self.back()
            if self.mover is not None:
                self.kill()
            for abort in (False, True, False):  # two moves may be under way: one was given up while its target was away
                for to in NAMES:
                    self.move_at_once(to, abort)
            self.run(self.writer.deliver(self.log, len(self.log) + 5))
            self.purge()
            self.read()
            (home,) = self.homes()
            assert home.state == "open"
            assert list(home.quotes.values()) == self.log, "lost or doubled"
            assert self.seen == len(self.log)
            assert not home.conflicts
            assert [COIN in shard.copies for shard in self.shards.values()].count(True) == 1
        finally:
            self.runner.close()


async def _nothing(step: str, progress: MoveProgress) -> None:
    """Do nothing: the gates hold the mover, not its steps."""


async def _unsaid(line: str) -> None:
    """Ignore the line."""


def test_the_new_home_takes_quotes_before_a_source_that_is_away_is_left() -> None:
    model = MoveModel()
    try:
        model.move_at_once(to="shard2", abort=False)
        model.begin(to="shard1", abort=False)
        for _ in range(3):
            model.go_on_to_the_next_state()
        model.write(count=1, minutes=0)
        model.go_on_to_the_next_state()
        model.away(name="shard2", is_long=False)
        source, home = sorted(model.homes(), key=lambda copy: copy.placement)
        assert (source.state, home.state) == ("closed", "open")
        assert (list(source.quotes.values()), list(home.quotes.values())) == ([], model.log)
    finally:
        model.teardown()  # holds that nothing is lost


@pytest.mark.timeout(600)  # takes a few seconds, but a failure is minimised first
@pytest.mark.slow
def test_random_interleavings_lose_nothing_and_double_nothing() -> None:
    run_state_machine_as_test(
        MoveModel, settings=settings(max_examples=150, stateful_step_count=RULES_MAX, deadline=None)
    )
