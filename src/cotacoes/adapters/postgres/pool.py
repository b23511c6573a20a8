"""PostgreSQL: the only file that imports asyncpg. What a statement costs in time, and what its failure means.

A call has one deadline, from waiting for a connection to the last row. At the deadline, and when the caller gives up,
the library's call is cancelled, and its connection ended once that has come back: ended underneath a running call the
library fails in ways that depend on the moment, and asking the server to cancel opens a second connection, which a
frozen server holds up as well. What the server may have done all the same is harmless: every write can be sent again.

Whatever the library raises becomes one of our errors, by where it came from and not by its type:

    before any address was tried               SettingError          the DSN cannot be used
    the server said it                         by its SQLSTATE       see `postgres_errors`
    a call that cannot be right                InternalError         a bug of ours, which must show
    anything else                              ShardUnavailableError away, or not what PostgreSQL says
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

CONNECTIONS_MAX = 4  # one batch per coin is in flight and reads are short: more would only queue in the server
STATEMENTS_CACHED_MAX = 50
CALLS_MAX = 50_000  # of one connection: what the server keeps for it grows with every table it has seen
_SERVER_SETTINGS = {"application_name": "cotacoes", "timezone": "UTC"}

Fetch = Callable[..., Awaitable[list[Any]]]


class _Connection:
    """One connection. A call that ends in any other way than by the server's word ends the connection as well."""

    def __init__(self, shard: str, connection: Any) -> None:
        self._shard = shard
        self._connection = connection
        self._calls_left = CALLS_MAX

    @classmethod
    async def open(cls, shard: str, dsn: str, settings: dict[str, str], *, is_setting: bool = True) -> Self:
        """Connect. SettingError if the DSN cannot be used.

        ShardUnavailableError instead if it is data and no setting: one shard's address must not end a service.
        """
        wire = Wire()
        try:
            connection = await asyncpg.connect(
                dsn,
                loop=wire,
                server_settings=_SERVER_SETTINGS | settings,
                statement_cache_size=STATEMENTS_CACHED_MAX,
            )
        except Exception as error:
            # an option that the library does not know goes to the server, which refuses it by 42704 or 22023
            if not wire.is_dialled or isinstance(
                error, asyncpg.UndefinedObjectError | asyncpg.InvalidParameterValueError
            ):
                raise unusable_dsn(shard, dsn, is_setting=is_setting) from None  # the words may quote the password
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
        except asyncpg.PostgresError as error:  # an answer, after which the connection goes on
            raise _as_ours(self._shard, error) from error
        except Exception as error:
            self.terminate()
            raise _as_ours(self._shard, error) from error
        except asyncio.CancelledError:
            self.terminate()
            raise

    def terminate(self) -> None:
        """End it without a word to the server, which may be frozen; never while a call is under way."""
        self._connection.terminate()


class Pool:
    """A few connections to one shard, for short calls; an async context manager.

    Opening connects to nothing: a shard that is away is found out, and found again, by calls. `check` is run once on
    every new connection, and raises if the shard is not to be used.
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
        self._is_open = False  # so a connection in use is ended when its call is over
        while self._idle:
            self._idle.pop().terminate()

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The rows; ShardUnavailableError, and ShardRefusedError from the fence."""
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
            raise ShardUnavailableError(f"{self._shard} is not in use any more")
        # so that what was given up does not go on at the server, and wait there for a lock with all that came after it
        settings = {"statement_timeout": str(max(1, round(self._deadline_s * 1000)))}
        connection = await _Connection.open(self._shard, self._dsn, settings, is_setting=self._is_setting)
        try:
            await self._check(connection.fetch)
        except BaseException:
            connection.terminate()
            raise
        return connection


class Session:
    """One connection for long work, which is administration; an async context manager.

    Every statement has `deadline_s`, at which the connection is ended. `is_read_only` is kept by the server.
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
        """The rows; errors as those of `Pool.fetch`."""
        async with _within(self._shard, self._deadline_s):
            rows: list[Any] = await self._connection.fetch(sql, *arguments)
            return rows

    async def execute(self, script: str) -> None:
        """Several statements without arguments, in one transaction unless one is open."""
        async with _within(self._shard, self._deadline_s):
            await self._connection.execute(script)

    @contextlib.asynccontextmanager
    async def transaction(self, isolation: str = "read committed") -> AsyncIterator[None]:
        """All that is done within it, or nothing: a failure ends the connection, and with it the transaction."""
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
    """The error for whatever the library raised."""
    causes = list(_causes(error))
    if any(isinstance(cause, NotPostgresError) for cause in causes):
        return ShardUnavailableError(f"{shard} does not answer as PostgreSQL does")
    for cause in causes:
        if isinstance(cause, asyncpg.PostgresError) and cause.as_dict().get("severity"):  # else the library made it
            return said_by_server(shard, cause.sqlstate or "", str(cause.args[0]), cause.as_dict().get("detail"))
    if isinstance(error, asyncpg.PostgresConnectionError):
        return ShardUnavailableError(f"{shard} is not reachable (it ended the connection)")
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return ShardUnavailableError(f"{shard} has no host that is what target_session_attrs in its DSN demands")
    if isinstance(error, asyncpg.DataError | asyncpg.InterfaceError):
        return InternalError(f"a query of {shard} was called with arguments that it does not take")
    if isinstance(error, OSError):
        return unreachable(shard, error)
    return ShardUnavailableError(f"{shard} gave an answer that cannot be read ({type(error).__name__})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
