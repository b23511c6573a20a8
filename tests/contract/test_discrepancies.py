"""Quotes that a shard cannot store or can no longer get are noted and raise an alarm; in memory and on PostgreSQL."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.contract.conftest import Placed, psql
from tests.contract.test_shard import COIN, NOON, make_quotes

from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.errors import ShardRewoundError, WriterSupersededError
from cotacoes.model.quote import Position, Quote
from cotacoes.model.window import Window
from cotacoes.patterns.sharding.shard import Shard, Stored, Unaccepted
from cotacoes.testing.memory_shard import MemoryShard

pytestmark = pytest.mark.anyio


@pytest.fixture
def homes(placed: Placed) -> tuple[str, str]:
    return placed(f"{COIN}:shard1,other:shard1")


@pytest.fixture(params=["memory", "postgres"])
async def shard(request: pytest.FixtureRequest) -> AsyncIterator[Shard]:
    if request.param == "memory":
        yield MemoryShard("shard1", [COIN, "other"])
        return
    async with PostgresShard("shard1", request.getfixturevalue("homes")[0], deadline_s=5.0) as postgres:
        yield postgres


@pytest.fixture
def noted(shard: Shard, request: pytest.FixtureRequest) -> Callable[[str], list[str]]:
    """The orphans (position, price, reason) or the holes (after, next) of the coin."""

    def read(table: str) -> list[str]:
        if isinstance(shard, MemoryShard):
            copy = shard.copies[COIN]
            if table == "orphan":
                return sorted(f"{one.position} {one.price} {reason}" for one, reason in copy.orphans.items())
            return sorted(f"{after or '-'} {behind}" for behind, after in copy.holes.items())
        columns = {
            "orphan": "concat_ws('-', epoch, seq) || ' ' || price || ' ' || reason",
            "hole": "coalesce(after_epoch || '-' || after_seq, '-') || ' ' || concat_ws('-', next_epoch, next_seq)",
        }[table]
        return psql(request.getfixturevalue("homes")[0], f"SELECT {columns} FROM {table} ORDER BY 1").splitlines()

    return read


@pytest.fixture
def accept(shard: Shard, request: pytest.FixtureRequest) -> Callable[[], None]:
    def run() -> None:
        if isinstance(shard, MemoryShard):
            shard.accept(COIN)
        else:
            psql(request.getfixturevalue("homes")[0], f"SELECT accept_discrepancies('{COIN}')")

    return run


def epoch_of(epoch: int, count: int, prev: Position | None, first: int = 1) -> list[Quote]:
    quotes = [replace(quote, prev=None) for quote in make_quotes(epoch, first, count)]
    return [replace(quotes[0], prev=prev), *quotes[1:]] if first == 1 else quotes


Send = Callable[[list[Quote], Position | None], Awaitable[Stored]]


@pytest.fixture
async def written(shard: Shard) -> Callable[..., Awaitable[Stored]]:
    """Become the writer with this epoch, and send quotes; each quote is counted once."""

    async def send(epoch: int, quotes: list[Quote], end: Position | None = None) -> Stored:
        fence = await shard.become_writer(COIN, epoch, "a")
        stored = await shard.append(COIN, fence.placement, epoch, quotes, end=end)
        assert sum(stored) == len(quotes)
        return stored

    return send


async def test_missing_quotes_before_the_end_are_refused_and_kept_aside_with_the_reason(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(6, epoch_of(6, 2, Position(5, 3)))
    cut_off = epoch_of(5, 3, None, first=4)
    assert await written(7, cut_off) == Stored(0, refused=3)
    assert noted("orphan") == [f"5-{seq} 67012.3400 superseded" for seq in (4, 5, 6)]
    assert await shard.after(COIN, None, 100) == [*epoch_of(5, 3, None), *epoch_of(6, 2, Position(5, 3))]
    assert await shard.unaccepted() == {COIN: Unaccepted(holes=0, orphans=3)}


async def test_old_new_refused_and_conflicting_quotes_of_a_batch_are_each_counted_once(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(6, epoch_of(6, 1, Position(5, 3)))
    other = replace(epoch_of(5, 1, None, first=2)[0], price=epoch_of(5, 1, None)[0].price + 1)
    batch = [*epoch_of(5, 1, None), other, *epoch_of(5, 2, None, first=4), *epoch_of(7, 2, Position(5, 5))]
    assert await written(7, batch) == Stored(2, already=1, refused=2, conflicts=1)
    assert await written(7, batch) == Stored(0, already=3, refused=2, conflicts=1)
    assert len(noted("orphan")) == 2


async def test_an_orphan_of_a_new_epoch_creates_no_epoch(
    shard: Shard, written: Callable[..., Awaitable[Stored]], homes: tuple[str, str]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(9, epoch_of(9, 1, Position(5, 3)))
    assert await written(10, epoch_of(7, 2, Position(5, 3))) == Stored(0, refused=2)
    if isinstance(shard, PostgresShard):
        assert psql(homes[0], "SELECT epoch FROM era ORDER BY 1") == "9"


async def test_an_epoch_begun_without_the_shard_follows_what_another_writer_stored_in_the_meantime(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(6, epoch_of(6, 2, Position(5, 3)))
    assert await written(7, [*epoch_of(5, 1, None, first=4), *epoch_of(7, 2, Position(5, 4))]) == Stored(2, refused=1)
    held = await shard.after(COIN, Position(6, 2), 10)
    assert [quote.before for quote in held] == [Position(6, 2), Position(7, 1)]
    assert noted("hole") == []


@pytest.mark.parametrize("prev", [None, Position(5, 2)])
async def test_an_epoch_that_names_an_earlier_position_follows_the_end(
    shard: Shard, written: Callable[..., Awaitable[Stored]], prev: Position | None
) -> None:
    await written(5, epoch_of(5, 3, None))
    assert await written(7, epoch_of(7, 1, prev)) == Stored(1)
    assert (await shard.last(COIN, 1))[0].prev == Position(5, 3)


async def test_a_batch_beyond_the_end_is_refused_until_the_writer_knows_the_end_and_then_leaves_a_hole(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    later = epoch_of(5, 2, None, first=8)
    for end in (None, Position(5, 2), Position(5, 7)):
        with pytest.raises(ShardRewoundError):
            await written(5, later, end)
    assert noted("hole") == []
    assert await written(5, later, Position(5, 3)) == Stored(2)
    assert await written(5, later, Position(5, 3)) == Stored(0, already=2)
    assert noted("hole") == ["5-3 5-8"]
    assert await shard.after(COIN, Position(5, 3), 10) == later
    assert await shard.unaccepted() == {COIN: Unaccepted(holes=1, orphans=0)}


async def test_a_hole_before_an_epoch_keeps_the_position_that_the_epoch_names(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(7, epoch_of(7, 2, Position(6, 40)), Position(5, 3))
    assert noted("hole") == ["5-3 7-1"]
    assert (await shard.last(COIN, 2))[0].prev == Position(6, 40)


async def test_a_history_whose_first_quotes_are_missing_begins_with_a_hole(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None, first=4))
    assert noted("hole") == ["- 5-4"]
    assert (await shard.fence(COIN)).floor == Position(5, 4)


async def test_quotes_that_arrive_after_their_hole_was_noted_are_orphans(
    shard: Shard, written: Callable[..., Awaitable[Stored]], noted: Callable[[str], list[str]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(5, epoch_of(5, 2, None, first=8), Position(5, 3))
    assert await written(6, epoch_of(5, 4, None, first=4)) == Stored(0, refused=4)
    assert noted("orphan") == [f"5-{seq} 67012.3400 in_hole" for seq in range(4, 8)]


async def test_accepted_discrepancies_raise_no_alarm_and_later_ones_do(
    shard: Shard, written: Callable[..., Awaitable[Stored]], accept: Callable[[], None]
) -> None:
    await written(5, epoch_of(5, 3, None))
    await written(5, epoch_of(5, 1, None, first=8), Position(5, 3))
    await written(6, epoch_of(5, 2, None, first=4))
    assert await shard.unaccepted() == {COIN: Unaccepted(holes=1, orphans=2)}
    accept()
    assert await shard.unaccepted() == {}
    await written(6, epoch_of(5, 4, None, first=4))
    assert await shard.unaccepted() == {COIN: Unaccepted(holes=0, orphans=2)}


async def test_a_shard_that_has_forgotten_the_writer_asks_it_to_become_the_writer_again(
    shard: Shard, written: Callable[..., Awaitable[Stored]]
) -> None:
    """A shard restored from a backup older than the epoch: its older writer does not supersede the present one."""
    await written(5, epoch_of(5, 3, None))
    with pytest.raises(ShardRewoundError):
        await shard.append(COIN, 1, 9, epoch_of(9, 1, Position(5, 3)))
    await shard.become_writer(COIN, 10, "b")
    with pytest.raises(WriterSupersededError):
        await shard.append(COIN, 1, 9, epoch_of(9, 1, Position(5, 3)))


async def test_a_quote_dropped_by_retention_is_no_orphan(
    homes: tuple[str, str],
) -> None:
    day = timedelta(days=1)
    async with PostgresShard("shard1", homes[0], deadline_s=5.0) as shard:
        fence = await shard.become_writer(COIN, 5, "a")
        old = [replace(quote, at=quote.at - 3 * day) for quote in epoch_of(5, 3, None)]
        await shard.append(COIN, fence.placement, 5, old)
        await shard.append(COIN, fence.placement, 5, epoch_of(5, 2, None, first=4))
        dropped = (NOON - 3 * day).date()
        psql(homes[0], f"SELECT seal_day('{COIN}', '{dropped}'); SELECT drop_day('{COIN}', '{dropped}', 1)")
        assert (await shard.after(COIN, None, 10))[0].seq == 4
        assert await shard.append(COIN, fence.placement, 5, old[1:]) == Stored(0, already=2)
        later = epoch_of(6, 1, Position(5, 5))
        await shard.become_writer(COIN, 6, "b")
        await shard.append(COIN, fence.placement, 6, later)
        never = [replace(quote, at=quote.at - 3 * day) for quote in epoch_of(4, 2, None)]
        assert await shard.append(COIN, fence.placement, 6, [*never, *old]) == Stored(0, already=3, refused=2)


@pytest.mark.parametrize("behind", [[(5, 8), (5, 9)], [(7, 1), (7, 2)]], ids=["within an epoch", "before an epoch"])
async def test_a_window_counts_the_hole_in_it(
    shard: Shard, written: Callable[..., Awaitable[Stored]], behind: list[tuple[int, int]]
) -> None:
    await written(5, epoch_of(5, 3, None))
    later = [
        replace(
            make_quotes(*position, 1)[0],
            at=NOON + timedelta(minutes=9),
            observed_at=NOON,
            prev=Position(6, 40) if position[1] == 1 else None,
        )
        for position in behind
    ]
    await written(behind[0][0], later, Position(5, 3))
    window = Window.until("24h", NOON + timedelta(hours=1))
    view = (await shard.newest([COIN], 1, window))[COIN].window
    assert view is not None
    assert view.candle is not None
    assert (view.candle.count, view.holes) == (5, 1)
