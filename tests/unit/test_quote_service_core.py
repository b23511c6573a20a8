"""quote_service without its sockets, over a real log and fakes in memory, through faults of log, shard and clock."""

import asyncio
import functools
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from tests.unit.harness_quote_service import COIN, IMPATIENT, NOON, QUOTA, QuoteServiceCore, seen, until

from cotacoes.adapters.quote_log import log, trim
from cotacoes.adapters.quote_log.rows import LoggedCoin
from cotacoes.errors import (
    HistoryUnavailableError,
    LogUnavailableError,
    NoQuoteError,
    PositionBeyondEndError,
    SourceUnavailableError,
)
from cotacoes.model.live_message import Heartbeat, channel, decode_message
from cotacoes.model.quote import Position, Quote, first_gap
from cotacoes.patterns.sharding.shard import Home, Stored
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import REOPEN_WAIT_S
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.background import background

pytestmark = pytest.mark.anyio


async def test_a_superseded_writer_publishes_nothing_more_not_even_the_refused_quote(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    heard: list[Quote | Heartbeat] = []

    async def listen(messages: AsyncIterator[tuple[str, bytes]]) -> None:
        async for _, message in messages:
            heard.extend(decode_message(message))

    async with core.bus.subscribe([channel(COIN)]) as messages, background(listen(messages)), core.running():
        (first,) = await core.record("1")
        await until(lambda: core.history.delivered == first.position)
        await core.shard.become_writer(COIN, first.epoch + 10**9, "a newer one")
        await core.record("2")
        await until(lambda: core.superseded)
        assert await core.record("3") == []
        await asyncio.sleep(0.2)  # longer than a publish waits for its shard
    assert [line.position for line in heard if isinstance(line, Quote)] == [first.position]


async def test_an_epoch_begins_between_two_batches_and_never_during_one(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    begun: list[asyncio.Task[None]] = []
    async with core.running():
        await core.record("1", "2")
        await until(lambda: core.history.pending == 0)
        first = core.history.epoch
        core.history._tail.clear()
        core.history.pending, core.history.delivered = 2, None  # as after a restart
        read, append = core.recorder.log.after, core.shard.append
        sent: list[int] = []

        async def epoch_begins_meanwhile(*arguments: Any) -> list[Quote]:
            if not begun:
                core.history._is_over = True
                begun.append(asyncio.create_task(core.recorder.begin_missing_epochs()))
                await asyncio.sleep(0.02)
            return await read(*arguments)

        async def note(coin: str, placement: int, epoch: int, quotes: list[Quote], **end: Any) -> Stored:
            sent.append(epoch)
            return await append(coin, placement, epoch, quotes, **end)

        core.recorder.log.after = epoch_begins_meanwhile  # type: ignore[method-assign,assignment]
        core.shard.append = note  # type: ignore[method-assign,assignment]
        core.delivery.wake()
        await until(lambda: core.history.epoch != first)
        await core.record("3")
        await until(lambda: core.history.pending == 0)
        await begun[0]
        assert sent == [first, core.history.epoch]
        assert not core.superseded


@pytest.mark.slow
async def test_a_log_at_its_quota_records_again_when_the_shard_is_back(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, quota_bytes=2**20)
    async with core.running():
        core.shard.away = True
        with pytest.raises(LogUnavailableError, match="COTACOES_LOG_QUOTA_BYTES"):
            while True:
                await core.record(*["1.5"] * 500)
        core.shard.away = False
        await until(lambda: core.history.pending == 0)
        core.recorder._reopen_at = 0.0
        assert await core.record("2.5")
        await until(lambda: core.history.pending == 0)
        assert first_gap(await core.shard.after(COIN, None, 10**6), None) is None


@pytest.mark.slow
async def test_a_hanging_log_is_not_opened_twice_and_its_late_commit_counts_once(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, log=IMPATIENT)
    async with core.running():
        await core.record("1")
        with core.hanging_disk():
            for _ in range(3):
                core.recorder._reopen_at = 0.0
                with pytest.raises(LogUnavailableError):
                    await core.record("2")
            assert sum(thread.name.startswith("quote_log") for thread in threading.enumerate()) == 1
            core.disk_goes_on.set()
            await asyncio.sleep(0.05)
        core.recorder._reopen_at = 0.0
        await core.record("3")
        held = await core.recorder.log.after(COIN, None, 10)
        assert [str(quote.price) for quote in held] == ["1", "2", "3"]
        assert first_gap(held, None) is None
        await until(lambda: core.history.pending == 0)
        assert await core.shard.after(COIN, None, 10) == held


async def test_after_a_kill_right_after_an_epoch_began_its_first_quote_follows_the_right_one(
    tmp_path: Path,
) -> None:
    shard = MemoryShard("shard1", [COIN])
    first = QuoteServiceCore(tmp_path / "a", shard)
    async with first.running():
        quotes = await first.record("1", "2")
        await until(lambda: first.history.pending == 0)
    killed = QuoteServiceCore(tmp_path / "b", shard)  # its log is empty: it learns the history from the shard
    killed.wall = first.wall
    await killed.recorder.start()
    await killed.recorder.close()
    shard.away = True
    again = QuoteServiceCore(tmp_path / "b", shard)
    again.wall = first.wall
    await again.recorder.start()
    (next_one,) = await again.record("3")
    assert next_one.prev == quotes[-1].position
    with pytest.raises(HistoryUnavailableError):
        await again.page()
    assert await again.page(quotes[-1].position) == [next_one.position]
    await again.recorder.close()


async def test_an_unknown_history_is_never_called_empty_and_no_position_beyond_its_end(
    tmp_path: Path,
) -> None:
    core = QuoteServiceCore(tmp_path)
    core.shard.away = True
    await core.recorder.start()
    for ask in (core.page(), core.page(Position(5, 1)), core.answers.last(COIN, 10), core.answers.mean(COIN)):
        with pytest.raises(HistoryUnavailableError):
            await ask
    core.shard.away = False
    await core.recorder.begin_missing_epochs()
    assert await core.page() == []
    with pytest.raises(PositionBeyondEndError):
        await core.page(Position(5, 1))
    await core.recorder.close()


async def test_an_epoch_begins_once_however_many_tasks_ask_for_it(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    await core.record("1")
    core.history._is_over = True
    fence = core.shard.fence

    async def slow(coin: str) -> Any:
        await asyncio.sleep(0.01)
        return await fence(coin)

    core.shard.fence = slow  # type: ignore[method-assign]
    before = core.history.epoch
    core.wall -= timedelta(seconds=30)  # behind, so that the number of an epoch comes from the one before it
    await asyncio.gather(*(core.recorder.begin_missing_epochs() for _ in range(3)))
    assert before is not None
    assert core.history.epoch == before + 1
    assert (await core.record("2"))[0].seq == 1
    await core.recorder.close()


async def test_many_readers_do_not_delay_a_commit(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.shard.away = True
    for _ in range(4):
        await core.record(*["1.5"] * 2500)
    readers = [asyncio.ensure_future(core.answers.last(COIN, 10_000)) for _ in range(40)]
    await asyncio.sleep(0)
    assert await core.record("2")
    assert sum(reader.done() for reader in readers) < 10
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    await core.recorder.close()


async def test_a_price_whose_commit_only_seemed_to_fail_is_not_recorded_twice(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, log=IMPATIENT)
    await core.recorder.start()
    core.said = [seen("1", NOON)]
    with core.hanging_disk():
        await core.poll.poll_once()
        assert not core.intake.is_live(COIN)
    core.recorder._reopen_at = 0.0
    await core.poll.poll_once()
    held = await core.recorder.log.after(COIN, None, 10)
    assert [quote.observed_at for quote in held] == [NOON]
    assert core.intake.is_live(COIN)
    assert core.publisher._heartbeat(COIN)[1].find(str(held[0].epoch).encode()) > 0
    await core.recorder.close()


async def test_a_price_older_than_the_newest_on_the_shard_is_not_recorded(tmp_path: Path) -> None:
    shard = MemoryShard("shard1", [COIN])
    first = QuoteServiceCore(tmp_path / "a", shard)
    async with first.running():
        await first.record("200")
        await until(lambda: first.history.pending == 0)
    shard.away = True
    core = QuoteServiceCore(tmp_path / "b", shard)
    core.wall = first.wall
    await core.recorder.start()
    shard.away = False
    await core.recorder.begin_missing_epochs()
    core.said = [seen("100", NOON - timedelta(minutes=10))]
    await core.poll.poll_once()
    assert json.loads(core.answers.current(COIN))["price"] == "200"
    await core.recorder.close()


async def test_setting_the_wall_clock_back_does_not_make_an_old_price_fresh(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    await core.record("1")
    core.wall += timedelta(minutes=4)
    core.seconds += 240
    assert json.loads(core.answers.current(COIN))["status"] == "stale"
    core.wall -= timedelta(minutes=10)
    payload = json.loads(core.answers.current(COIN))
    assert (payload["status"], payload["age_ms"]) == ("stale", 240_000)
    await core.recorder.close()


@pytest.mark.parametrize(("retry_after_s", "calls_max"), [(None, 40), (0.0, 40), (1.0, 40), (30.0, 6)])
async def test_retry_after_does_not_make_calls_to_a_dead_source_more_frequent(
    tmp_path: Path, retry_after_s: float | None, calls_max: int
) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.said = SourceUnavailableError("503", retry_after_s=retry_after_s)
    for _ in range(120):
        await core.poll.poll_once()
        core.seconds += 1.0
    assert 1 <= core.calls <= calls_max
    await core.recorder.close()


async def test_a_price_that_the_log_refused_is_not_called_live(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.said = [seen("1", NOON)]
    await core.poll.poll_once()
    assert json.loads(core.answers.current(COIN))["source"] == "live"
    core.recorder._note_failure(LogUnavailableError("the disk is full"))
    core.recorder._reopen_at = float("inf")
    core.said = [seen("2", NOON + timedelta(seconds=1))]
    await core.poll.poll_once()
    payload = json.loads(core.answers.current(COIN))
    assert (payload["source"], payload["price"]) == ("cache", "1")
    await core.recorder.close()


async def test_a_log_that_cannot_be_written_at_the_start_is_waited_for(tmp_path: Path) -> None:
    first = QuoteServiceCore(tmp_path)
    await first.recorder.start()
    await first.record("1")
    await first.recorder.close()
    holder = sqlite3.connect(tmp_path / "quotes.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    core = QuoteServiceCore(tmp_path)
    core.wall = first.wall
    await core.recorder.start()
    assert core.recorder.failure is not None
    assert json.loads(core.answers.current(COIN))["price"] == "1"
    holder.execute("ROLLBACK")
    holder.close()
    assert await core.record("2")
    await core.recorder.close()


async def test_a_background_task_cancelled_from_within_does_not_count_as_finished() -> None:
    async def cancels_itself() -> None:
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting

    with pytest.raises(ExceptionGroup) as raised:
        async with background(cancels_itself()):
            await asyncio.sleep(5)
    assert "cancelled from within" in str(raised.value.exceptions[0])


def test_trimming_is_spread_over_the_appends_for_any_number_of_coins(tmp_path: Path) -> None:
    """An append trims a bounded number of quotes, and no coin is left out for good."""
    coins = [f"coin-{number}" for number in range(20)]
    trimmed: list[str] = []

    class Log(log.QuoteLog):
        def _trim(self, coins: Iterable[str]) -> None:
            chosen = list(coins)
            assert len(chosen) <= trim.TRIM_COINS_MAX
            trimmed.extend(chosen)
            super()._trim(chosen)

    async def run() -> None:
        log = Log(tmp_path, quota_bytes=QUOTA)
        await log.open()
        for start in range(0, 3 * trim.TRIM_EVERY, 100):
            quotes = [
                Quote(coin, "USD", Decimal(1), 5, seq, NOON, NOON, "sim")
                for coin in coins
                for seq in range(start + 1, start + 101)
            ]
            await log.append(quotes, {})
        await log.close()

    asyncio.run(run())
    assert set(trimmed) == set(coins)


async def test_an_epoch_that_cannot_begin_logs_the_reason_once(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    core.shard.away = True
    with structlog.testing.capture_logs() as logs:
        await core.recorder.start()
        await core.recorder.begin_missing_epochs()
        core.shard.away = False
        await core.recorder.begin_missing_epochs()
    assert [(log["event"], log.get("reason")) for log in logs] == [
        ("epoch.held", "shard1 is not reachable"),
        ("epoch.began", None),
    ]
    await core.recorder.close()


async def test_a_moved_coin_is_written_and_read_on_its_new_shard_without_shard1(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    other = MemoryShard("shard2", [COIN])
    core.directory.shards["shard2"] = other
    async with core.running():
        first = await core.record("1", "2")
        await until(lambda: core.history.pending == 0)
        old = core.shard.copies[COIN]
        old.state = "closed"
        waiting = await core.record("3")
        assert await core.page() == [quote.position for quote in [*first, *waiting]]
        moved = other.copies[COIN]
        moved.placement, moved.writer_epoch, moved.writer = 2, old.writer_epoch, old.writer
        moved.floor, moved.quotes = old.floor, dict(old.quotes)
        old.state, old.moved_to = "moved", "shard2"
        await until(lambda: core.history.pending == 0)
        assert list(moved.quotes.values()) == [*first, *waiting]
        assert await core.page() == [quote.position for quote in [*first, *waiting]]
        assert (core.directory.homes[COIN].shard, core.history.shard) == ("shard2", "shard2")


async def test_a_shard_that_lost_more_than_the_log_has_is_logged_as_having_a_hole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = QuoteServiceCore(tmp_path, log=functools.partial(log.QuoteLog, retention=trim.Retention(quotes=2)))
    async with core.running():
        quotes = await core.record(*map(str, range(1, 10)))
        await until(lambda: core.history.pending == 0)
        await core.recorder.log.mark({COIN: core.history.mark()})
        copy = core.shard.copies[COIN]
        copy.quotes = {quote.position: quote for quote in quotes[:3]}
        core.history._tail.clear()
        core.history.forget_fence()
        await core.record("10")
        await until(lambda: core.history.pending == 0)
    assert "shard.gapped" in capsys.readouterr().out
    assert first_gap(list(copy.quotes.values()), None) == 3


@pytest.mark.slow
async def test_a_coin_that_cannot_join_yet_is_not_used_and_its_chain_stays_whole(tmp_path: Path) -> None:
    is_full = True

    class FullLog(log.QuoteLog):
        async def logged(self, coin: str) -> LoggedCoin | None:
            if is_full:
                raise LogUnavailableError("the disk is full")
            return await super().logged(coin)

    core = QuoteServiceCore(tmp_path, MemoryShard("shard1", [COIN, "solana"]), log=FullLog)
    async with core.running():
        recorder = core.recorder

        def joining() -> CoinHistory:
            core.directory.homes["solana"] = Home(2, "shard1", 1)
            return CoinHistory("solana", "shard1", now=lambda: core.wall, clock=lambda: core.seconds)

        with pytest.raises(LogUnavailableError):
            await recorder.add_coin(joining())
        is_full = False
        assert "solana" not in recorder.histories
        await asyncio.sleep(REOPEN_WAIT_S)
        await recorder.add_coin(joining())
        await recorder.begin_missing_epochs()
        for price in ("1", "2"):
            assert await recorder.record({"solana": [replace(seen(price, core.wall), coin="solana")]})
        quotes = await recorder.log.after("solana", None, 10)
        assert [str(quote.price) for quote in quotes] == ["1", "2"]
        assert first_gap(quotes, None) is None


async def test_the_log_is_opened_again_once_however_many_tasks_ask_for_it(tmp_path: Path) -> None:
    opened = 0

    class CountedLog(log.QuoteLog):
        async def open(self) -> dict[str, LoggedCoin]:
            nonlocal opened
            opened += 1
            await asyncio.sleep(0.05)
            return await super().open()

    core = QuoteServiceCore(tmp_path, log=CountedLog)
    async with core.running():
        await core.record("1")
        assert opened == 1
        core.recorder._open = False
        await asyncio.gather(*(core.recorder.ensure_open() for _ in range(5)))
        assert opened == 2


async def test_a_price_in_another_currency_is_not_recorded_and_the_answer_says_so(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.said = [replace(seen("60000", core.wall), currency="USDT")]
    core.directory.homes[COIN] = Home(1, "shard1", 1, currency="USD")
    await core.poll.poll_once()
    with pytest.raises(NoQuoteError, match=r"its price was rejected as currency \(currency USDT, expected USD\)"):
        core.answers.current(COIN)
    core.said = [seen("60001", core.wall)]
    await core.poll.poll_once()
    for number, currency in enumerate(("USDT", "USD"), start=1):
        core.wall += timedelta(seconds=1)
        core.said = [replace(seen(f"6000{number}", core.wall), currency=currency)]
        await core.poll.poll_once()
    mean = json.loads(await core.answers.mean(COIN))
    assert (mean["currency"], mean["count"], mean["average"]) == ("USD", 2, "60001.5")
    await core.recorder.close()
