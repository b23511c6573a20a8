"""The bus on Redis or Valkey: the only file that imports redis and hiredis.

Publishing uses one connection, many messages in one write, and one deadline. When the deadline passes or the call is
cancelled, the connection is dropped with all outstanding replies, so that none is taken for the answer to a later call;
the next publish connects anew within its own deadline. Nothing is tried twice: the library's own retries are off, since
a repeated publish would be received twice.

Listening does not rely on the library to notice a dead link (it had not after 28 s): every channel has a heartbeat each
second, so after `IDLE_S` of silence a PING is sent, and after another `PONG_S` of silence the link is dead. Bytes are
read in large pieces and parsed by hiredis directly: the library's own reading, with a timer for each message, handled a
third as many. A piece that follows another within `READ_EVERY_S` waits for the end of that time, so a rare message
comes at once, and frequent ones come together.

The protocol is RESP2 and no library name is sent, so that connecting costs no extra round trip. Options in the query of
the URL that contradict this are overridden: with `?decode_responses=1` a listener would never receive anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import hiredis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, DataError, RedisError, ResponseError

from cotacoes.errors import BusTimedOutError, BusUnavailableError, InternalError, SettingError
from cotacoes.patterns.pub_sub.bus import MESSAGE_BYTES_MAX

IDLE_S = 5.0  # five heartbeats missed
PONG_S = 2.0
CONNECT_DEADLINE_S = 2.0
READ_EVERY_S = 0.003  # at most: a message read alone costs four times as much as one among others
READ_BYTES_MANY = 8_192  # after a piece of this size the next is read at once
READ_BYTES = 65_536  # not asyncio's 262,144, for which each read maps memory: 40 us, not 7
T = TypeVar("T")
_OURS: dict[str, Any] = {
    "protocol": 2,
    "driver_info": None,
    "decode_responses": False,
    "health_check_interval": 0,
    "socket_timeout": None,  # each call has its deadline here
    "socket_connect_timeout": None,
}


class RedisBus:
    """Implements `patterns.pub_sub.bus.Bus`; an async context manager that does not connect on entry.

    `deadline_s` applies to one publish or ping, including connecting; `idle_s` and `pong_s` detect a dead link. A
    listener reads every `read_every_s` at most. SettingError if the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float,
        idle_s: float = IDLE_S,
        pong_s: float = PONG_S,
        read_every_s: float = READ_EVERY_S,
    ) -> None:
        self._url = url
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._pong_s = pong_s
        self._read_every_s = read_every_s
        self._connection = _new_connection(url)
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.disconnect(nowait=True)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        if any(len(message) > MESSAGE_BYTES_MAX for _, message in messages):
            raise ValueError(f"a message has more than {MESSAGE_BYTES_MAX} bytes")
        return await self._call([("PUBLISH", channel, message) for channel, message in messages], read=int)

    async def ping(self) -> None:
        await self._call([("PING",)], read=bytes)

    async def _call(self, commands: Sequence[tuple[Any, ...]], read: Callable[[Any], T]) -> list[T]:
        connection = self._connection
        with _translated(f"Redis did not answer within {self._deadline_s * 1000:g} ms"):
            async with asyncio.timeout(self._deadline_s), self._lock:
                writer: asyncio.StreamWriter | None = None
                try:
                    if connection.is_connected and await connection.can_read():  # closed, or unexpected data
                        await connection.disconnect(nowait=True)
                    await connection.connect()
                    writer = connection._writer
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                    return [read(await connection.read_response()) for _ in commands]
                except BaseException:  # cancellation above all: outstanding replies must not reach a later call
                    if writer is not None:  # a mere close would wait for ever for a frozen server to take the rest
                        writer.transport.abort()
                    await connection.disconnect(nowait=True)
                    raise

    @contextlib.asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        connection = _new_connection(self._url)  # its own, since in RESP2 a subscriber can do nothing else
        try:
            with _translated(f"Redis did not answer within {CONNECT_DEADLINE_S:g} s"):
                async with asyncio.timeout(CONNECT_DEADLINE_S):
                    await connection.connect()
                    connection._writer.transport.max_size = READ_BYTES
                    replies = hiredis.Reader()
                    await connection.send_command("SUBSCRIBE", *channels, check_health=False)
                    for _ in channels:  # replies to one command, so no message comes in between
                        await self._next_reply(replies, lambda: self._read(connection))
            async with contextlib.aclosing(self._messages(connection, replies)) as messages:
                yield messages
        finally:
            await connection.disconnect(nowait=True)

    async def _messages(self, connection: Any, replies: hiredis.Reader) -> AsyncGenerator[tuple[str, bytes], None]:
        """Iterate over all messages, without a wait between those that came together."""
        loop = asyncio.get_running_loop()
        read_at = -self._read_every_s

        async def read() -> bytes:
            nonlocal read_at
            await _leave_unread(connection, read_at + self._read_every_s - loop.time())
            data = await self._next_bytes(connection)
            read_at = loop.time() if len(data) < READ_BYTES_MANY else -self._read_every_s
            return data

        with _translated("the link to Redis is dead"):
            while True:
                kind, *rest = await self._next_reply(replies, read)
                if kind == b"message":
                    yield rest[0].decode(), rest[1]

    async def _next_reply(self, replies: hiredis.Reader, read: Callable[[], Awaitable[bytes]]) -> Any:
        while (reply := replies.gets()) is False:
            replies.feed(await read())
        if isinstance(reply, hiredis.ReplyError):
            raise ResponseError(str(reply))
        return reply

    async def _next_bytes(self, connection: Any) -> bytes:
        """The next bytes; after `idle_s` without any, those that answer a PING within `pong_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._idle_s):
                return await self._read(connection)
        async with asyncio.timeout(self._pong_s):
            await connection.send_command("PING", check_health=False)
            return await self._read(connection)

    async def _read(self, connection: Any) -> bytes:
        data: bytes = await connection._reader.read(READ_BYTES)
        if not data:
            raise ConnectionResetError("Redis has closed the connection")
        return data


async def _leave_unread(connection: Any, seconds: float) -> None:
    """Let incoming bytes gather for `seconds`, if positive."""
    if seconds > 0:
        transport = connection._writer.transport
        transport.pause_reading()  # else each piece would still wake the event loop
        await asyncio.sleep(seconds)
        transport.resume_reading()


def _new_connection(url: str) -> Any:
    """A connection that is not open yet, without the library's own retries, timeouts and greeting."""
    try:
        options: dict[str, Any] = {**parse_url(url), **_OURS, "retry": Retry(NoBackoff(), 0)}
        return options.pop("connection_class", Connection)(**options)
    except (ValueError, TypeError) as error:  # the library passes on unknown options as arguments
        raise SettingError("COTACOES_REDIS_URL is invalid: write redis://HOST:PORT") from error


@contextlib.contextmanager
def _translated(on_timeout: str) -> Iterator[None]:
    """Translate every error of the library into one of ours, without the URL."""
    try:
        yield
    except TimeoutError as error:
        raise BusTimedOutError(on_timeout) from error
    except AuthenticationError as error:
        raise BusUnavailableError("Redis refused the user or the password") from error
    except ResponseError as error:
        raise BusUnavailableError("Redis refused the command") from error
    except DataError as error:
        raise InternalError("invalid arguments for a Redis command") from error
    except (RedisError, OSError) as error:
        raise BusUnavailableError("Redis is not reachable") from error
    except Exception as error:  # invalid RESP, or a reply of an unexpected shape
        raise BusUnavailableError(f"Redis sent an unreadable answer ({type(error).__name__})") from error
