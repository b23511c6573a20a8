"""A shard on PostgreSQL: the only file that imports asyncpg.

Every call has one deadline, from waiting for a connection to the last row. At the deadline the connection is cut, not
asked to cancel: asyncpg's cancel opens a second connection, which a frozen server holds up as well. What the server may
have done all the same is harmless, since every write can be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib import resources
from typing import Any, Self

import asyncpg

from cotacoes.adapters import named_queries
from cotacoes.errors import CoinMovedError, FenceClosedError, SettingError, ShardUnavailableError, WriterSupersededError
from cotacoes.patterns.sharding import Fence, ShardView
from cotacoes.quote import Position, Quote, format_price

CONNECTIONS_MAX = 4  # one batch per coin is in flight and reads are short: more would only queue in the server
STATEMENTS_CACHED_MAX = 50
_REFUSED = {"CT001": CoinMovedError, "CT002": WriterSupersededError, "CT003": FenceClosedError}


QUERIES = named_queries.read("queries.sql")


@dataclass(frozen=True)
class Migration:
    """One file of `schema/`: `version` from its name, `sha256` of its text."""

    version: int
    name: str
    sha256: str
    sql: str


def known_migrations() -> list[Migration]:
    """The migrations that this release brings, ascending."""
    folder = resources.files(__package__).joinpath("schema")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    texts = [(entry.name, entry.read_text(encoding="utf-8")) for entry in files]
    return [Migration(int(name[:4]), name, hashlib.sha256(text.encode()).hexdigest(), text) for name, text in texts]


class PostgresShard:
    """One shard behind a DSN; see `patterns.sharding.Shard` for what its calls promise.

    An async context manager. Opening connects to nothing: a shard that is away is found out, and found again, by calls.
    """

    def __init__(self, name: str, dsn: str, *, deadline_s: float) -> None:
        self.name = name
        self._dsn = dsn
        self._deadline_s = deadline_s
        self._pool: Any = None
        self._schema_version = max(migration.version for migration in known_migrations())

    async def __aenter__(self) -> Self:
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=CONNECTIONS_MAX,
            timeout=self._deadline_s,
            statement_cache_size=STATEMENTS_CACHED_MAX,
            max_inactive_connection_lifetime=0,
            init=self._check_schema,
            reset=_keep_session,
            server_settings={"application_name": "cotacoes", "timezone": "UTC"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.terminate()

    async def ping(self) -> None:
        await self._fetch("schema_version")

    async def fence(self, coin: str) -> Fence:
        rows = await self._fetch("fence", coin)
        if not rows:
            raise CoinMovedError(f"{self.name} has no fence for {coin}")
        row = rows[0]
        return Fence(
            placement=row["placement"],
            writer_epoch=row["writer_epoch"],
            newest=None if row["epoch"] is None else _quote(coin, row),
            floor=_position(row["floor_epoch"], row["floor_seq"]),
        )

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        await self._fetch("become_writer", coin, epoch, writer)
        return await self.fence(coin)

    async def append(self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote]) -> None:
        columns = (
            [quote.epoch for quote in quotes],
            [quote.seq for quote in quotes],
            [quote.at for quote in quotes],
            [quote.observed_at for quote in quotes],
            [format_price(quote.price) for quote in quotes],
            [quote.origin for quote in quotes],
            [quote.currency for quote in quotes],
            [None if quote.prev is None else quote.prev.epoch for quote in quotes],
            [None if quote.prev is None else quote.prev.seq for quote in quotes],
        )
        await self._fetch("append", coin, placement, writer_epoch, *columns)

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        rows = await self._fetch("after", coin, *(position or Position(0, 0)), limit)
        return [_quote(coin, row) for row in rows]

    async def last(self, coin: str, count: int) -> list[Quote]:
        return (await self.newest([coin], count))[coin].quotes

    async def newest(self, coins: Sequence[str], count: int) -> dict[str, ShardView]:
        views: dict[str, ShardView] = {}
        for row in await self._fetch("newest", list(coins), count):
            view = views.setdefault(row["coin"], ShardView(_position(row["last_epoch"], row["last_seq"])))
            if row["epoch"] is not None:
                view.quotes.append(_quote(row["coin"], row))
        missing = [coin for coin in coins if coin not in views]
        if missing:
            raise CoinMovedError(f"{self.name} has no fence for {', '.join(missing)}")
        return views

    async def prepare_days(self, first: date, last: date) -> None:
        await self._fetch("prepare_days", first, last)

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        with self._translated():
            async with self._connection() as connection:
                rows: list[Any] = await connection.fetch(QUERIES[query], *arguments)
                return rows

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._deadline_s
        with _dsn_understood(self.name):
            connection = await self._pool.acquire(timeout=self._deadline_s)
        timer = loop.call_at(due, connection.terminate)
        try:
            yield connection
        except asyncio.CancelledError:
            connection.terminate()  # before asyncpg would ask a server that may be frozen to cancel
            raise
        finally:
            timer.cancel()
            await self._pool.release(connection)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Every error of the library once, as ours; none carries the DSN or the server's words to a caller."""
        try:
            yield
        except TimeoutError as error:
            raise ShardUnavailableError(f"{self.name} did not answer within {self._deadline_s:g} s") from error
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
            raise ShardUnavailableError(f"{self.name} is not reachable") from error
        except asyncpg.PostgresError as error:
            refused = _REFUSED.get(error.sqlstate)
            if refused is not None:
                raise refused(f"{self.name}: {error}") from error
            raise ShardUnavailableError(f"{self.name} failed ({error.sqlstate})") from error

    async def _check_schema(self, connection: Any) -> None:
        try:
            version = await connection.fetchval(QUERIES["schema_version"])
        except asyncpg.UndefinedTableError:
            version = None
        if version != self._schema_version:
            raise ShardUnavailableError(
                f"{self.name} has schema version {version}, this release needs {self._schema_version}: "
                "run `cotacoes migrate`"
            )


@contextlib.contextmanager
def _dsn_understood(shard: str) -> Iterator[None]:
    """SettingError where the library can not read the DSN; not from its error, which may quote the password."""
    try:
        yield
    except (ValueError, IndexError):
        raise SettingError(
            f"COTACOES_{shard.upper()}_DSN is not usable: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with / ? # @ : in a password as %2F %3F %23 %40 %3A"
        ) from None


async def _keep_session(_: Any) -> None:
    """No statement here leaves anything in a session, so there is nothing to reset and no round trip to spend on it."""


def _position(epoch: int | None, seq: int | None) -> Position | None:
    return None if epoch is None or seq is None else Position(epoch, seq)


def _quote(coin: str, row: Any) -> Quote:
    return Quote(
        coin=coin,
        currency=row["currency"],
        price=Decimal(row["price"]),
        epoch=row["epoch"],
        seq=row["seq"],
        observed_at=row["observed_at"],
        at=row["at"],
        origin=row["origin"],
        prev=_position(row["prev_epoch"], row["prev_seq"]),
    )


class SchemaConnection:
    """One connection of `cotacoes migrate`: whatever it does is one transaction; an async context manager."""

    def __init__(self, shard: str, dsn: str, *, deadline_s: float) -> None:
        self._shard = PostgresShard(shard, dsn, deadline_s=deadline_s)
        self._dsn = dsn
        self._deadline_s = deadline_s
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        with self._shard._translated(), _dsn_understood(self._shard.name):
            self._connection = await asyncpg.connect(self._dsn, timeout=self._deadline_s, command_timeout=60)
        self._stack.callback(self._connection.terminate)
        await self._stack.enter_async_context(self._connection.transaction())
        await self.run("lock_migration")
        await self.run("create_migration_table")
        return self

    async def __aexit__(self, *error: Any) -> None:
        with self._shard._translated():
            await self._stack.__aexit__(*error)

    async def run(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """One named query."""
        with self._shard._translated():
            return [dict(row) for row in await self._connection.fetch(QUERIES[query], *arguments)]

    async def apply(self, migration: Migration) -> None:
        """One migration, and the note of it."""
        with self._shard._translated():
            await self._connection.execute(migration.sql)
        await self.run("note_migration", migration.version, migration.name, migration.sha256)


async def inspect(
    shard: str, dsn: str, queries: Mapping[str, Sequence[Any]], *, deadline_s: float
) -> dict[str, list[dict[str, Any]]]:
    """What named queries, each with its arguments, find on a shard of whatever schema; what has no table has no rows.

    Over one connection of its own that can not write. ShardUnavailableError, SettingError.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + deadline_s
    with PostgresShard(shard, dsn, deadline_s=deadline_s)._translated(), _dsn_understood(shard):
        connection = await asyncpg.connect(
            dsn, timeout=deadline_s, server_settings={"default_transaction_read_only": "on", "timezone": "UTC"}
        )
        timer = loop.call_at(due, connection.terminate)  # not a timeout around it, as said at the head of this file
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in queries}
        try:
            for name, arguments in queries.items():
                with contextlib.suppress(asyncpg.UndefinedTableError):
                    found[name] = [dict(row) for row in await connection.fetch(QUERIES[name], *arguments)]
        finally:
            timer.cancel()
            connection.terminate()
    return found
