"""A TCP proxy between the app and PostgreSQL that does what networks do, at an exact byte and at no chance moment.

    cut_after(client_bytes=n)   n more bytes reach the server, and no other: both sides see the connection end
    cut_after(server_bytes=n)   n more bytes of the server's answers come back, and no other
    cut_at_commit()             the next Execute goes out whole, the server does and commits it, nobody is told
    delay(seconds)              every piece of an answer comes that much later
    freeze(), thaw()            connections are taken and held, nothing passes
    refuse(), listen()          nobody is there; somebody is there again

A cut happens once and is counted in `cuts`; bytes are counted over all connections from when it is set. The connection
must be without TLS: `dsn` asks for that. The proxy lives in the event loop of its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import Iterator
from typing import Literal, Self

CHUNK_BYTES = 65_536
CONNECT_DEADLINE_S = 5.0
POSTGRES_PORT = 5432

Side = Literal["client", "server"]


class _Messages:
    """The types of the messages in a stream of the protocol, each as soon as the stream has the whole of it."""

    def __init__(self, side: Side) -> None:
        self._held = bytearray()
        self._type_bytes = 0 if side == "client" else 1  # a client's first message has a length and no type

    def completed_by(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        while len(self._held) >= self._type_bytes + 4:
            size = self._type_bytes + int.from_bytes(self._held[self._type_bytes : self._type_bytes + 4], "big")
            if len(self._held) < size:
                return
            yield bytes(self._held[: self._type_bytes])
            del self._held[:size]
            self._type_bytes = 1


class _Link:
    """One connection: how far each side's messages are read, and whether its answer is withheld until the commit."""

    def __init__(self) -> None:
        self.messages: dict[Side, _Messages] = {"client": _Messages("client"), "server": _Messages("server")}
        self.awaits_commit = False


class FaultProxy:
    """See the head of this file. An async context manager; without a fault it only passes bytes on."""

    def __init__(self, server_dsn: str) -> None:
        self._server = urllib.parse.urlsplit(server_dsn)
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._delay_s = 0.0
        self._left: dict[Side, int] = {}
        self._awaits_execute = False
        self.passed: dict[Side, int] = {"client": 0, "server": 0}
        self.cuts = 0

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def dsn(self) -> str:
        """The server's DSN, by way of this proxy."""
        user = self._server.netloc.rpartition("@")[0]
        address = f"{user}@127.0.0.1:{self._port}" if user else f"127.0.0.1:{self._port}"
        return self._server._replace(netloc=address, query="sslmode=disable").geturl()

    def cut_after(self, *, client_bytes: int | None = None, server_bytes: int | None = None) -> None:
        """Cut the connection that carries the byte behind these; 0 cuts in place of the first one."""
        self._left = {}
        if client_bytes is not None:
            self._left["client"] = client_bytes
        if server_bytes is not None:
            self._left["server"] = server_bytes

    def cut_at_commit(self) -> None:
        """Cut once the server has answered the next Execute to its ReadyForQuery, of which nothing is passed on."""
        self._awaits_execute = True

    def mend(self) -> None:
        """Take every fault back; what was cut stays cut."""
        self._left = {}
        self._awaits_execute = False
        self._delay_s = 0.0
        self.thaw()

    def delay(self, seconds: float) -> None:
        self._delay_s = seconds

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def refuse(self) -> None:
        """Take no connection; those that there are stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # whoever ends a connection may do so at any moment, and the end of the proxy is no error of a connection
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            server_reader, server_writer = await asyncio.open_connection(
                self._server.hostname, self._server.port or POSTGRES_PORT
            )
        for one in (writer, server_writer):
            one.transport.set_write_buffer_limits(0)  # so that drained means handed to the system
        link = _Link()
        pumps = [
            asyncio.create_task(self._pump(link, "client", reader, server_writer)),
            asyncio.create_task(self._pump(link, "server", server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            server_writer.close()

    async def _pump(self, link: _Link, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._thawed.wait()
            if side == "server" and self._delay_s:
                await asyncio.sleep(self._delay_s)
            count = self._admitted(link, side, data)
            writer.write(data[:count])
            await writer.drain()
            self.passed[side] += count
            if self._left.get(side) == 0:
                self._left = {}
                self.cuts += 1
                return

    def _admitted(self, link: _Link, side: Side, data: bytes) -> int:
        """How many of these bytes may pass; where none is left to a side after them, the connection is to be cut."""
        messages = list(link.messages[side].completed_by(data))
        if side == "client" and self._awaits_execute and b"E" in messages:
            self._awaits_execute, link.awaits_commit = False, True
        if side == "server" and link.awaits_commit:
            if b"Z" in messages:
                self._left = {"server": 0}
            return 0
        count = min(len(data), self._left.get(side, len(data)))
        if side in self._left:
            self._left[side] -= count
        return count
