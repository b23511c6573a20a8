"""A bus in memory: the twin of `RedisBus`, under the same contract suite. `away` and `cut` are its faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Self

from cotacoes.errors import BusUnavailableError
from cotacoes.patterns.pub_sub.bus import MESSAGE_BYTES_MAX

QUEUE_MESSAGES_MAX = 10_000  # a listener this far behind is cut off, as Redis does at its output-buffer limit


class MemoryBus:
    """A bus in memory; an async context manager."""

    def __init__(self) -> None:
        self.away = False
        self._listeners: list[_Listener] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Cut every link, and lose what was still on its way."""
        for listener in self._listeners:
            listener.die()
        self._listeners.clear()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        if any(len(message) > MESSAGE_BYTES_MAX for _, message in messages):
            raise ValueError(f"a message has more than {MESSAGE_BYTES_MAX} bytes")
        await self.ping()
        return [self._send(channel, message) for channel, message in messages]

    def _send(self, channel: str, message: bytes) -> int:
        hearing = [listener for listener in self._listeners if channel in listener.channels]
        for listener in hearing:
            if not listener.hear(channel, message):
                self._listeners.remove(listener)
        return len(hearing)

    async def ping(self) -> None:
        if self.away:
            raise BusUnavailableError("the bus is away")

    @contextlib.asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        await self.ping()
        listener = _Listener(frozenset(channels))
        self._listeners.append(listener)
        try:
            async with contextlib.aclosing(listener.messages()) as messages:
                yield messages
        finally:
            with contextlib.suppress(ValueError):  # cut already
                self._listeners.remove(listener)


class _Listener:
    def __init__(self, channels: frozenset[str]) -> None:
        self.channels = channels
        self._queue: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(QUEUE_MESSAGES_MAX)

    def hear(self, channel: str, message: bytes) -> bool:
        """Queue a message; False if the listener is too far behind, and therefore cut."""
        try:
            self._queue.put_nowait((channel, message))
        except asyncio.QueueFull:
            self.die()
            return False
        return True

    def die(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def messages(self) -> AsyncGenerator[tuple[str, bytes], None]:
        while (item := await self._queue.get()) is not None:
            yield item
        raise BusUnavailableError("the link is dead")
