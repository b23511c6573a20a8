"""Two writers, or a shard restored from a backup, leave one chain behind, and every quote is accounted for."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
from tests.unit.harness_quote_service import COIN, QuoteServiceCore, until

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.trim import Retention
from cotacoes.errors import LogUnavailableError
from cotacoes.model.quote import Position, Quote, first_gap
from cotacoes.patterns.sharding.shard import Fence, Stored
from cotacoes.testing.memory_shard import MemoryShard

pytestmark = pytest.mark.anyio


def view_of(shard: MemoryShard) -> MemoryShard:
    """The same shard over another network."""
    view = MemoryShard(shard.name, [])
    view.copies = shard.copies
    return view


async def all_delivered(core: QuoteServiceCore) -> None:
    await until(lambda: core.history.fence is not None and core.history.pending == 0)


async def recorded(core: QuoteServiceCore, *prices: str) -> list[Quote]:
    quotes = await core.record(*prices)
    await all_delivered(core)
    return quotes


def count(core: QuoteServiceCore, name: str) -> float:
    return float(core.metrics.registry.get_sample_value(f"cotacoes_{name}_total", {"coin": COIN}) or 0)


async def test_quotes_of_a_cut_off_writer_whose_log_comes_back_are_orphans_and_never_delivered(tmp_path: Path) -> None:
    shard = MemoryShard("shard1", [COIN])
    cut_off = QuoteServiceCore(tmp_path / "first", view_of(shard))
    async with cut_off.running():
        before = await recorded(cut_off, "1", "2")
        cut_off.shard.away = True
        lost = await cut_off.record("3", "4", "5")
        await until(lambda: count(cut_off, "quotes_published") == 5)
    other = QuoteServiceCore(tmp_path / "second", view_of(shard))
    other.wall = cut_off.wall
    async with other.running():
        after = await recorded(other, "6", "7")
    back = QuoteServiceCore(tmp_path / "first", view_of(shard))
    back.wall = other.wall
    async with back.running():
        last = await recorded(back, "8")
        assert count(back, "quotes_orphaned") == 3
        assert count(back, "quotes_delivered") == len(after[-1:] + last)  # the log keeps the last one too
    held = await shard.after(COIN, None, 100)
    assert [quote.price for quote in held] == [quote.price for quote in (*before, *after, *last)]
    assert first_gap(held, None) is None
    assert [one.position for one in shard.copies[COIN].orphans] == [one.position for one in lost]


async def test_an_epoch_follows_the_last_quote_of_the_writer_before_it(tmp_path: Path) -> None:
    """The fence is taken before the epoch's first quote, so that nothing can come between the two."""
    shard = MemoryShard("shard1", [COIN])
    first = QuoteServiceCore(tmp_path / "first", shard)
    late = view_of(shard)
    second = QuoteServiceCore(tmp_path / "second", late)
    read = late.fence

    async def while_the_first_goes_on(coin: str) -> Fence:
        fence = await read(coin)
        await first.record("9")
        await until(lambda: first.history.pending == 0 or first.superseded)
        return fence

    async with first.running():
        await recorded(first, "1")
        second.wall = first.wall
        late.fence = while_the_first_goes_on  # type: ignore[method-assign]
        await second.recorder.start()
        late.fence = read  # type: ignore[method-assign]
        quotes = await second.record("10", "11")
        await shard.append(COIN, 1, quotes[0].epoch, quotes, end=second.history.end)
        await second.recorder.close()
        assert first.superseded
    held = await shard.after(COIN, None, 100)
    assert held[-2:] == quotes
    assert first_gap(held, None) is None


async def test_a_writer_that_finds_a_newer_one_when_it_begins_an_epoch_stands_down(tmp_path: Path) -> None:
    shard = MemoryShard("shard1", [COIN])
    first, second = (QuoteServiceCore(tmp_path / name, view_of(shard)) for name in ("first", "second"))
    async with first.running():
        await recorded(first, "1")
        first.shard.away = True
        second.wall = first.wall
        async with second.running():
            await recorded(second, "2")
            first.history._is_over = True  # as after a failure of the log
            first.shard.away = False
            await first.recorder.begin_missing_epochs()
            assert first.superseded
            assert await first.recorder.record({}) == []
            assert not first.history.can_draft
            await recorded(second, "3")
            assert not second.superseded


async def test_a_log_failure_at_the_start_of_an_epoch_leaves_the_writer_as_it_was(tmp_path: Path) -> None:
    """The shard has given the fence to the new epoch already; quotes of the old one are delivered all the same."""
    core = QuoteServiceCore(tmp_path)

    async def fail(*_: Any) -> None:
        raise LogUnavailableError("the disk is full")

    async with core.running():
        await recorded(core, "1")
        core.shard.away = True
        await core.record("2")
        core.shard.away = False
        core.history._is_over = True
        begin = core.recorder.log.begin_epoch
        core.recorder.log.begin_epoch = fail  # type: ignore[method-assign,assignment]
        with pytest.raises(LogUnavailableError):
            await core.recorder.begin_missing_epochs()
        core.recorder.log.begin_epoch = begin  # type: ignore[method-assign]
        core.delivery.wake()
        await all_delivered(core)
        assert not core.superseded
        core.recorder._reopen_at = 0.0
        await recorded(core, "3")
        assert not core.superseded
    held = await core.shard.after(COIN, None, 10)
    assert [str(quote.price) for quote in held] == ["1", "2", "3"]
    assert first_gap(held, None) is None


@pytest.mark.parametrize("epochs", [1, 2])
async def test_an_epoch_begun_without_the_shard_follows_what_another_writer_stored_meanwhile(
    tmp_path: Path, epochs: int
) -> None:
    shard = MemoryShard("shard1", [COIN])
    first = QuoteServiceCore(tmp_path / "first", view_of(shard))
    async with first.running():
        await recorded(first, "1", "2")
    other = QuoteServiceCore(tmp_path / "second", view_of(shard))
    other.wall = first.wall
    async with other.running():
        last = (await recorded(other, "3", "4"))[-1]
    again = QuoteServiceCore(tmp_path / "first", view_of(shard))
    again.wall = other.wall
    again.shard.away = True
    own: list[Quote] = []
    async with again.running():
        for _ in range(epochs):
            again.history._is_over = True
            await again.recorder.begin_missing_epochs()
            own += await again.record("5", "6")
        again.shard.away = False
        await all_delivered(again)
        held = await shard.after(COIN, None, 100)
        assert first_gap(held, None) is None
        assert held[4].before == last.position
        logged = await again.recorder.log.after(COIN, last.position, 100)
        assert logged == held[4:]
        assert await again.page(last.position) == [quote.position for quote in own]
        assert again.history.prev == held[2 + 2 * epochs].before or epochs == 2


@pytest.mark.parametrize("counts", [Stored(0), Stored(1), Stored(2, already=1), Stored(1, refused=0, conflicts=0)])
async def test_a_shard_that_does_not_account_for_each_quote_has_none_delivered(tmp_path: Path, counts: Stored) -> None:
    core = QuoteServiceCore(tmp_path)
    append = core.shard.append

    async def miscount(*arguments: Any, **named: Any) -> Stored:
        await append(*arguments, **named)
        return counts

    async with core.running():
        (first,) = await recorded(core, "1")
        core.shard.append = miscount  # type: ignore[method-assign]
        await core.record("2", "3")
        await until(lambda: count(core, "deliveries_failed") >= 1)
        assert core.history.pending == 2
        assert core.history.delivered == first.position
        assert count(core, "quotes_delivered") == 1
        core.shard.append = append  # type: ignore[method-assign]
        await all_delivered(core)
        assert count(core, "quotes_delivered") == 3


async def restored(core: QuoteServiceCore, backup: dict[str, Any]) -> None:
    core.shard.copies = copy.deepcopy(backup)


@pytest.mark.parametrize("is_of_this_era", [True, False])
async def test_a_shard_restored_from_a_backup_gets_lost_quotes_from_the_log_again(
    tmp_path: Path, is_of_this_era: bool
) -> None:
    """This needs no lost connection: the batch that reveals it is refused, and the shard is asked for its end."""
    core = QuoteServiceCore(tmp_path)
    async with core.running():
        backup = copy.deepcopy(core.shard.copies)
        await recorded(core, "1", "2")
        if is_of_this_era:
            backup = copy.deepcopy(core.shard.copies)
        await recorded(core, *"3456")
        await restored(core, backup)
        await recorded(core, "7")
        assert not core.superseded
        held = await core.shard.after(COIN, None, 100)
        assert [str(quote.price) for quote in held] == list("1234567")
        assert await core.shard.unaccepted() == {}


async def test_quotes_that_the_log_no_longer_has_are_a_hole_and_the_history_goes_on(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, log=functools.partial(QuoteLog, retention=Retention(quotes=2)))
    async with core.running():
        await recorded(core, "1", "2")
        backup = copy.deepcopy(core.shard.copies)
        quotes = await recorded(core, *"345678")
        await core.recorder.log.mark({COIN: core.history.mark()})
        await restored(core, backup)
        later = await recorded(core, "9")
        assert core.shard.copies[COIN].holes == {quotes[4].position: Position(quotes[0].epoch, 2)}
        held = await core.shard.after(COIN, None, 100)
        assert [str(quote.price) for quote in held] == list("12789")
        assert core.history.delivered == later[-1].position
