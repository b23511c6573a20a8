"""Standard output that cannot block the event loop.

A pipe that nobody reads blocks its writer. Here a thread writes; at most `LINES_MAX` lines wait for it, and then `put`
waits too, without blocking the loop. So a slow reader slows the listening down; Redis cuts the link of a listener that
does not listen, and the positions reveal what was missed. Nothing is dropped silently, memory does not grow, and the
log says that nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Self

LINES_MAX = 1_000
CLOSE_S = 1.0  # for the reader at the end


class Output:
    """An async context manager. `write` may block; `on_end` is called once, in the loop, when it fails.

    After a failure lines are discarded, since nobody reads them.
    """

    def __init__(self, write: Callable[[bytes], None], on_end: Callable[[OSError], None]) -> None:
        self._write = write
        self._on_end = on_end
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.written = 0  # lines, since the start
        self._waiting = 0
        self._room = asyncio.Event()
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._room.set()
        # a daemon, since a write to a pipe that nobody reads cannot be cancelled, and must not keep the process alive
        threading.Thread(target=self._write_lines, name="output", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lines.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._ended.wait()

    @property
    def is_stuck(self) -> bool:
        """Whether `put` would have to wait now."""
        return not self._room.is_set()

    async def put(self, line: bytes) -> None:
        """Queue a line; waits for room."""
        while self.is_stuck:
            await self._room.wait()
        self._lines.put(line)
        self._waiting += 1
        if self._waiting >= LINES_MAX:
            self._room.clear()

    def _write_lines(self) -> None:
        failed = False
        # a closed loop means that the process is ending and does not wait for the rest
        with contextlib.suppress(RuntimeError):
            while (line := self._lines.get()) is not None:
                try:
                    if not failed:
                        self._write(line)
                except OSError as error:
                    failed = True
                    self._loop.call_soon_threadsafe(self._on_end, error)
                self._loop.call_soon_threadsafe(self._note_written)
            self._loop.call_soon_threadsafe(self._ended.set)

    def _note_written(self) -> None:
        self.written += 1
        self._waiting -= 1
        if self._waiting <= LINES_MAX // 2:
            self._room.set()
