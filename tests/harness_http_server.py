"""A real server on a free port inside the test's own event loop, and raw connections to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from cotacoes.adapters.http_server import server
from cotacoes.adapters.http_server.accepting import ConnectionLimits
from cotacoes.adapters.http_server.connection import ASGIApp
from cotacoes.adapters.http_server.context import MakeWebSocket
from cotacoes.adapters.http_server.hosts import AllowedHosts

HOSTS = ("127.0.0.1", "x", "gateway")  # by which the tests ask


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    stop: asyncio.Event | None = None,
    websocket: MakeWebSocket | None = None,
    note_refused: Callable[[str], None] = lambda _: None,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008  # frozen
    grace_s: int = server.GRACE_S,
) -> AsyncIterator[int]:
    """Serve `app`; yields the port, stops at the end."""
    stop = stop or asyncio.Event()
    with server.listen("127.0.0.1", 0) as listener:
        async with asyncio.TaskGroup() as group:
            hosts = AllowedHosts(HOSTS)
            serving = group.create_task(
                server.serve(
                    app,
                    listener,
                    stop,
                    hosts=hosts,
                    websocket=websocket,
                    limits=limits,
                    note_refused=note_refused,
                    grace_s=grace_s,
                )
            )
            port = int(listener.getsockname()[1])
            try:
                _, writer = await connect(port)  # it listens
                writer.transport.abort()
                yield port
            finally:
                stop.set()
                # a failed test would cancel it, and leave a closed listener in a loop that other tests share
                await asyncio.wait([serving])


async def exchange(port: int, request: bytes, *, limit_s: float = 5.0) -> bytes:
    """Send bytes; returns all that comes back until the server closes, TimeoutError if it does not."""
    reader, writer = await connect(port)
    try:
        async with asyncio.timeout(limit_s):
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
            return await read_to_end(reader)
    finally:
        writer.transport.abort()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection, tried again for as long as the server is only about to listen."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, by a close or a reset."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            received += chunk
    return bytes(received)
