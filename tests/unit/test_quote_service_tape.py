"""Every price of the tape is recorded once and in order, whatever fails meanwhile; missing ones are noted."""

import asyncio
import functools
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests.unit.harness_quote_service import COIN, IMPATIENT, NOON, QuoteServiceCore, seen, until

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.errors import (
    LogUnavailableError,
    SettingError,
    SourceError,
    SourceGoneError,
)
from cotacoes.model.quote import Observation
from cotacoes.patterns.sharding.shard import Home
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.source_pages import TapePage
from cotacoes.quote_service.tape import PAUSE_S
from cotacoes.testing.memory_shard import MemoryShard

pytestmark = pytest.mark.anyio

RUN = "0123456789ab.1732400000000"


def page(first: int, *prices: str, at: datetime = NOON, run: str = RUN) -> TapePage:
    """Consecutive prices of one moment."""
    entries = [(first + number, seen(price, at)) for number, price in enumerate(prices)]
    return TapePage(run, f"{run}-{first + len(prices) - 1}", first if prices else 0, len(prices), entries, [])


async def prices_in(core: QuoteServiceCore) -> list[str]:
    return [str(quote.price) for quote in await core.recorder.log.after(COIN, None, 100)]


async def test_every_price_of_a_tape_is_recorded_in_order_even_equal_ones_of_one_moment(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "5", "6"), page(4), page(4, "5", at=NOON - timedelta(hours=2))]
    assert [await core.tape_reader.read_page() for _ in range(3)] == [PAUSE_S] * 3
    assert await prices_in(core) == ["5", "5", "6", "5"]
    assert core.asked == [None, f"{RUN}-3", f"{RUN}-3"]
    assert core.tape_intake.is_live(COIN)
    await core.recorder.close()


async def test_after_a_restart_the_tape_goes_on_from_the_log_and_skips_recorded_prices(tmp_path: Path) -> None:
    first = QuoteServiceCore(tmp_path)
    await first.recorder.start()
    first.pages = [page(1, "5", "6")]
    await first.tape_reader.read_page()
    await first.recorder.close()
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "6", "7"), page(4, "8")]  # this source begins further back than requested
    for _ in range(2):
        await core.tape_reader.read_page()
    assert core.asked == [f"{RUN}-2", f"{RUN}-3"]
    assert await prices_in(core) == ["5", "6", "7", "8"]
    await core.recorder.close()


async def test_a_page_whose_commit_only_seemed_to_fail_is_not_recorded_twice(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, log=IMPATIENT)
    await core.recorder.start()
    core.pages = [page(1, "5", "6"), page(3, "7")]
    with core.hanging_disk(), pytest.raises(LogUnavailableError):
        await core.tape_reader.read_page()
    core.recorder._reopen_at = 0.0
    await core.tape_reader.read_page()
    assert core.asked == [None, f"{RUN}-2"]
    assert await prices_in(core) == ["5", "6", "7"]
    await core.recorder.close()


async def test_prices_that_the_tape_no_longer_has_are_a_source_gap_and_reading_goes_on(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    other = "ba9876543210.1732400000001"
    core.pages = [
        page(1, "5"),
        page(4, "6"),
        SourceGoneError("gone", cursor=f"{other}-0"),
        page(1, "7", run=other),
    ]
    for _ in range(4):
        await core.tape_reader.read_page()
    assert core.asked == [None, f"{RUN}-1", f"{RUN}-4", f"{other}-0"]
    assert await prices_in(core) == ["5", "6", "7"]
    gaps = [(after, later) for after, later, _ in await core.recorder.log.source_gaps()]
    assert gaps == [(f"{RUN}-1", f"{RUN}-3"), (f"{RUN}-4", f"{other}-0")]
    await core.recorder.close()


async def test_a_bad_price_on_a_tape_is_rejected_and_its_neighbours_are_recorded(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "5000", "6"), page(4, "7", at=NOON + timedelta(minutes=1))]
    for _ in range(2):
        await core.tape_reader.read_page()
    assert await prices_in(core) == ["5", "6"]
    assert core.history.cursor == f"{RUN}-4"
    await core.recorder.close()


async def test_a_coin_that_cannot_record_yet_delays_no_other_and_catches_up_later(tmp_path: Path) -> None:
    shard2 = MemoryShard("shard2", ["ethereum"])
    shard2.away = True
    core = QuoteServiceCore(tmp_path)
    other = CoinHistory("ethereum", "shard2", now=lambda: core.wall, clock=lambda: core.seconds)
    core.recorder.histories["ethereum"] = other
    core.directory.shards["shard2"] = shard2
    core.directory.homes["ethereum"] = Home(2, "shard2", 1)
    await core.recorder.start()
    ether = [(2, Observation("ethereum", "USD", Decimal(3), NOON, "sim"))]
    both = replace(page(1, "5", "6"), entries=[page(1, "5").entries[0], *ether])
    core.pages = [both, page(3, "7"), both, page(3, "7")]
    core.tape_intake.on_recorded = lambda quotes: None  # type: ignore[method-assign]
    for _ in range(2):
        await core.tape_reader.read_page()
    assert (await prices_in(core), other.cursor) == (["5", "7"], None)
    shard2.away = False
    await core.recorder.begin_missing_epochs()
    for _ in range(2):
        await core.tape_reader.read_page()
    assert core.asked == [None, f"{RUN}-2", f"{RUN}-0", f"{RUN}-2"]
    assert await prices_in(core) == ["5", "7"]
    assert [quote.price for quote in await core.recorder.log.after("ethereum", None, 9)] == [3]
    assert {core.history.cursor, other.cursor} == {f"{RUN}-3"}
    await core.recorder.close()


async def test_a_tape_with_its_own_old_times_cannot_follow_a_later_history(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, keeps_times=True)
    await core.recorder.start()
    old = NOON - timedelta(days=800)
    core.pages = [page(1, "5", at=old), page(2, "6", at=old)]
    for _ in range(2):
        await core.tape_reader.read_page()
    assert await prices_in(core) == ["5", "6"]
    assert {quote.at for quote in await core.recorder.log.after(COIN, None, 9)} == {old}
    other = "ba9876543210.1732400000001"
    core.pages = [page(1, "7", at=old - timedelta(days=1), run=other)]
    with pytest.raises(SettingError, match="later than the recording's first"):
        await core.tape_reader.read_page()
    await core.recorder.close()


async def test_a_page_whose_commit_outlives_its_call_is_not_recorded_twice(tmp_path: Path) -> None:
    """When the service stops, the call is cancelled, and the commit goes on in its thread."""
    core = QuoteServiceCore(tmp_path, log=functools.partial(QuoteLog, deadline_s=5.0))
    await core.recorder.start()
    core.pages = [page(1, "5", "6"), page(3, "7", "8")]
    await core.tape_reader.read_page()
    with core.hanging_disk():
        taking = asyncio.ensure_future(core.tape_reader.read_page())
        await until(lambda: len(core.asked) == 2)
        await asyncio.sleep(0.05)
        taking.cancel()
        closing = asyncio.ensure_future(core.recorder.close())
        await asyncio.sleep(0.05)
        core.disk_goes_on.set()
        await asyncio.wait({taking, closing})
    again = QuoteServiceCore(tmp_path)
    await again.recorder.start()
    again.pages = [page(5, "9")]
    await again.tape_reader.read_page()
    assert again.asked == [f"{RUN}-4"]
    assert await prices_in(again) == ["5", "6", "7", "8", "9"]
    await again.recorder.close()


async def test_a_source_that_asks_to_go_back_in_the_same_run_is_not_followed(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "6"), SourceGoneError("gone", cursor=f"{RUN}-0"), page(3, "7")]
    await core.tape_reader.read_page()
    with pytest.raises(SourceError):
        await core.tape_reader.read_page()
    await core.tape_reader.read_page()
    assert core.asked == [None, f"{RUN}-2", f"{RUN}-2"]
    assert await prices_in(core) == ["5", "6", "7"]
    await core.recorder.close()


async def test_a_tape_cannot_follow_quotes_that_did_not_come_from_a_tape(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    await core.record("1")
    with pytest.raises(SettingError, match="begins with an empty history"):
        await core.tape_reader.read_page()
    assert core.asked == []
    await core.recorder.close()


async def test_a_coin_that_was_added_while_nothing_ran_does_not_end_a_tape_with_its_own_old_times(
    tmp_path: Path,
) -> None:
    old = NOON - timedelta(days=100)
    first = QuoteServiceCore(tmp_path, MemoryShard("shard1", [COIN, "solana"]), keeps_times=True)
    await first.recorder.start()
    first.pages = [page(1, "5", "6", at=old)]
    await first.tape_reader.read_page()
    await first.recorder.close()
    core = QuoteServiceCore(tmp_path, first.shard, keeps_times=True)
    core.directory.homes["solana"] = Home(2, "shard1", 1)
    core.recorder.histories["solana"] = CoinHistory(
        "solana", "shard1", now=lambda: core.wall, clock=lambda: core.seconds
    )
    await core.recorder.start()
    core.pages = [page(1, "5", "6", "7", at=old)]
    await core.tape_reader.read_page()
    assert await prices_in(core) == ["5", "6", "7"]
    await core.recorder.close()
