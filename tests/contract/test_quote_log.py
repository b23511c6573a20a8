"""The local log keeps what it committed, in order and digit for digit, and fails by name if it cannot."""

import asyncio
import contextlib
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
from typing import Any

import msgspec
import pytest
from tests.harness_agreements import agreement_of

from cotacoes.adapters.quote_log.log import COMMIT_DEADLINE_S, PAGE_BYTES, WAL_PAGES, QuoteLog
from cotacoes.adapters.quote_log.rows import QUERIES, LoggedCoin, Mark
from cotacoes.adapters.quote_log.trim import KEPT_QUOTES, TRIM_EVERY, TRIM_QUOTES_MAX, Retention
from cotacoes.errors import LogUnavailableError, SettingError
from cotacoes.model.quote import Position, Quote, format_price
from cotacoes.quote_service.folder_lock import FolderLock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTA = 64 * 2**20
NOTHING = Mark(None, None)


def make_quotes(epoch: int, first: int, count: int, *, price: str = "67012.3400", coin: str = "bitcoin") -> list[Quote]:
    times = [NOON + timedelta(microseconds=seq) for seq in range(first, first + count)]
    return [
        Quote(
            coin,
            "USD",
            Decimal(price),
            epoch,
            seq,
            time,
            time,
            "sim",
            Position(1, 1) if seq == 1 else None,
            agreement_of(seq),
        )
        for seq, time in enumerate(times, start=first)
    ]


def with_log(
    folder: Path,
    work: Callable[[QuoteLog], Awaitable[None]],
    *,
    quota_bytes: int = QUOTA,
    deadline_s: float = COMMIT_DEADLINE_S,
) -> None:
    async def run() -> None:
        log = QuoteLog(folder, quota_bytes=quota_bytes, deadline_s=deadline_s)
        try:
            await log.open()
            await work(log)
        finally:
            await log.close()

    asyncio.run(run())


def test_committed_quotes_are_read_back_after_reopening(tmp_path: Path) -> None:
    quotes = make_quotes(5, 1, 3, price="0." + "1" * 28)

    async def write(log: QuoteLog) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
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
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
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


def kept_for(tmp_path: Path, seconds: float, quota_bytes: int, work: Callable[[QuoteLog, list[datetime]], Any]) -> None:
    """Run `work` on a log that retains entries for a time; the wall time is the only item of the list."""
    clock = [NOON]

    async def scenario() -> None:
        log = QuoteLog(tmp_path, quota_bytes=quota_bytes, retention=Retention(seconds=seconds), now=lambda: clock[0])
        await log.open()
        await work(log, clock)
        await log.close()

    asyncio.run(scenario())


def test_delivered_entries_are_retained_by_when_they_were_recorded_not_by_their_own_time(tmp_path: Path) -> None:
    async def work(log: QuoteLog, clock: list[datetime]) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        for minute in range(100):  # the times of the quotes are those of one second
            clock[0] = NOON + timedelta(minutes=minute)
            first = 1 + minute * TRIM_EVERY
            delivered = Mark(Position(5, first - 1) if minute else None, None)
            await log.append(make_quotes(5, first, TRIM_EVERY), {"bitcoin": delivered})
        oldest = (await log.after("bitcoin", None, 1))[0]
        assert oldest.seq == 1 + 40 * TRIM_EVERY  # what was recorded within the hour before the last one
        clock[0] += timedelta(hours=2)
        await log.mark({"bitcoin": Mark(Position(5, 100 * TRIM_EVERY), None)})
        while await log.count_after("bitcoin", None) > KEPT_QUOTES:
            await log.mark({"bitcoin": Mark(Position(5, 100 * TRIM_EVERY), None)})
        assert await log.count_after("bitcoin", None) == KEPT_QUOTES

    kept_for(tmp_path, 3600.0, QUOTA, work)


def test_retained_entries_leave_half_of_the_quota_to_undelivered_ones(tmp_path: Path) -> None:
    quota = 4 * 2**20

    async def work(log: QuoteLog, clock: list[datetime]) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        most, delivered = 0, None
        for first in range(1, 60_000, TRIM_EVERY):  # at full speed: the clock stands still
            await log.append(make_quotes(5, first, TRIM_EVERY), {"bitcoin": Mark(delivered, None)})
            delivered = Position(5, first + TRIM_EVERY - 1)
            most = max(most, await log.size_bytes())
        assert quota * 0.4 < most < quota * 0.6
        assert await log.count_after("bitcoin", None) > KEPT_QUOTES

    kept_for(tmp_path, 3600.0, quota, work)


FORMER_ENTRIES = {
    1: """
        CREATE TABLE entry (
            coin TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
            observed_at INTEGER NOT NULL, price TEXT NOT NULL, currency TEXT NOT NULL, origin TEXT NOT NULL,
            prev_epoch INTEGER, prev_seq INTEGER,
            PRIMARY KEY (coin, epoch, seq)
        ) STRICT, WITHOUT ROWID;
        """,
    2: """
        CREATE TABLE entry (
            coin TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
            observed_at INTEGER NOT NULL, price TEXT NOT NULL, currency TEXT NOT NULL, origin TEXT NOT NULL,
            prev_epoch INTEGER, prev_seq INTEGER, recorded_at INTEGER,
            PRIMARY KEY (coin, epoch, seq)
        ) STRICT, WITHOUT ROWID;
        """,
}


def as_former_release(folder: Path, version: int) -> list[Quote]:
    """Make the log of an earlier format, with three quotes, which are returned."""
    quotes = [msgspec.structs.replace(quote, agreement=None) for quote in make_quotes(5, 1, 3)]

    async def write(log: QuoteLog) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        await log.append(quotes, {})

    with_log(folder, write)
    with contextlib.closing(sqlite3.connect(folder / "quotes.sqlite3")) as database, database:
        database.execute("ALTER TABLE entry RENAME TO later")
        database.execute(FORMER_ENTRIES[version])
        columns = ", ".join(name for _, name, *_ in database.execute("PRAGMA table_info(entry)"))
        database.execute(f"INSERT INTO entry ({columns}) SELECT {columns} FROM later")
        database.execute("DROP TABLE later")
        database.execute(f"PRAGMA user_version={version}")
    return quotes


@pytest.mark.parametrize("version", FORMER_ENTRIES)
def test_the_log_of_an_earlier_release_is_opened_in_place_and_takes_agreements(tmp_path: Path, version: int) -> None:
    quotes = as_former_release(tmp_path, version)

    async def go_on(log: QuoteLog) -> None:
        await log.append(make_quotes(5, 4, 2), {})
        assert await log.after("bitcoin", None, 10) == [*quotes, *make_quotes(5, 4, 2)]
        await log.mark({"bitcoin": Mark(Position(5, 4), None)})

    async def read(log: QuoteLog) -> None:
        assert await log.after("bitcoin", None, 10) == [*quotes, *make_quotes(5, 4, 2)]

    with_log(tmp_path, go_on)
    with_log(tmp_path, read)


def test_a_log_of_an_earlier_release_keeps_its_format_if_it_cannot_be_brought_up_whole(tmp_path: Path) -> None:
    quotes = as_former_release(tmp_path, 1)
    with contextlib.closing(sqlite3.connect(tmp_path / "quotes.sqlite3")) as database, database:
        database.execute("ALTER TABLE entry ADD COLUMN agreement TEXT")  # so that the second step of two fails

    async def nothing(_: QuoteLog) -> None:
        raise AssertionError

    with pytest.raises(LogUnavailableError):
        with_log(tmp_path, nothing)
    with contextlib.closing(sqlite3.connect(tmp_path / "quotes.sqlite3")) as database, database:
        assert "recorded_at" not in {name for _, name, *_ in database.execute("PRAGMA table_info(entry)")}
        database.execute("ALTER TABLE entry DROP COLUMN agreement")

    async def read(log: QuoteLog) -> None:
        assert await log.after("bitcoin", None, 10) == quotes

    with_log(tmp_path, read)


def test_a_delivered_long_backlog_is_dropped_in_pieces_and_delays_no_other_coin(
    tmp_path: Path,
) -> None:
    backlog = 2 * TRIM_QUOTES_MAX + KEPT_QUOTES

    async def work(log: QuoteLog) -> None:
        for coin in ("bitcoin", "other"):
            await log.begin_epoch(coin, 5, None, NOTHING)
            await log.append(make_quotes(5, 1, backlog, coin=coin), {})
        assert await log.count_after("bitcoin", None) == backlog
        await log.mark({coin: Mark(Position(5, backlog), None) for coin in ("bitcoin", "other")})
        held = []
        for seq in range(backlog + 1, backlog + 5):
            held.append([await log.count_after(coin, None) - KEPT_QUOTES for coin in ("bitcoin", "other")])
            await log.append(make_quotes(5, seq, 1), {})
        piece = TRIM_QUOTES_MAX
        assert held == [[piece, 2 * piece], [1, 2 * piece], [2, piece], [0, 3]]

    with_log(tmp_path, work)


def test_trimming_does_not_read_the_entries_that_stay() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(QUERIES["schema"])
    ((*_, plan),) = database.execute(f"EXPLAIN QUERY PLAN {QUERIES['trim']}", ("bitcoin", 5, 1))
    database.close()
    assert "(epoch,seq)<(?,?)" in plan


def test_one_coin_is_read_as_at_opening(tmp_path: Path) -> None:
    async def work(log: QuoteLog) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        await log.append(make_quotes(5, 1, 3), {"bitcoin": Mark(Position(5, 2), Position(5, 1), "run-9")})
        await log.begin_epoch("other", 6, make_quotes(4, 7, 1, coin="other")[0], NOTHING)
        logged = {coin: await log.logged(coin) for coin in ("bitcoin", "other")}
        newest = make_quotes(5, 3, 1)[0]
        assert logged["bitcoin"] == LoggedCoin(5, newest, Position(5, 2), Position(5, 1), "run-9")
        again = QuoteLog(tmp_path, quota_bytes=QUOTA)
        assert await again.open() == logged
        await again.close()
        assert await log.logged("dogecoin") is None

    with_log(tmp_path, work)


def test_the_time_of_the_oldest_undelivered_entry_is_known(tmp_path: Path) -> None:
    quotes = make_quotes(5, 1, 4)

    async def work(log: QuoteLog) -> None:
        assert await log.oldest_undelivered("bitcoin") is None
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        await log.append(quotes, {})
        assert await log.oldest_undelivered("bitcoin") == quotes[0].at
        await log.mark({"bitcoin": Mark(Position(5, 2), None)})
        assert await log.oldest_undelivered("bitcoin") == quotes[2].at
        assert await log.oldest_undelivered("bitcoin", Position(5, 1)) == quotes[2].at
        assert await log.oldest_undelivered("bitcoin", Position(5, 3)) == quotes[3].at
        assert await log.oldest_undelivered("bitcoin", Position(5, 4)) is None

    with_log(tmp_path, work)


def test_the_quota_bounds_the_file_and_the_write_ahead_file_has_a_bound_of_its_own(tmp_path: Path) -> None:
    quota = 2 * WAL_PAGES * PAGE_BYTES
    batch_pages = 60  # a thousand entries take fewer
    largest = {"": 0, "-wal": 0}

    async def work(log: QuoteLog) -> None:
        with pytest.raises(LogUnavailableError, match="COTACOES_LOG_QUOTA_BYTES"):
            for first in range(1, 1_000_000, 1000):
                await log.append(make_quotes(5, first, 1000), {})
                for name in largest:
                    largest[name] = max(largest[name], (tmp_path / f"quotes.sqlite3{name}").stat().st_size)
        assert quota - batch_pages * PAGE_BYTES < await log.size_bytes() <= quota

    with_log(tmp_path, work, quota_bytes=quota)
    assert quota / 2 < largest[""] <= quota
    assert largest["-wal"] <= (WAL_PAGES + batch_pages) * (PAGE_BYTES + 24) + 32


def test_the_size_counts_pages_of_the_write_ahead_file_but_no_free_pages(tmp_path: Path) -> None:
    async def work(log: QuoteLog) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        empty = await log.size_bytes()
        file = tmp_path / "quotes.sqlite3"
        before = file.stat().st_size
        await log.append(make_quotes(5, 1, 3 * KEPT_QUOTES), {})
        assert file.stat().st_size == before
        full = await log.size_bytes()
        assert full - empty > 3 * KEPT_QUOTES * 50
        await log.mark({"bitcoin": Mark(Position(5, 3 * KEPT_QUOTES), None)})
        assert await log.size_bytes() - empty < (full - empty) / 2

    with_log(tmp_path, work)


def test_a_full_log_names_its_quota_and_keeps_its_entries(tmp_path: Path) -> None:
    async def work(log: QuoteLog) -> None:
        written = 0
        with pytest.raises(LogUnavailableError, match="COTACOES_LOG_QUOTA_BYTES"):
            for first in range(1, 100_000, 1000):
                await log.append(make_quotes(5, first, 1000), {})
                written = first + 999
        assert written > 1000
        assert await log.count_after("bitcoin", None) == written

    with_log(tmp_path, work, quota_bytes=2**20)


def test_a_damaged_file_is_reported_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "quotes.sqlite3").write_bytes(b"no database" * 1000)

    async def work(_: QuoteLog) -> None:
        raise AssertionError

    with pytest.raises(LogUnavailableError, match="damaged"):
        with_log(tmp_path, work)
    assert (tmp_path / "quotes.sqlite3").read_bytes() == b"no database" * 1000


@pytest.mark.parametrize(
    "damage", ["price = '6701\x7f'", "agreement = '7/6 12.34'", "agreement = ''", "agreement = '5/6 NaN'"]
)
def test_an_impossible_row_means_a_damaged_file(tmp_path: Path, damage: str) -> None:
    async def write(log: QuoteLog) -> None:
        await log.begin_epoch("bitcoin", 5, None, NOTHING)
        await log.append(make_quotes(5, 1, 3), {})

    with_log(tmp_path, write)
    with contextlib.closing(sqlite3.connect(tmp_path / "quotes.sqlite3")) as database, database:
        database.execute(f"UPDATE entry SET {damage} WHERE seq = 2")

    async def read(log: QuoteLog) -> None:
        with pytest.raises(LogUnavailableError, match="its file is damaged"):
            await log.after("bitcoin", None, 10)
        assert len(await log.after("bitcoin", Position(5, 2), 10)) == 1

    with_log(tmp_path, read)


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


def test_a_commit_on_a_hanging_disk_ends_by_its_deadline(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "quotes.sqlite3", isolation_level=None)

    async def work(log: QuoteLog) -> None:
        other.execute("BEGIN IMMEDIATE")  # holding the file's write lock makes a commit wait, as a slow disk would
        with pytest.raises(LogUnavailableError, match="within"):
            await log.append(make_quotes(5, 1, 1), {})
        other.execute("ROLLBACK")

    with_log(tmp_path, work, deadline_s=0.2)
    other.close()


def test_a_kill_at_any_moment_leaves_a_prefix_with_every_confirmed_commit(tmp_path: Path) -> None:
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
