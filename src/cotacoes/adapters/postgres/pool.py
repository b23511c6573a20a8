"""Connections to PostgreSQL: the only file that imports asyncpg. It bounds each call and translates each failure.

A call has one deadline, from waiting for a connection to the last row. At the deadline, or if the caller is cancelled,
the library's call is cancelled, and its connection is ended once that has returned. If a connection is ended under a
running call, the library fails in unpredictable ways. Asking the server to cancel opens a second connection, which a
frozen server blocks as well. What the server may have done all the same is harmless: every write can be sent again.

Each failure of the library becomes one of our errors, by its origin and not by its type:

    before any address was tried      SettingError             the DSN cannot be used
    sent by the server                by its SQLSTATE          see `failures.py`
    a call with wrong arguments       InternalError            a bug, which must show
    anything else                     ShardUnavailableError    the shard is away, or is not PostgreSQL
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self

import asyncpg

from cotacoes.adapters.postgres.failures import said_by_server, unreachable, unusable_dsn
from cotacoes.adapters.postgres.wire import NotPostgresError, Wire
from cotacoes.errors import CotacoesError, InternalError, ShardTimedOutError, ShardUnavailableError

CONNECTIONS_MAX = 4  # each coin has one batch in flight and reads are short: more would only queue in the server
STATEMENTS_CACHED_MAX = 50
CALLS_MAX = 50_000  # of one connection, whose memory in the server grows with every table that it has read
_SERVER_SETTINGS = {"application_name": "cotacoes", "timezone": "UTC"}

Fetch = Callable[..., Awaitable[list[Any]]]


class _Connection:
    """One connection, which ends with any call that does not end with a reply of the server."""

    def __init__(self, shard: str, connection: Any) -> None:
        self._shard = shard
        self._connection = connection
        self._calls_left = CALLS_MAX

    @classmethod
    async def open(cls, shard: str, dsn: str, settings: dict[str, str], *, is_setting: bool = True) -> Self:
        """Connect. If the DSN cannot be used, SettingError if it is a setting, else ShardUnavailableError."""
        wire = Wire()
        try:
            connection = await asyncpg.connect(
                dsn,
                loop=wire,
                server_settings=_SERVER_SETTINGS | settings,
                statement_cache_size=STATEMENTS_CACHED_MAX,
            )
        except Exception as error:
            # options that the library does not know go to the server, which refuses them with 42704 or 22023
            if not wire.is_dialled or isinstance(
                error, asyncpg.UndefinedObjectError | asyncpg.InvalidParameterValueError
            ):
                raise unusable_dsn(shard, dsn, is_setting=is_setting) from None  # its text may quote the password
            raise _as_ours(shard, error) from error
        return cls(shard, connection)

    @property
    def is_usable(self) -> bool:
        return self._calls_left > 0 and not self._connection.is_closed()

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        rows: list[Any] = await self._call(self._connection.fetch, sql, *arguments)
        return rows

    async def execute(self, script: str) -> None:
        await self._call(self._connection.execute, script)

    async def _call(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self._calls_left -= 1
        if self._connection.is_closed():
            raise ShardUnavailableError(f"{self._shard} is not reachable (the connection has ended)")
        try:
            return await work(*arguments)
        except asyncpg.PostgresError as error:  # a reply of the server: the connection is still usable
            raise _as_ours(self._shard, error) from error
        except Exception as error:
            self.terminate()
            raise _as_ours(self._shard, error) from error
        except asyncio.CancelledError:
            self.terminate()
            raise

    def terminate(self) -> None:
        """End the connection without telling the server, which may be frozen; never while a call is under way."""
        self._connection.terminate()


class Pool:
    """A few connections to one shard, for short calls; an async context manager.

    Opening the pool connects to nothing: calls find out whether the shard is away, or back. `check` runs once on every
    new connection, and raises if the shard must not be used.
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
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: list[_Connection] = []
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False  # so that a connection in use is ended after its call
        while self._idle:
            self._idle.pop().terminate()

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The rows of a query. ShardUnavailableError, or ShardRefusedError if the fence refuses it."""
        async with _within(self._shard, self._deadline_s), self._slots:
            connection = self._idle_connection() or await self._new_connection()
            try:
                return await connection.fetch(sql, *arguments)
            finally:
                if self._is_open and connection.is_usable:
                    self._idle.append(connection)
                else:
                    connection.terminate()

    def _idle_connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.terminate()
        return None

    async def _new_connection(self) -> _Connection:
        if not self._is_open:
            raise ShardUnavailableError(f"{self._shard} is no longer in use")
        # so that an abandoned statement ends at the server too, and does not queue for a lock with all that follow it
        settings = {"statement_timeout": str(max(1, round(self._deadline_s * 1000)))}
        connection = await _Connection.open(self._shard, self._dsn, settings, is_setting=self._is_setting)
        try:
            await self._check(connection.fetch)
        except BaseException:
            connection.terminate()
            raise
        return connection


class Session:
    """One connection for the long work of administration; an async context manager.

    Every statement has `deadline_s`, after which the connection is ended. The server enforces `is_read_only`.
    """

    def __init__(
        self, shard: str, dsn: str, *, connect_s: float, deadline_s: float, is_read_only: bool = False
    ) -> None:
        self._shard = shard
        self._dsn = dsn
        self._connect_s = connect_s
        self._deadline_s = deadline_s
        self._settings = {"default_transaction_read_only": "on"} if is_read_only else {}
        self._connection: Any = None

    async def __aenter__(self) -> Self:
        async with _within(self._shard, self._connect_s):
            self._connection = await _Connection.open(self._shard, self._dsn, self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection.terminate()

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The rows of a query; raises what `Pool.fetch` raises."""
        async with _within(self._shard, self._deadline_s):
            rows: list[Any] = await self._connection.fetch(sql, *arguments)
            return rows

    async def execute(self, script: str) -> None:
        """Run several statements without arguments, in one transaction unless one is open."""
        async with _within(self._shard, self._deadline_s):
            await self._connection.execute(script)

    @contextlib.asynccontextmanager
    async def transaction(self, isolation: str = "read committed") -> AsyncIterator[None]:
        """Run all statements within it, or none: a failure ends the connection, and with it the transaction."""
        await self.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        try:
            yield
        except BaseException:
            self._connection.terminate()
            raise
        await self.execute("COMMIT")


@contextlib.asynccontextmanager
async def _within(shard: str, deadline_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError as error:
        raise ShardTimedOutError(f"{shard} did not answer within {deadline_s:g} s") from error


def _as_ours(shard: str, error: Exception) -> CotacoesError:
    """The error of ours for an error of the library."""
    causes = list(_causes(error))
    if any(isinstance(cause, NotPostgresError) for cause in causes):
        return ShardUnavailableError(f"{shard} does not answer as PostgreSQL does")
    for cause in causes:
        if isinstance(cause, asyncpg.PostgresError) and cause.as_dict().get("severity"):  # else the library raised it
            return said_by_server(shard, cause.sqlstate or "", str(cause.args[0]), cause.as_dict().get("detail"))
    if isinstance(error, asyncpg.PostgresConnectionError):
        return ShardUnavailableError(f"{shard} is not reachable (it ended the connection)")
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return ShardUnavailableError(f"{shard} has no host that meets target_session_attrs in its DSN")
    if isinstance(error, asyncpg.DataError | asyncpg.InterfaceError):
        return InternalError(f"a query of {shard} was called with wrong arguments")
    if isinstance(error, OSError):
        return unreachable(shard, error)
    return ShardUnavailableError(f"{shard} sent a reply that cannot be read ({type(error).__name__})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
