"""A TCP proxy between the app and PostgreSQL that does what networks do, at an exact byte and at no chance moment.

In front of anything else that has a URL it does the same, but for `cut_at_commit`.

    cut_after(client_bytes=n)   n more bytes reach the server, and no other: both sides see the connection end
    cut_after(server_bytes=n)   n more bytes of the server's answers come back, and no other
    cut_at_commit()             the next Execute goes out whole, the server does and commits it, nobody learns of it
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
import urllib.parse
from collections.abc import Iterator
from typing import Literal, Self

from tests.contract.harness_tcp_proxy import CONNECT_DEADLINE_S, Link, TcpProxy, pass_on_at_once

CHUNK_BYTES = 65_536
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


class _Link(Link):
    """How far each side's messages are read, and whether its answer is withheld until the commit."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        super().__init__(*writers)
        self.messages: dict[Side, _Messages] = {"client": _Messages("client"), "server": _Messages("server")}
        self.awaits_commit = False


class FaultProxy(TcpProxy[_Link]):
    """See the head of this file. An async context manager; without a fault it only passes bytes on."""

    def __init__(self, server_dsn: str) -> None:
        super().__init__()
        self._server = urllib.parse.urlsplit(server_dsn)
        self._listener: asyncio.Server | None = None
        self.port = 0
        self._speaks_postgres = self._server.scheme.startswith("postgres")
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
        await self._end_connections()

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
        return len(self._tasks)

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

    def babble(self, data: bytes) -> None:
        self._babble = data

    async def listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            server_reader, server_writer = await asyncio.open_connection(
                self._server.hostname, self._server.port or POSTGRES_PORT
            )
        if self._listener is None:  # refused meanwhile, and before it was a link that `reset` ends
            server_writer.close()
            return
        pass_on_at_once(writer, server_writer)
        link = _Link(writer, server_writer)
        await self._relay(
            link,
            server_writer,
            self._pump(link, "client", reader, server_writer),
            self._pump(link, "server", server_reader, writer),
        )

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
