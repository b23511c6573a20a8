"""Standard output that never holds up whoever writes to it: a terminal may be paused, a pipe unread.

A thread writes; `LINES_MAX` lines wait at most, further ones are dropped, and how many is said once there is room.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

LINES_MAX = 2_000
CLOSE_S = 1.0  # what a reader that does not read is given at the end


class Printer:
    """A context manager. `write` blocks; `on_gone` is called once, from the thread, when nobody is there to read.

    `dropped` makes the line that says how many were not shown.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_gone: Callable[[OSError], None],
        *,
        encoding: str,
        dropped: Callable[[int], str],
    ) -> None:
        self._write = write
        self._on_gone = on_gone
        self._encoding = encoding
        self._dropped_line = dropped
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        # a daemon, since a write that nobody reads can not be called off, and must not hold the process
        self._thread = threading.Thread(target=self._print, name="printer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._lines.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_S)

    def put(self, line: str) -> None:
        """Hand over one line, without its line feed."""
        try:
            if self._dropped:
                self._lines.put_nowait(self._dropped_line(self._dropped))
                self._dropped = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _print(self) -> None:
        is_gone = False
        while (line := self._lines.get()) is not None:
            if is_gone:
                continue
            try:
                self._write(f"{line}\n".encode(self._encoding, "replace"))
            except OSError as error:
                is_gone = True
                self._on_gone(error)
