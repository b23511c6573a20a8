"""The local log: what makes a quote durable. SQLite in WAL mode with `synchronous=FULL`; the only file that imports it.

A quote exists from the moment of its commit here. The log holds quotes until the shard has stored them, and for a while
beyond, so that short ranges can be read while the shard is away and a shard restored from a backup gets back what it
lost; `trim.py` says for how long. All work runs in order in one thread. After a failed or late commit the log must be
closed and opened anew: what it holds then is what has happened, and nothing else.

The quota bounds the file itself. The write-ahead file beside it takes up to `WAL_PAGES` and the commit that passes that
mark, about 4 MB; then it is overwritten from its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cotacoes.adapters.quote_log.rows import QUERIES, LoggedCoin, Mark, plain_row_of, quote_of, row_of
from cotacoes.adapters.quote_log.trim import NEWEST_ONLY, QUOTA_SHARE, Retention, Trimming
from cotacoes.errors import LogUnavailableError, SettingError
from cotacoes.model.quote import (
    EPOCH_MAX,
    SEQ_MAX,
    Position,
    Quote,
    from_microseconds,
    position_of,
    to_microseconds,
    utc_now,
)

FORMAT_VERSION = 3
COMMIT_DEADLINE_S = 2.0  # a disk that needs longer for one commit hangs
PAGE_BYTES = 4_096
PAGE_QUOTES = 500  # of one read: some 5 ms, which a commit may have to wait
WAL_PAGES = 1_000
CACHE_KIBIBYTES = 2_048

_NO_POSITION = (None, None)


P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(function: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Run the method in the log's own thread, within a deadline; errors of the library become LogUnavailableError."""

    @functools.wraps(function)
    async def call(self: Any, /, *arguments: P.args, **named: P.kwargs) -> T:
        if self._is_closed:
            raise LogUnavailableError("the log cannot be used: it is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await loop.run_in_executor(self._thread, functools.partial(function, self, *arguments, **named))
        except TimeoutError as error:
            raise LogUnavailableError(f"the log did not answer within {self._deadline_s:g} s") from error
        except sqlite3.Error as error:
            raise LogUnavailableError(f"the log cannot be used: {_reason(error)}") from error
        except (ArithmeticError, ValueError) as error:  # a number or an agreement that was never written
            raise LogUnavailableError("the log cannot be used: its file is damaged") from error

    return call


def _reason(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return {
        "SQLITE_FULL": "the disk is full, or the quota (COTACOES_LOG_QUOTA_BYTES) is reached",
        "SQLITE_CORRUPT": "its file is damaged",
        "SQLITE_NOTADB": "its file is damaged",
        "SQLITE_READONLY": "its file is read-only",
        "SQLITE_BUSY": "another process holds it",
    }.get(name, name or "it is closed")


class QuoteLog:
    """The log in one folder. Every call raises LogUnavailableError, after which the log must be closed.

    `deadline_s` applies to each call; `now` gives the wall time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota_bytes: int,
        retention: Retention = NEWEST_ONLY,
        deadline_s: float = COMMIT_DEADLINE_S,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._path = folder / "quotes.sqlite3"
        self._quota_bytes = quota_bytes
        self._deadline_s = deadline_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quote_log")
        self._database: sqlite3.Connection | None = None
        self._is_closed = False
        self._now = now
        self._trimming = Trimming(retention, now)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("closed")
        return self._database

    @_in_thread
    def open(self) -> dict[str, LoggedCoin]:
        """Open the file and return what it knows of each coin; SettingError if a newer release wrote it."""
        self._database = database = sqlite3.connect(
            self._path, timeout=0.5, isolation_level=None, check_same_thread=False
        )
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise SettingError(
                f"the log has format {version}, which is newer than this release: install a newer cotacoes"
            )
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size=-{CACHE_KIBIBYTES}",
            f"max_page_count={self._quota_bytes // PAGE_BYTES}",
            f"wal_autocheckpoint={WAL_PAGES}",
            f"journal_size_limit={2 * WAL_PAGES * PAGE_BYTES}",  # after a commit of unusual size
        ):
            database.execute(f"PRAGMA {pragma}").fetchall()
        if version != FORMAT_VERSION:  # not always: a full disk can still be read
            self._bring_up(version)
        return {row[0]: self._logged(row) for row in database.execute(QUERIES["coins"]).fetchall()}

    def _bring_up(self, version: int) -> None:
        """Give the file this release's format, all or nothing; 0 is the version of an empty file."""
        with self._transaction() as database:
            if version == 1:  # it did not note when an entry was recorded
                database.execute("ALTER TABLE entry ADD COLUMN recorded_at INTEGER")
            if version in (1, 2):  # nor how venues agreed on its price
                database.execute("ALTER TABLE entry ADD COLUMN agreement TEXT")
            for table in QUERIES["schema"].split(";"):
                database.execute(table)
            database.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    @_in_thread
    def logged(self, coin: str) -> LoggedCoin | None:
        """What the log knows of one coin; None if it never had it."""
        row = self._db.execute(QUERIES["coin"], (coin,)).fetchone()
        return None if row is None else self._logged(row)

    @_in_thread
    def begin_epoch(self, coin: str, epoch: int, newest: Quote | None, mark: Mark) -> None:
        """Commit an epoch before its first use, with the last quote before it, which the log may not have yet."""
        with self._transaction() as database:
            database.execute(QUERIES["begin_epoch"], (coin, epoch))
            if newest is not None:
                database.execute(QUERIES["insert_known"], (*row_of(newest), to_microseconds(self._now())))
            self._write_marks(database, {coin: mark})

    @_in_thread
    def append(self, quotes: Sequence[Quote], marks: Mapping[str, Mark]) -> None:
        """Commit quotes, all or none, and the marks of their coins."""
        with self._transaction() as database:
            recorded_at = to_microseconds(self._now())
            if any(quote.agreement for quote in quotes):
                database.executemany(QUERIES["insert"], [(*row_of(quote), recorded_at) for quote in quotes])
            else:
                database.executemany(QUERIES["insert_plain"], [(*plain_row_of(quote), recorded_at) for quote in quotes])
            self._write_marks(database, marks)
        if due := self._trimming.due(quotes):
            self._trim(due)

    @_in_thread
    def mark(self, marks: Mapping[str, Mark]) -> None:
        """Commit the marks of coins, then drop the entries that these no longer need."""
        with self._transaction() as database:
            self._write_marks(database, marks)
        self._trim(marks)

    @_in_thread
    def link(self, coin: str, end: Position) -> None:
        """Let an epoch begun without the shard follow the shard's end, if another writer has continued up to there.

        That can only be the epoch of the first entry behind `end`.
        """
        row = self._db.execute(QUERIES["after"], (coin, *end, 1)).fetchone()
        first = None if row is None else quote_of(row)
        if first is not None and first.seq == 1 and (first.prev is None or first.prev < end):
            self._db.execute(QUERIES["link"], (*end, coin, first.epoch))

    @_in_thread
    def note_source_gap(self, after: str, next_cursor: str, noted_at: datetime) -> None:
        """Commit that the source's tape has a hole between two cursors."""
        self._db.execute(QUERIES["note_source_gap"], (after, next_cursor, to_microseconds(noted_at)))

    @_in_thread
    def source_gaps(self) -> list[tuple[str, str, datetime]]:
        """All holes of the source's tape: the cursor before, the cursor after, when it was noted."""
        return [(after, later, from_microseconds(at)) for after, later, at in self._db.execute(QUERIES["source_gaps"])]

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        """The entries after a position (None: from the oldest), ascending; a commit waits for one page at most."""
        quotes: list[Quote] = []
        while left := min(PAGE_QUOTES, limit - len(quotes)):
            quotes += (page := await self._after(coin, quotes[-1].position if quotes else position, left))
            if len(page) < left:
                break
        return quotes

    async def last(self, coin: str, count: int) -> list[Quote]:
        """The newest entries, ascending; read in pages as well."""
        quotes: list[Quote] = []  # descending
        while left := min(PAGE_QUOTES, count - len(quotes)):
            quotes += (page := await self._before(coin, quotes[-1].position if quotes else None, left))
            if len(page) < left:
                break
        return quotes[::-1]

    @_in_thread
    def _after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        rows = self._db.execute(QUERIES["after"], (coin, *(position or Position(0, 0)), limit))
        return [quote_of(row) for row in rows]

    @_in_thread
    def _before(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        rows = self._db.execute(QUERIES["before"], (coin, *(position or Position(EPOCH_MAX, SEQ_MAX)), limit))
        return [quote_of(row) for row in rows]

    @_in_thread
    def recent(self, coin: str, count: int, since: datetime) -> list[tuple[datetime, Decimal]]:
        """The time and price of the newest `count` entries, less those before `since`, ascending."""
        rows = self._db.execute(QUERIES["recent"], (coin, count, to_microseconds(since))).fetchall()
        return [(from_microseconds(at), Decimal(price)) for at, price in reversed(rows)]

    @_in_thread
    def count_after(self, coin: str, position: Position | None) -> int:
        """How many entries lie after a position."""
        (count,) = self._db.execute(QUERIES["count_after"], (coin, *(position or Position(0, 0)))).fetchone()
        return int(count)

    @_in_thread
    def oldest_undelivered(self, coin: str, delivered: Position | None = None) -> datetime | None:
        """The time of the oldest entry after the log's own mark or `delivered`, whichever is further."""
        row = self._db.execute(QUERIES["coin"], (coin,)).fetchone()
        marks = filter(None, (delivered, None if row is None else self._logged(row).delivered))
        found = self._db.execute(QUERIES["time_after"], (coin, *max(marks, default=Position(0, 0)))).fetchone()
        return None if found is None else from_microseconds(found[0])

    @_in_thread
    def size_bytes(self) -> int:
        """The size that the quota bounds: all pages in use, even if only in the write-ahead file; no free ones."""
        return self._used_bytes()

    async def close(self) -> None:
        """Close the file and end the thread. LogUnavailableError if the disk hangs: then the log stays open and in use.

        Opening it anew all the same could be overtaken by a commit that is still under way.
        """
        await self._close()
        self._is_closed = True
        self._thread.shutdown(wait=False)

    @_in_thread
    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._db
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _write_marks(self, database: sqlite3.Connection, marks: Mapping[str, Mark]) -> None:
        rows = [
            (*(mark.delivered or _NO_POSITION), *(mark.floor or _NO_POSITION), mark.cursor, coin)
            for coin, mark in marks.items()
        ]
        database.executemany(QUERIES["mark"], rows)

    def _trim(self, coins: Iterable[str]) -> None:
        is_tight = self._used_bytes() > self._quota_bytes * QUOTA_SHARE
        self._trimming.trim(self._db.execute, coins, is_tight=is_tight)

    def _used_bytes(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages - free) * PAGE_BYTES

    def _logged(self, row: tuple[Any, ...]) -> LoggedCoin:
        name, epoch, cursor, *delivered_and_floor = row
        delivered, floor = position_of(*delivered_and_floor[:2]), position_of(*delivered_and_floor[2:])
        newest = self._db.execute(QUERIES["before"], (name, EPOCH_MAX, SEQ_MAX, 1)).fetchone()
        return LoggedCoin(epoch, None if newest is None else quote_of(newest), delivered, floor, cursor)
