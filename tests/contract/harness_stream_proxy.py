"""A TCP proxy that does to any stream what networks do, whatever is spoken over it: Redis, HTTP, WebSocket.

    blackhole()         open connections stay open, but nothing passes any more, for good, as if a router had lost them;
                        new ones too, until `mend`, unless `new=False`
    reset()             the connections that there are end with RST, on both sides
    cut_after(n)        the n-th byte from the server from now on, over all connections, is the last of its connection:
                        anywhere in a message; counted in `cuts`
    throttle(rate)      no more than so many bytes a second, each way of each connection
    delay(seconds)      every piece comes at least that much later
    mend()              take every fault back; what is dead stays dead

What does not pass is not read either, so the sender's own buffers fill. The proxy's are small (`BUFFER_BYTES`). It
lives in the event loop of its test.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Self

from tests.contract.harness_tcp_proxy import CONNECT_DEADLINE_S, Link, TcpProxy, pass_on_at_once

BUFFER_BYTES = 16_384  # for each of: the pieces read, the system's buffers on either side (which it doubles)
PIECES_PER_S = 50  # of a throttled stream


class _Link(Link):
    """`is_dead`: nothing passes any more."""

    is_dead = False


class StreamProxy(TcpProxy[_Link]):
    """See the head of this file. An async context manager, in front of a port of this machine; without a fault it only
    passes bytes on."""

    def __init__(self, server_port: int) -> None:
        super().__init__()
        self._server_port = server_port
        self._takes_new = True
        self._rate: float | None = None
        self._delay_s = 0.0
        self._left: int | None = None
        self.cuts = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)  # those it accepts inherit it
        self._listening = await asyncio.start_server(self._serve, sock=listener, limit=BUFFER_BYTES)
        self.port = listener.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        await self._end_connections()

    @property
    def connections(self) -> int:
        """How many there are, dead ones included."""
        return len(self._links)

    def blackhole(self, *, new: bool = True) -> None:
        self._takes_new = not new
        for link in self._links:
            link.is_dead = True

    def cut_after(self, server_bytes: int) -> None:
        assert server_bytes > 0
        self._left = server_bytes

    def throttle(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s

    def delay(self, seconds: float) -> None:
        self._delay_s = seconds

    def mend(self) -> None:
        self._takes_new, self._rate, self._delay_s, self._left = True, None, 0.0, None

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._takes_new:
            await asyncio.Event().wait()  # it was accepted by the system, and that is all
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self._server_port, limit=BUFFER_BYTES
            )
        server_writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        pass_on_at_once(writer, server_writer)
        link = _Link(writer, server_writer)
        await self._relay(
            link,
            server_writer,
            self._pump(link, reader, server_writer, from_server=False),
            self._pump(link, server_reader, writer, from_server=True),
        )

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        """Pass on what comes until it ends, or is to end here."""
        is_over = False
        while not is_over:
            data = await reader.read(self._piece_bytes())
            await asyncio.sleep(self._delay_s + (0.0 if self._rate is None else len(data) / self._rate))
            if link.is_dead:
                await asyncio.Event().wait()  # not even its end passes
            is_over = not data
            if from_server and self._left is not None and data:
                is_over = len(data) >= self._left
                data = data[: self._left]
                self._left = None if is_over else self._left - len(data)
                self.cuts += is_over
            writer.write(data)
            await writer.drain()

    def _piece_bytes(self) -> int:
        return BUFFER_BYTES if self._rate is None else max(1, int(self._rate / PIECES_PER_S))
