"""The bus on Redis or Valkey: the only file that imports redis.

Publishing goes over one connection, many messages in one write, by one deadline. When the deadline passes, or the call
is cancelled, the connection is dropped with whatever replies are still under way, so that none is taken for the answer
to a later call; the next publish connects anew within its own deadline.

Listening does not trust the library to notice a dead link (it did not in 28 s): a heartbeat is due each second on every
channel of ours, so silence for `IDLE_S` is questioned with a PING, and silence after that means the link is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cotacoes.errors import BusUnavailableError, SettingError

IDLE_S = 5.0
PONG_S = 2.0
CONNECT_DEADLINE_S = 2.0


class RedisBus:
    """See `patterns.pub_sub.Bus`; an async context manager. `deadline_s` is of one publish."""

    def __init__(self, url: str, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._connection = self._new_connection(url)
        self._url = url
        self._lock = asyncio.Lock()

    @staticmethod
    def _new_connection(url: str) -> Any:
        options: dict[str, Any] = {
            "protocol": 2,
            "lib_name": None,
            "lib_version": None,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": None,
        }
        try:
            pool: Any = redis.asyncio.ConnectionPool.from_url(url, **options)
            return pool.make_connection()
        except ValueError as error:
            raise SettingError("COTACOES_REDIS_URL is not usable: write redis://HOST:PORT") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.disconnect(nowait=True)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        replies = await self._call([("PUBLISH", channel, message) for channel, message in messages])
        return [int(reply) for reply in replies]

    async def ping(self) -> None:
        await self._call([("PING",)])

    async def _call(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with _translated(f"Redis did not answer within {self._deadline_s * 1000:g} ms"):
            async with asyncio.timeout(self._deadline_s), self._lock:
                try:
                    await self._connection.connect()
                    packed = self._connection.pack_commands(commands)
                    await self._connection.send_packed_command(packed, check_health=False)
                    return [await self._connection.read_response() for _ in commands]
                except BaseException:
                    await asyncio.shield(self._connection.disconnect(nowait=True))
                    raise

    @contextlib.asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """Listen on a connection of its own; the iterator ends with BusUnavailableError when the link is dead."""
        connection = self._new_connection(self._url)
        try:
            with _translated(f"Redis did not answer within {CONNECT_DEADLINE_S:g} s"):
                async with asyncio.timeout(CONNECT_DEADLINE_S):
                    await connection.connect()
                    await connection.send_command("SUBSCRIBE", *channels, check_health=False)
                    for _ in channels:
                        await connection.read_response()
            yield _listen(connection)
        finally:
            await connection.disconnect(nowait=True)


async def _listen(connection: Any) -> AsyncIterator[tuple[str, bytes]]:
    while True:
        kind, *rest = await _next_reply(connection)
        if kind == b"message":
            channel, message = rest
            yield channel.decode(), message


async def _next_reply(connection: Any) -> list[Any]:
    """The next push; where none comes for `IDLE_S`, whatever answers a PING within `PONG_S`."""
    for wait_s in (IDLE_S, PONG_S):
        with _translated("the link to Redis is dead"):
            try:
                async with asyncio.timeout(wait_s):
                    reply: list[Any] = await connection.read_response(disconnect_on_error=False)
                    return reply
            except TimeoutError:
                if wait_s == PONG_S:
                    raise
                await connection.send_command("PING", check_health=False)
    raise AssertionError


@contextlib.contextmanager
def _translated(on_timeout: str) -> Iterator[None]:
    """Every error of the library once, as ours; none carries the URL."""
    try:
        yield
    except TimeoutError as error:
        raise BusUnavailableError(on_timeout) from error
    except (RedisError, OSError) as error:
        raise BusUnavailableError("Redis is not reachable") from error
