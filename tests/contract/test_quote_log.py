"""The local log keeps what it committed, in order, digit for digit, and says so when it can not."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cotacoes.adapters.folder_lock import FolderLock
from cotacoes.adapters.quote_log import KEPT_QUOTES, TRIM_EVERY, Mark, QuoteLog
from cotacoes.errors import LogUnavailableError, SettingError
from cotacoes.quote import Position, Quote, format_price

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTA = 64 * 2**20
NOTHING = Mark(None, None)


def make_quotes(epoch: int, first: int, count: int, *, price: str = "67012.3400") -> list[Quote]:
    times = [NOON + timedelta(microseconds=seq) for seq in range(first, first + count)]
    return [
        Quote("bitcoin", "USD", Decimal(price), epoch, seq, time, time, "sim", Position(1, 1) if seq == 1 else None)
        for seq, time in enumerate(times, start=first)
    ]


def with_log(folder: Path, work: Callable[[QuoteLog], Awaitable[None]], *, quota_bytes: int = QUOTA) -> None:
    async def run() -> None:
        log = QuoteLog(folder, quota_bytes=quota_bytes)
        try:
            await log.open()
            await work(log)
        finally:
            await log.close()

    asyncio.run(run())


def test_what_was_committed_is_read_back_after_opening_anew(tmp_path: Path) -> None:
    quotes = make_quotes(5, 1, 3, price="0." + "1" * 28)

    async def write(log: QuoteLog) -> None:
        await log.begin_era("bitcoin", 5, None, NOTHING)
        await log.append(quotes, {"bitcoin": Mark(Position(5, 2), Position(1, 1))})

    async def read(log: QuoteLog) -> None:
        assert await log.after("bitcoin", None, 10) == quotes
        assert await log.after("bitcoin", Position(5, 1), 1) == quotes[1:2]
        assert await log.last("bitcoin", 2) == quotes[1:]
        assert await log.count_after("bitcoin", Position(5, 1)) == 2
        assert format_price((await log.last("bitcoin", 1))[0].price) == "0." + "1" * 28

    with_log(tmp_path, write)
    with_log(tmp_path, read)

    async def reopened() -> None:
        log = QuoteLog(tmp_path, quota_bytes=QUOTA)
        coin = (await log.open())["bitcoin"]
        assert (coin.epoch, coin.newest, coin.delivered, coin.floor) == (5, quotes[-1], Position(5, 2), Position(1, 1))
        await log.close()

    asyncio.run(reopened())


def test_a_batch_is_committed_whole_or_not_at_all(tmp_path: Path) -> None:
    async def work(log: QuoteLog) -> None:
        quotes = make_quotes(5, 1, 3)
        await log.append(quotes[:1], {})
        with pytest.raises(LogUnavailableError):
            await log.append([*quotes[1:], quotes[0]], {})
        assert await log.after("bitcoin", None, 10) == quotes[:1]

    with_log(tmp_path, work)


def test_delivered_entries_are_trimmed_and_the_newest_and_the_undelivered_stay(tmp_path: Path) -> None:
    async def work(log: QuoteLog) -> None:
        await log.begin_era("bitcoin", 5, None, NOTHING)
        delivered = None
        for first in range(1, 4 * KEPT_QUOTES, TRIM_EVERY):
            await log.append(make_quotes(5, first, TRIM_EVERY), {"bitcoin": Mark(delivered, None)})
            delivered = Position(5, first + TRIM_EVERY - 1)
        kept = await log.after("bitcoin", None, 10 * KEPT_QUOTES)
        assert [kept[0].seq, kept[-1].seq] == [3 * KEPT_QUOTES + 1, 4 * KEPT_QUOTES]
        for first in range(4 * KEPT_QUOTES + 1, 6 * KEPT_QUOTES, TRIM_EVERY):
            await log.append(make_quotes(5, first, TRIM_EVERY), {"bitcoin": Mark(Position(5, 3_500), None)})
        assert (await log.after("bitcoin", None, 1))[0].seq == 3_500
        await log.mark({"bitcoin": Mark(Position(5, 6 * KEPT_QUOTES), None)})
        assert await log.count_after("bitcoin", None) == KEPT_QUOTES

    with_log(tmp_path, work)


def test_at_its_quota_it_refuses_by_name_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def work(log: QuoteLog) -> None:
        written = 0
        with pytest.raises(LogUnavailableError, match="COTACOES_LOG_QUOTA_BYTES"):
            for first in range(1, 100_000, 1000):
                await log.append(make_quotes(5, first, 1000), {})
                written = first + 999
        assert written > 1000
        assert await log.count_after("bitcoin", None) == written

    with_log(tmp_path, work, quota_bytes=2**20)


def test_a_damaged_file_is_said_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "quotes.sqlite3").write_bytes(b"no database" * 1000)

    async def work(_: QuoteLog) -> None:
        raise AssertionError

    with pytest.raises(LogUnavailableError, match="damaged"):
        with_log(tmp_path, work)
    assert (tmp_path / "quotes.sqlite3").read_bytes() == b"no database" * 1000


def test_a_log_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "quotes.sqlite3")
    database.execute("PRAGMA user_version=99")
    database.close()

    async def work(_: QuoteLog) -> None:
        raise AssertionError

    with pytest.raises(SettingError, match="newer"):
        with_log(tmp_path, work)


def test_a_second_quote_service_on_the_folder_is_refused(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(SettingError, match="another quote_service"), FolderLock(tmp_path):
        pass
    with FolderLock(tmp_path):
        pass


def test_a_commit_on_a_hanging_disk_ends_by_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cotacoes.adapters.quote_log.COMMIT_DEADLINE_S", 0.2)
    other = sqlite3.connect(tmp_path / "quotes.sqlite3", isolation_level=None)

    async def work(log: QuoteLog) -> None:
        other.execute("BEGIN IMMEDIATE")  # whoever holds the file's write lock makes a commit wait, as a disk would
        with pytest.raises(LogUnavailableError, match="within"):
            await log.append(make_quotes(5, 1, 1), {})
        other.execute("ROLLBACK")

    with_log(tmp_path, work)
    other.close()


def test_a_kill_at_any_moment_leaves_a_prefix_and_loses_nothing_that_was_answered_for(tmp_path: Path) -> None:
    writer = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from tests.contract.test_quote_log import QUOTA, QuoteLog, make_quotes
        async def main():
            log = QuoteLog(Path(sys.argv[1]), quota_bytes=QUOTA)
            await log.open()
            for first in range(1, 1_000_000, 10):
                await log.append(make_quotes(5, first, 10), {})
                print(first + 9, flush=True)
        asyncio.run(main())
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "src:."},
    )
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(300)][-1]
    process.send_signal(signal.SIGKILL)
    answered = max([answered, *(int(line) for line in process.stdout.read().split())])
    process.stdout.close()
    process.wait()

    async def work(log: QuoteLog) -> None:
        held = await log.after("bitcoin", None, 1_000_000)
        assert [quote.seq for quote in held] == list(range(1, len(held) + 1))
        assert len(held) >= answered
        assert len(held) % 10 == 0

    with_log(tmp_path, work)
