"""The local log: what makes a quote durable. SQLite in WAL mode with `synchronous=FULL`; the only file that imports it.

A commit here is the moment a quote exists. The log holds what a shard has not answered for yet, and the newest
`KEPT_QUOTES` of each coin beyond that, so that short questions are answered with the shard away. All work runs in one
thread of its own, in order. After any failed or late commit the log must be closed and opened anew: what it then holds,
and nothing else, has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cotacoes.errors import LogUnavailableError, SettingError
from cotacoes.quote import Position, Quote, format_price, from_microseconds, to_microseconds

FORMAT_VERSION = 1
COMMIT_DEADLINE_S = 2.0  # a disk that needs longer for one commit is one that hangs
KEPT_QUOTES = 1_000  # per coin, delivered ones: the mean of the last ten and a late subscriber's questions
TRIM_EVERY = 500  # appends between two trims
PAGE_BYTES = 4_096
CACHE_KIBIBYTES = 2_048

_SCHEMA = """
CREATE TABLE IF NOT EXISTS coin (
    name TEXT PRIMARY KEY, epoch INTEGER NOT NULL,
    delivered_epoch INTEGER, delivered_seq INTEGER, floor_epoch INTEGER, floor_seq INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    coin TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, observed_at INTEGER NOT NULL,
    price TEXT NOT NULL, currency TEXT NOT NULL, origin TEXT NOT NULL, prev_epoch INTEGER, prev_seq INTEGER,
    PRIMARY KEY (coin, epoch, seq)
) STRICT, WITHOUT ROWID;
"""
_COLUMNS = "coin, currency, price, epoch, seq, observed_at, at, origin, prev_epoch, prev_seq"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class LoggedCoin:
    """What the log knows of a coin at opening.

    `epoch` is the last era begun, `newest` its newest entry, `delivered` how far a shard is known to have answered,
    `floor` the oldest position held anywhere, as last told by the shard.
    """

    epoch: int
    newest: Quote | None
    delivered: Position | None
    floor: Position | None


@dataclass(frozen=True)
class Mark:
    """How far a coin's delivery has come, and the oldest position held; written along with the next append."""

    delivered: Position | None
    floor: Position | None


def _in_thread(function: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Run the method in the log's own thread, by a deadline, with every error of the library as ours."""

    @functools.wraps(function)
    async def call(self: Any, /, *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_S):
                return await loop.run_in_executor(self._thread, functools.partial(function, self, *arguments, **named))
        except TimeoutError as error:
            raise LogUnavailableError(f"the log did not answer within {COMMIT_DEADLINE_S:g} s") from error
        except sqlite3.Error as error:
            raise LogUnavailableError(f"the log can not be used: {_reason(error)}") from error

    return call


def _reason(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return {
        "SQLITE_FULL": "the disk is full, or the quota (COTACOES_LOG_QUOTA_BYTES) is reached",
        "SQLITE_CORRUPT": "its file is damaged",
        "SQLITE_NOTADB": "its file is damaged",
        "SQLITE_READONLY": "its file is read-only",
        "SQLITE_BUSY": "another process holds it",
    }.get(name, name or "closed")


class QuoteLog:
    """The log in one folder; `open` reads it, `close` ends it. Raises LogUnavailableError, and is then to be closed."""

    def __init__(self, folder: Path, *, quota_bytes: int) -> None:
        self._path = folder / "quotes.sqlite3"
        self._quota_bytes = quota_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quote_log")
        self._database: sqlite3.Connection | None = None
        self._appended = 0

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("closed")
        return self._database

    @_in_thread
    def open(self) -> dict[str, LoggedCoin]:
        """Open and read; SettingError where the file is of a newer release."""
        self._database = database = sqlite3.connect(
            self._path, timeout=0.5, isolation_level=None, check_same_thread=False
        )
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise SettingError(f"the log is of format {version}, newer than this release: install a newer cotacoes")
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size=-{CACHE_KIBIBYTES}",
            f"max_page_count={self._quota_bytes // PAGE_BYTES}",
        ):
            database.execute(f"PRAGMA {pragma}").fetchall()
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        coins = database.execute(
            "SELECT name, epoch, delivered_epoch, delivered_seq, floor_epoch, floor_seq FROM coin"
        ).fetchall()
        return {
            name: LoggedCoin(epoch, self._newest(name), _position(*delivered), _position(*floor))
            for name, epoch, *rest in coins
            for delivered, floor in [(rest[:2], rest[2:])]
        }

    @_in_thread
    def begin_era(self, coin: str, epoch: int) -> None:
        """Commit an era before its first use."""
        self._db.execute(
            "INSERT INTO coin (name, epoch) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch",
            (coin, epoch),
        )

    @_in_thread
    def append(self, quotes: Sequence[Quote], marks: Mapping[str, Mark]) -> None:
        """Commit quotes, all or none, and how far delivery has come."""
        with self._transaction() as database:
            database.executemany(
                f"INSERT INTO entry ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # our own names
                [_row(quote) for quote in quotes],
            )
            self._write_marks(database, marks)
        self._appended += len(quotes)
        if self._appended >= TRIM_EVERY:
            self._appended = 0
            self._trim()

    @_in_thread
    def mark(self, marks: Mapping[str, Mark]) -> None:
        """Write how far delivery has come, and drop what that allows to drop."""
        with self._transaction() as database:
            self._write_marks(database, marks)
        self._trim()

    @_in_thread
    def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        """The entries after a position (None: from the oldest), ascending."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM entry WHERE coin = ? AND (epoch, seq) > (?, ?) ORDER BY epoch, seq LIMIT ?",  # noqa: S608
            (coin, *(position or Position(0, 0)), limit),
        )
        return [_quote(row) for row in rows]

    @_in_thread
    def last(self, coin: str, count: int) -> list[Quote]:
        """The newest entries, ascending."""
        return self._last(coin, count)

    @_in_thread
    def count_after(self, coin: str, position: Position | None) -> int:
        """How many entries lie after a position."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM entry WHERE coin = ? AND (epoch, seq) > (?, ?)",
            (coin, *(position or Position(0, 0))),
        ).fetchone()
        return int(count)

    @_in_thread
    def size_bytes(self) -> int:
        """Size of the log's file in use, free pages not counted."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages - free) * PAGE_BYTES

    async def close(self) -> None:
        """End the thread and the file; waits for a hanging disk no longer than the deadline."""
        with contextlib.suppress(LogUnavailableError):  # it is being left because of just that
            await self._close()
        self._thread.shutdown(wait=False, cancel_futures=True)

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
        database.executemany(
            "UPDATE coin SET delivered_epoch = ?, delivered_seq = ?, floor_epoch = ?, floor_seq = ? WHERE name = ?",
            [(*(mark.delivered or (None, None)), *(mark.floor or (None, None)), coin) for coin, mark in marks.items()],
        )

    def _trim(self) -> None:
        """Drop delivered entries beyond the newest `KEPT_QUOTES` of each coin."""
        for name, *delivered in self._db.execute("SELECT name, delivered_epoch, delivered_seq FROM coin").fetchall():
            kept = self._last(name, KEPT_QUOTES)
            if kept and delivered[0] is not None:
                below = min(kept[0].position, Position(*delivered))
                self._db.execute("DELETE FROM entry WHERE coin = ? AND (epoch, seq) < (?, ?)", (name, *below))

    def _newest(self, coin: str) -> Quote | None:
        return next(iter(self._last(coin, 1)), None)

    def _last(self, coin: str, count: int) -> list[Quote]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM entry WHERE coin = ? ORDER BY epoch DESC, seq DESC LIMIT ?",  # noqa: S608
            (coin, count),
        ).fetchall()
        return [_quote(row) for row in reversed(rows)]


def _position(epoch: int | None, seq: int | None) -> Position | None:
    return None if epoch is None or seq is None else Position(epoch, seq)


def _row(quote: Quote) -> tuple[Any, ...]:
    return (
        quote.coin,
        quote.currency,
        format_price(quote.price),
        quote.epoch,
        quote.seq,
        to_microseconds(quote.observed_at),
        to_microseconds(quote.at),
        quote.origin,
        *(quote.prev or (None, None)),
    )


def _quote(row: tuple[Any, ...]) -> Quote:
    coin, currency, price, epoch, seq, observed_at, at, origin, *prev = row
    return Quote(
        coin=coin,
        currency=currency,
        price=Decimal(price),
        epoch=epoch,
        seq=seq,
        observed_at=from_microseconds(observed_at),
        at=from_microseconds(at),
        origin=origin,
        prev=_position(*prev),
    )
