"""What every TCP proxy of the tests does: it takes connections, relays both ways, resets them, and ends with its tasks.

A subclass opens its listener with `_serve`, and says in `_connect` where a connection goes and which faults it meets.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

CONNECT_DEADLINE_S = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is not sent yet is thrown away, and the other side gets a RST


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


L = TypeVar("L", bound=Link)


class TcpProxy(abc.ABC, Generic[L]):
    """The connections of a proxy: `_tasks` serve them, `_links` are those that reached the server."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[L] = set()

    def reset(self) -> None:
        for link in list(self._links):
            link.reset()

    @abc.abstractmethod
    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # either side may end a connection at any moment, and the end of the proxy is no error of a connection
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, link: L, server_writer: asyncio.StreamWriter, *ways: Coroutine[Any, Any, None]) -> None:
        """Run both ways of a link until one of them ends."""
        self._links.add(link)
        pumps = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            server_writer.close()  # first: the end of the proxy may come during what follows
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _end_connections(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def pass_on_at_once(*writers: asyncio.StreamWriter) -> None:
    """Let drained mean handed to the system."""
    for writer in writers:
        writer.transport.set_write_buffer_limits(0)
