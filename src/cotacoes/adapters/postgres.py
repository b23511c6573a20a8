"""PostgreSQL: the only file that imports asyncpg. What a statement costs in time, and what its failure means.

A pooled call has one deadline, from waiting for a connection to the last row. At the deadline the connection is cut,
not asked to cancel: asyncpg's cancel opens a second connection, which a frozen server holds up as well. What the server
may have done all the same is harmless, since every write can be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self

import asyncpg
from asyncpg.pgproto import pgproto

from cotacoes.errors import CoinMovedError, FenceClosedError, SettingError, ShardUnavailableError, WriterSupersededError

CONNECTIONS_MAX = 4  # one batch per coin is in flight and reads are short: more would only queue in the server
STATEMENTS_CACHED_MAX = 50
_SERVER_SETTINGS = {"application_name": "cotacoes", "timezone": "UTC"}

Fetch = Callable[..., Awaitable[list[Any]]]


class Pool:
    """A few connections to one shard, for short calls; an async context manager.

    Opening connects to nothing: a shard that is away is found out, and found again, by calls. `check` is run once on
    every new connection, and raises where the shard is not to be used.
    """

    def __init__(
        self,
        shard: str,
        dsn: str,
        *,
        deadline_s: float,
        check: Callable[[Fetch], Awaitable[None]],
        is_setting: bool = True,
    ) -> None:
        self._is_setting = is_setting
        self._shard = shard
        self._dsn = dsn
        self._deadline_s = deadline_s
        self._check = check
        self._pool: Any = None

    async def __aenter__(self) -> Self:
        async def check(connection: Any) -> None:
            async def fetch(sql: str) -> list[Any]:
                with translated(self._shard, self._deadline_s):
                    rows: list[Any] = await connection.fetch(sql)
                    return rows

            try:
                await self._check(fetch)
            except asyncio.CancelledError:
                connection.terminate()  # asyncpg would take its leave of a server that may be frozen, without a bound
                raise

        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=CONNECTIONS_MAX,
            timeout=self._deadline_s,
            statement_cache_size=STATEMENTS_CACHED_MAX,
            max_inactive_connection_lifetime=0,
            init=check,
            reset=_keep_session,
            # so that what was cut does not go on at the server, and wait there for a lock with all that came after it
            server_settings=_SERVER_SETTINGS | {"statement_timeout": str(max(1, round(self._deadline_s * 1000)))},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.terminate()

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The rows; ShardUnavailableError, and ShardRefusedError from the fence."""
        with translated(self._shard, self._deadline_s), _spoken_to(self._shard):
            async with self._connection() as connection:
                rows: list[Any] = await connection.fetch(sql, *arguments)
                return rows

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._deadline_s
        with _dsn_understood(self._shard, self._dsn, is_setting=self._is_setting):
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


class Session:
    """One connection for long work, which is administration; an async context manager.

    Every statement has `deadline_s`, at which the connection is cut. `is_read_only` is kept by the server.
    """

    def __init__(
        self, shard: str, dsn: str, *, connect_s: float, deadline_s: float, is_read_only: bool = False
    ) -> None:
        self._shard = shard
        self._dsn = dsn
        self._connect_s = connect_s
        self._deadline_s = deadline_s
        self._is_read_only = is_read_only
        self._connection: Any = None

    async def __aenter__(self) -> Self:
        settings = _SERVER_SETTINGS | ({"default_transaction_read_only": "on"} if self._is_read_only else {})
        with translated(self._shard, self._connect_s), _dsn_understood(self._shard, self._dsn):
            self._connection = await asyncpg.connect(
                self._dsn, timeout=self._connect_s, server_settings=settings, statement_cache_size=STATEMENTS_CACHED_MAX
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection.terminate()

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The rows; errors as those of `Pool.fetch`."""
        with self._limited():
            rows: list[Any] = await self._connection.fetch(sql, *arguments)
            return rows

    async def execute(self, script: str) -> None:
        """Several statements without arguments, in one transaction unless one is open."""
        with self._limited():
            await self._connection.execute(script)

    @contextlib.asynccontextmanager
    async def transaction(self, isolation: str = "read_committed") -> AsyncIterator[None]:
        """All that is done within it, or nothing."""
        with translated(self._shard, self._deadline_s):
            async with self._connection.transaction(isolation=isolation):
                yield

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        timer = asyncio.get_running_loop().call_later(self._deadline_s, self._connection.terminate)
        try:
            with translated(self._shard, self._deadline_s):
                yield
        except asyncio.CancelledError:
            self._connection.terminate()
            raise
        finally:
            timer.cancel()


class MissingTableError(ShardUnavailableError):
    """The database has no such table: it is no shard yet, or one of another release."""


@contextlib.contextmanager
def translated(shard: str, deadline_s: float) -> Iterator[None]:
    """Every error of the library once, as ours; none carries the DSN or the server's words to a caller."""
    try:
        yield
    except TimeoutError as error:
        raise ShardUnavailableError(f"{shard} did not answer within {deadline_s:g} s") from error
    except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        raise ShardUnavailableError(f"{shard} is not reachable") from error
    except asyncpg.UndefinedTableError as error:
        raise MissingTableError(f"{shard} failed ({error.sqlstate})") from error
    except asyncpg.PostgresError as error:
        raise _as_ours(shard, error) from error


def _as_ours(shard: str, error: Any) -> Exception:
    if error.sqlstate == "CT001":
        to, placement = str(error.detail).split(" ") if error.detail else (None, None)
        return CoinMovedError(f"{shard}: {error}", to=to, placement=None if placement is None else int(placement))
    if error.sqlstate == "CT002":
        return WriterSupersededError(f"{shard}: {error}")
    if error.sqlstate == "CT003":
        return FenceClosedError(f"{shard}: {error}")
    return ShardUnavailableError(f"{shard} failed ({error.sqlstate})")


@contextlib.contextmanager
def _spoken_to(shard: str) -> Iterator[None]:
    """ShardUnavailableError where the library stumbles over bytes that are not PostgreSQL's."""
    try:
        yield
    except (asyncpg.InternalClientError, pgproto.BufferError, IndexError, UnicodeDecodeError) as error:
        raise ShardUnavailableError(f"{shard} does not answer as PostgreSQL does") from error


@contextlib.contextmanager
def _dsn_understood(shard: str, dsn: str, *, is_setting: bool = True) -> Iterator[None]:
    """SettingError where the library can not read the DSN; not from its error, which may quote the password.

    ShardUnavailableError where it is data and no setting: one shard's address must not end a service. Neither must what
    a server says, over which the library stumbles in the same words.
    """
    try:
        yield
    except (ValueError, IndexError) as error:
        if _is_address(dsn) and not isinstance(error, asyncpg.ClientConfigurationError):
            raise ShardUnavailableError(f"{shard} does not answer as PostgreSQL does") from error
        if not is_setting:
            raise ShardUnavailableError(f"the DSN of {shard} is not usable here: `cotacoes shards add`") from None
        raise SettingError(
            f"the DSN of {shard} is not usable: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with / ? # @ : in a password as %2F %3F %23 %40 %3A"
        ) from None


def _is_address(dsn: str) -> bool:
    try:
        url = urllib.parse.urlsplit(dsn)
        return url.hostname is not None and (url.port is None or url.port > 0)
    except ValueError:
        return False


async def _keep_session(_: Any) -> None:
    """No statement here leaves anything in a session, so there is nothing to reset and no round trip to spend on it."""
