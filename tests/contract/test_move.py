"""A coin moves, in memory or on PostgreSQL: nothing is lost and nothing doubled, whatever happens on the way."""

import contextlib
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.contract.conftest import psql
from tests.contract.harness_move import (
    COIN,
    KilledError,
    ThreeShards,
    Writer,
    check,
    filled,
    in_memory,
    killed_after,
    killed_at,
    on_postgres,
)

from cotacoes.admin.copies import MoveLimits, compare_left
from cotacoes.admin.copying import MoveProgress
from cotacoes.admin.purge import GRACE
from cotacoes.errors import CoinMovedError, CopyRefusedError, SettingError, ShardUnavailableError
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.moving import AsideCount
from cotacoes.patterns.sharding.shard import Unaccepted
from cotacoes.testing.memory_shard import MemoryShard


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[ThreeShards]:
    if request.param == "memory":
        yield in_memory()
        return
    async with on_postgres(request.getfixturevalue("placed")) as world:
        yield world


async def test_a_coin_moves_with_everything_stored_of_it(world: ThreeShards) -> None:
    writer = await filled(world)
    progress = await world.move("shard2")
    assert progress.copied == progress.verified == len(writer.log)
    assert progress.closed_s is not None
    await check(world, writer.log, "shard2", conflicts=9)
    assert await world.directory() == ("shard2", 2)
    with pytest.raises(CoinMovedError) as moved:
        await world.shards["shard1"].fence(COIN)
    assert (moved.value.to, moved.value.placement) == ("shard2", 2)


async def test_holes_and_orphans_move_too_whether_accepted_or_not(world: ThreeShards) -> None:
    """The hole lies in an epoch; of the orphans of another origin some are accepted and others come later."""
    writer = await filled(world)
    shard, last = world.shards["shard1"], writer.log[-1]
    lost = [replace(last, epoch=last.epoch - 1, seq=1_000 + n, origin="replay:lost", prev=None) for n in range(3)]
    behind = replace(last, seq=last.seq + 40, at=last.at + timedelta(minutes=1))
    assert writer.placement is not None
    await shard.append(COIN, writer.placement, last.epoch, [*lost[:2], behind], end=last.position)
    if isinstance(shard, MemoryShard):
        shard.accept(COIN)
    else:
        psql(world.dsns["shard1"], f"SELECT accept_discrepancies('{COIN}')")
    await shard.append(COIN, writer.placement, last.epoch, lost)
    async with world.connect() as shards:
        before = await shards["shard1"].aside_count(1)
        assert before == AsideCount(conflicts=9, orphans=3, holes=1, accepted=3)
        await world.move("shard2")
        assert await shards["shard2"].aside_count(1) == before
    there = world.shards["shard2"]
    assert await there.unaccepted() == {COIN: Unaccepted(holes=0, orphans=1)}
    assert await there.after(COIN, last.position, 10) == [behind]
    await world.move("shard1")
    assert await world.shards["shard1"].unaccepted() == {COIN: Unaccepted(holes=0, orphans=1)}


async def test_the_writer_follows_the_coin_and_an_older_writer_is_refused_there(world: ThreeShards) -> None:
    writer = await filled(world)
    await world.move("shard2")
    writer.record(9)
    assert await writer.deliver()
    await check(world, writer.log, "shard2")
    fence = await world.shards["shard2"].fence(COIN)
    assert (fence.placement, fence.writer_epoch) == (2, writer.log[-1].epoch)


async def test_a_coin_without_a_quote_moves_too(world: ThreeShards) -> None:
    await world.move("shard2")
    writer = Writer(world)
    writer.record(3)
    assert await writer.deliver()
    await check(world, writer.log, "shard2")


async def test_moving_a_coin_there_and_back_and_further_changes_nothing(world: ThreeShards) -> None:
    writer = await filled(world)
    for placement, to in enumerate(("shard2", "shard1", "shard3", "shard1", "shard3"), start=2):
        assert (await world.move(to)).copied == len(writer.log)
        writer.record(7)
        assert await writer.deliver()
        await check(world, writer.log, to, conflicts=9)
        assert await world.directory() == (to, placement)


async def test_a_move_to_the_coins_own_shard_only_updates_the_directory(world: ThreeShards) -> None:
    writer = await filled(world)
    await world.move("shard2")
    again = await world.move("shard2")
    assert (again.copied, again.closed_s) == (0, None)
    await check(world, writer.log, "shard2")


@pytest.fixture
def small_pages(world: ThreeShards) -> None:
    world.limits = MoveLimits(page_quotes=200)


@pytest.mark.usefixtures("small_pages")
async def test_a_move_killed_after_any_step_continues_when_run_again(world: ThreeShards) -> None:
    """The coin moves from shard to shard, killed one step later each time, while the writer continues."""
    writer = await filled(world)
    kills = 0
    for to in ("shard2", "shard1") * 50:
        try:
            await world.move(to, killed_after(kills))
        except KilledError:
            kills += 1
            writer.record(2)
            await writer.deliver()
            await world.move(to)
        else:
            break
        assert await writer.deliver()
        await check(world, writer.log, to, conflicts=9)
    assert kills >= 12


@pytest.mark.usefixtures("small_pages")
async def test_a_move_killed_after_any_step_can_be_aborted_until_the_target_is_open(world: ThreeShards) -> None:
    writer = await filled(world)
    home, to = "shard1", "shard2"
    steps: list[str] = []
    while steps[-1:] != ["placed"]:
        with pytest.raises(KilledError) as killed:
            await world.move(to, killed_after(len(steps)))
        steps.append(str(killed.value))
        writer.record(2)
        await writer.deliver()
        if steps[-1] in ("opened", "left", "placed"):
            with pytest.raises(SettingError, match="already"):
                await world.move(to, abort=True)
            await world.move(to)
            home, to = to, home
            assert await world.purge() == (1, [f"bitcoin on {to} is deleted; it lives on {home}"])
        elif steps[-1] == "claimed":
            with pytest.raises(SettingError, match="no move"):
                await world.move(to, abort=True)
        else:
            await world.move(to, abort=True)
        assert (await world.state(to), await world.state(home)) == ("none", "open")
        assert await writer.deliver()
        await check(world, writer.log, home, conflicts=9)
    assert steps[-4:] == ["finished", "opened", "left", "placed"]


@pytest.mark.usefixtures("small_pages")
async def test_an_abort_killed_after_any_step_is_completed_by_another_abort_or_by_a_move(world: ThreeShards) -> None:
    writer = await filled(world)
    for kills in range(3):
        for again in (True, False):
            home, to = ("shard1", "shard2") if await world.state("shard1") == "open" else ("shard2", "shard1")
            with pytest.raises(KilledError):
                await world.move(to, killed_at("closed"))
            with pytest.raises(KilledError):
                await world.move(to, killed_after(kills), abort=True)
            if again:
                with contextlib.suppress(SettingError):  # nothing was left to do
                    await world.move(to, abort=True)
                assert await world.state(home) == "open"
                assert await world.state(to) == "none"
            else:
                await world.move(to)
                home = to
            writer.record(2)
            assert await writer.deliver()
            await check(world, writer.log, home, conflicts=9)


@pytest.mark.usefixtures("small_pages")
async def test_a_move_to_another_shard_names_the_killed_move_that_must_be_finished_first(world: ThreeShards) -> None:
    writer = await filled(world)
    for step in ("begun", "copied", "closed", "finished"):
        with pytest.raises(KilledError):
            await world.move("shard2", killed_at(step))
        with pytest.raises(SettingError, match="--abort"):
            await world.move("shard3")
        with pytest.raises(SettingError, match="goes to shard2"):
            await world.move("shard3", abort=True)
    with pytest.raises(KilledError):
        await world.move("shard2", killed_at("opened"))
    with pytest.raises(SettingError, match="--to shard2"):
        await world.move("shard3")
    await world.move("shard2")
    await world.move("shard3")
    assert await writer.deliver()
    await check(world, writer.log, "shard3", conflicts=9)


@pytest.mark.usefixtures("small_pages")
async def test_the_writer_continues_at_every_step_and_waits_only_while_the_fence_is_closed(world: ThreeShards) -> None:
    writer = await filled(world)
    waited: list[str] = []

    async def write(step: str, _: MoveProgress) -> None:
        if writer.log[-1].seq % 3 == 0:
            writer.begin_epoch()
        writer.record(3)
        if not await writer.deliver():
            waited.append(step)
        shard = "shard1" if step not in ("left", "placed") else "shard2"
        held = await world.shards[shard].after(COIN, None, 10**6)
        assert held == writer.log[: len(held)]  # never short of what was delivered, and never anything else
        assert len(held) >= len(writer.log) - 3 * len(waited) * (shard == "shard1")

    await world.move("shard2", write)
    assert set(waited) == {"closed", "copied", "verified", "finished", "opened"}
    assert await writer.deliver()
    await check(world, writer.log, "shard2", conflicts=9)


async def test_a_writer_as_fast_as_the_mover_does_not_delay_the_end_for_ever(world: ThreeShards) -> None:
    world.limits = MoveLimits(rest_quotes=5, rounds=4)
    writer = Writer(world)
    writer.record(50)
    await writer.deliver()

    async def write(step: str, _: MoveProgress) -> None:
        if step == "verified":
            writer.record(20)
            await writer.deliver()

    await world.move("shard2", write)
    assert await writer.deliver()
    await check(world, writer.log, "shard2")


async def test_a_second_mover_of_the_coin_is_refused(world: ThreeShards) -> None:
    world.limits = MoveLimits(claim_tries=1, claim_wait_s=0.0)
    writer = await filled(world)
    refused = []

    async def again(step: str, _: MoveProgress) -> None:
        for abort in (False, True):
            try:
                await world.move("shard2", abort=abort)
            except SettingError as error:
                refused.append(str(error))

    await world.move("shard2", again)
    assert len(refused) >= 2 * 10
    await check(world, writer.log, "shard2")


async def test_a_copy_left_behind_is_purged_after_the_grace_and_only_once(world: ThreeShards) -> None:
    writer = await filled(world)
    await world.move("shard2")
    assert (await world.purge(GRACE))[0] == 0
    assert await world.state("shard1") == "moved"
    purged, said = await world.purge()
    assert (purged, said) == (1, ["bitcoin on shard1 is deleted; it lives on shard2"])
    assert await world.state("shard1") == "none"
    assert await world.purge() == (0, [])
    await check(world, writer.log, "shard2", conflicts=9)


async def test_a_purge_killed_at_any_point_continues_when_run_again(world: ThreeShards) -> None:
    world.limits = MoveLimits(purge_quotes=50)
    writer = await filled(world)
    await world.move("shard2")
    for steps in range(100):
        async with world.connect() as shards:
            left = await shards["shard1"].copy(COIN)
            if left is None:
                break
            await shards["shard1"].purge(left.coin_id, left.placement, 50)
        if steps % 4 == 3 and await world.state("shard1") == "moved":
            async with world.connect() as shards:
                await compare_left(left.coin_id, shards["shard1"], shards["shard2"])
        if steps == 9:
            await world.purge()
    assert await world.state("shard1") == "none"
    await check(world, writer.log, "shard2", conflicts=9)


async def test_the_home_and_a_copy_in_the_making_are_never_purged(world: ThreeShards) -> None:
    writer = await filled(world)
    with pytest.raises(KilledError):
        await world.move("shard2", killed_at("finished"))
    assert await world.purge() == (0, [])
    async with world.connect() as shards:
        for name, placement in (("shard1", 1), ("shard2", 1)):
            with pytest.raises(CopyRefusedError):
                await shards[name].purge(1, placement, 10)
    await world.move("shard2")
    await check(world, writer.log, "shard2", conflicts=9)


async def refused(step: Awaitable[None]) -> None:
    with pytest.raises(CopyRefusedError):
        await step


async def test_the_fence_refuses_a_step_out_of_order_which_changes_nothing(world: ThreeShards) -> None:
    writer = await filled(world)
    async with world.connect() as shards:
        source, target = shards["shard1"], shards["shard2"]
        home = await source.copy(COIN)
        assert home is not None
        page = await source.page(1, Position(0, 0), 100)
        await refused(source.leave(1, 1, "shard2"))  # it is not closed
        await refused(source.close(1, 2))
        await refused(source.receive(1, 1, Position(0, 0), page))
        await refused(source.begin(1, COIN, 2))
        await refused(source.give_up(1, 2))
        await refused(target.receive(1, 2, Position(0, 0), page))  # it has not begun
        await refused(target.open(1, 2, home, 0))
        await target.begin(1, COIN, 2)
        assert page.last is not None
        second = await source.page(1, page.last, 100)
        await refused(target.receive(1, 2, page.last, second))  # the first page has not come
        await refused(target.receive(1, 3, Position(0, 0), page))
        await refused(target.open(1, 2, home, len(writer.log)))
        await target.receive(1, 2, Position(0, 0), page)
        await target.receive(1, 2, Position(0, 0), page)
        await target.receive(1, 2, page.last, second)
        assert sum(day.count for day in await target.days(1)) == 200
    await check(world, writer.log, "shard1", conflicts=9)


def memory_shard(world: ThreeShards, name: str) -> MemoryShard:
    shard = world.shards[name]
    assert isinstance(shard, MemoryShard)
    return shard


async def test_a_shard_that_is_away_matters_only_if_it_may_be_the_coins_home() -> None:
    world = in_memory()
    writer = await filled(world)
    third = memory_shard(world, "shard3")
    third.away = True
    with pytest.raises(ShardUnavailableError):
        await world.move("shard3")
    with pytest.raises(KilledError):
        await world.move("shard2", killed_at("closed"))
    for abort in (False, True):
        with pytest.raises(ShardUnavailableError, match="shard3, where it may be open already"):
            await world.move("shard2", abort=abort)
    third.away = False
    await world.move("shard2", abort=True)
    third.away = True
    await world.move("shard2")
    await check(ThreeShards(dict(list(world.shards.items())[:2]), world.connect), writer.log, "shard2", conflicts=9)
    memory_shard(world, "shard2").away = True
    with pytest.raises(ShardUnavailableError, match="shard2, shard3 did not"):
        await world.move("shard1")


async def test_a_move_whose_directory_is_away_at_the_end_is_done_and_warns() -> None:
    world = in_memory()
    writer = await filled(world)
    await world.move("shard2")
    first = memory_shard(world, "shard1")

    async def unplug(step: str, _: MoveProgress) -> None:
        first.away = first.away or step == "left"

    progress = await world.move("shard3", unplug)
    assert "directory" in progress.warnings[0]
    with pytest.raises(ShardUnavailableError):
        await world.purge()  # with an old directory a second home could be made here, as the fence is gone
    assert await world.state("shard2") == "moved"
    first.away = False
    assert await world.directory() == ("shard2", 2)
    assert (await world.purge())[0] == 2
    assert await world.directory() == ("shard3", 3)  # updated before the first fence was deleted
    assert (await world.move("shard3")).warnings == []
    await check(world, writer.log, "shard3", conflicts=9)


async def test_a_target_that_goes_away_behind_the_closed_fence_leaves_the_source_open() -> None:
    world = in_memory()
    writer = await filled(world)
    second = memory_shard(world, "shard2")

    async def unplug(step: str, _: MoveProgress) -> None:
        second.away = step == "closed"

    with pytest.raises(ShardUnavailableError):
        await world.move("shard2", unplug)
    writer.record(1)
    assert await writer.deliver()
    second.away = False
    await world.move("shard2")
    await check(world, writer.log, "shard2", conflicts=9)


async def test_a_target_that_may_have_opened_leaves_the_source_closed_until_that_is_known() -> None:
    world = in_memory()
    writer = await filled(world)
    second = memory_shard(world, "shard2")

    async def unplug(step: str, _: MoveProgress) -> None:
        second.away = step == "finished"

    with pytest.raises(ShardUnavailableError, match="run the command again"):
        await world.move("shard2", unplug)
    writer.record(1)
    assert not await writer.deliver()
    second.away = False
    await world.move("shard2")
    assert await writer.deliver()
    await check(world, writer.log, "shard2", conflicts=9)
