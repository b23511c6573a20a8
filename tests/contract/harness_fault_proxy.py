"""A TCP proxy between the app and PostgreSQL that does what networks do, at an exact byte and at no chance moment.

In front of anything else that has a URL it does the same, but for `cut_at_commit`.

    cut_after(client_bytes=n)   n more bytes reach the server, and no other: both sides see the connection end
    cut_after(server_bytes=n)   n more bytes of the server's answers come back, and no other
    cut_at_commit()             the next Execute goes out whole, the server does and commits it, nobody is told
    delay(seconds)              every piece of an answer comes that much later
    freeze_after(server_bytes)  so many more bytes of the server's answers come back, and then it is as
    freeze(), thaw()            connections are taken and held, nothing passes
    refuse(), listen()          nobody is there; somebody is there again
    reset()                     the connections that there are end with RST, as where a process was killed
    babble(data)                these bytes come in place of every piece of an answer

A cut happens once and is counted in `cuts`; bytes are counted over all connections from when it is set. The connection
must be without TLS: `dsn` asks for that. `links` is how many there are, `taken` how many there were, `held` how many
pieces wait for a thaw. The proxy lives in the event loop of its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import urllib.parse
from collections.abc import Iterator
from typing import Literal, Self

CHUNK_BYTES = 65_536
CONNECT_DEADLINE_S = 5.0
POSTGRES_PORT = 5432
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is not sent yet is thrown away, and the other side gets a RST

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


class Link:
    """One connection, both ways, served by the task that makes it."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._task = asyncio.current_task()
        self._writers = writers

    def reset(self) -> None:
        assert self._task is not None
        self._task.cancel()
        for writer in self._writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()


class _Link(Link):
    """How far each side's messages are read, and whether its answer is withheld until the commit."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        super().__init__(*writers)
        self.messages: dict[Side, _Messages] = {"client": _Messages("client"), "server": _Messages("server")}
        self.awaits_commit = False


class FaultProxy:
    """See the head of this file. An async context manager; without a fault it only passes bytes on."""

    def __init__(self, server_dsn: str) -> None:
        self._server = urllib.parse.urlsplit(server_dsn)
        self._listener: asyncio.Server | None = None
        self.port = 0
        self._speaks_postgres = self._server.scheme.startswith("postgres")
        self._connections: set[asyncio.Task[None]] = set()
        self._links: set[_Link] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._delay_s = 0.0
        self._babble: bytes | None = None
        self._left: dict[Side, int] = {}
        self._freezes = False
        self._awaits_execute = False
        self.passed: dict[Side, int] = {"client": 0, "server": 0}
        self.cuts = 0
        self.held = 0
        self.taken = 0

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
        """The server's DSN or URL, by way of this proxy."""
        user = self._server.netloc.rpartition("@")[0]
        address = f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}"
        query = "sslmode=disable" if self._speaks_postgres else self._server.query
        return self._server._replace(netloc=address, query=query).geturl()

    @property
    def links(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def cut_after(self, *, client_bytes: int | None = None, server_bytes: int | None = None) -> None:
        """Cut the connection that carries the byte behind these; 0 cuts in place of the first one."""
        self._left, self._freezes = {}, False
        if client_bytes is not None:
            self._left["client"] = client_bytes
        if server_bytes is not None:
            self._left["server"] = server_bytes

    def freeze_after(self, server_bytes: int) -> None:
        self.cut_after(server_bytes=server_bytes)
        self._freezes = True

    def cut_at_commit(self) -> None:
        """Cut once the server has answered the next Execute to its ReadyForQuery, of which nothing is passed on."""
        self._awaits_execute = True

    def mend(self) -> None:
        """Take every fault back; what was cut stays cut."""
        self._left = {}
        self._awaits_execute = False
        self._delay_s = 0.0
        self._babble = None
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

    def reset(self) -> None:
        for link in list(self._links):
            link.reset()

    def babble(self, data: bytes) -> None:
        self._babble = data

    async def listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.taken += 1
        try:
            # either side may end a connection at any moment, and the end of the proxy is no error of a connection
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
        if self._listener is None:  # refused meanwhile, and before it was a link that `reset` ends
            server_writer.close()
            return
        for one in (writer, server_writer):
            one.transport.set_write_buffer_limits(0)  # so that drained means handed to the system
        link = _Link(writer, server_writer)
        self._links.add(link)
        pumps = [
            asyncio.create_task(self._pump(link, "client", reader, server_writer)),
            asyncio.create_task(self._pump(link, "server", server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            server_writer.close()  # first: the end of the proxy may come during what follows
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, link: _Link, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._hold()
            if side == "server" and self._delay_s:
                await asyncio.sleep(self._delay_s)
            if side == "server" and self._babble is not None:
                data = self._babble
            count = self._admitted(link, side, data)
            writer.write(data[:count])
            await writer.drain()
            self.passed[side] += count
            if self._left.get(side) == 0:
                self._left = {}
                if not self._freezes:
                    self.cuts += 1
                    return
                self.freeze()
                await self._hold()
                writer.write(data[count:])

    async def _hold(self) -> None:
        self.held += 1
        try:
            await self._thawed.wait()
        finally:
            self.held -= 1

    def _admitted(self, link: _Link, side: Side, data: bytes) -> int:
        """How many of these bytes may pass; if none is left to a side after them, the connection is to be cut."""
        messages = list(link.messages[side].completed_by(data)) if self._speaks_postgres else []
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
