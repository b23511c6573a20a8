"""A bus in memory: the twin of `bus_redis`, under the same contract suite. `away` is its fault."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Self

from cotacoes.errors import BusUnavailableError

QUEUE_MESSAGES_MAX = 10_000  # a listener this far behind is cut off, as Redis does at its output-buffer limit


class MemoryBus:
    """See `patterns.pub_sub.Bus`."""

    def __init__(self) -> None:
        self.away = False
        self._listeners: list[tuple[frozenset[str], asyncio.Queue[tuple[str, bytes] | None]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Every link dies."""
        for _, queue in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)
        self._listeners.clear()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        await self.ping()
        return [self._send(channel, message) for channel, message in messages]

    def _send(self, channel: str, message: bytes) -> int:
        hearing = [entry for entry in self._listeners if channel in entry[0]]
        for entry in hearing:
            if entry[1].qsize() >= QUEUE_MESSAGES_MAX:
                self._listeners.remove(entry)
                entry[1].get_nowait()
                entry[1].put_nowait(None)
            else:
                entry[1].put_nowait((channel, message))
        return len(hearing)

    async def ping(self) -> None:
        if self.away:
            raise BusUnavailableError("the bus is away")

    @contextlib.asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        await self.ping()
        queue: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        entry = (frozenset(channels), queue)
        self._listeners.append(entry)
        try:
            yield _listen(queue)
        finally:
            if entry in self._listeners:
                self._listeners.remove(entry)


async def _listen(queue: asyncio.Queue[tuple[str, bytes] | None]) -> AsyncIterator[tuple[str, bytes]]:
    while (item := await queue.get()) is not None:
        yield item
    raise BusUnavailableError("the link is dead")
