"""Output that never blocks or fails its writer, although a terminal may be paused, a pipe unread or a disk full.

A thread writes. At most `WAITING_BYTES_MAX` wait for it. Lines beyond that, and lines that cannot be written, are
dropped; their number is printed as soon as there is room again.

    Printer               lines, passed to `put`
    unblocked_stderr      the same for all of this process's standard error: log, warnings, tracebacks
    open_standard_streams for a process that was started without its standard streams
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TextIO

WAITING_BYTES_MAX = 1_000_000
LINE_CHARACTERS_MAX = 65_536  # a longer line is split
CLOSE_S = 1.0  # at the end, for a reader that does not read


class Printer:
    """Prints lines in a thread, within its context.

    `write` may block. `on_failed` is called in the thread at the first of several failures. `dropped_line` makes the
    line that says how many lines are missing.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_failed: Callable[[OSError], None],
        *,
        encoding: str,
        dropped_line: Callable[[int], str],
        waiting_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self._write = write
        self._on_failed = on_failed
        self._encoding = encoding
        self._dropped_line = dropped_line
        self._waiting_bytes_max = waiting_bytes_max
        # each with the number of lines that are missing before it
        self._lines: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._unsaid = 0
        self.dropped = 0  # lines, since the start
        # a daemon, since a blocked write cannot be cancelled and must not keep the process alive
        self._thread = threading.Thread(target=self._print, name="printer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._unsaid:
                self._hand_over(b"")
            self._lines.put(None)
        self._thread.join(CLOSE_S)

    def put(self, line: str) -> None:
        """Print a line, given without its line feed."""
        data = f"{line}\n".encode(self._encoding, "replace")
        with self._lock:
            if self._waiting_bytes and self._waiting_bytes + len(data) > self._waiting_bytes_max:
                self._unsaid += 1
                self.dropped += 1
            else:
                self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        self._lines.put((self._unsaid, data))
        self._waiting_bytes += len(data)
        self._unsaid = 0

    def _print(self) -> None:
        is_failing = False
        while (item := self._lines.get()) is not None:
            missing, data = item
            said = f"{self._dropped_line(missing)}\n".encode(self._encoding, "replace") if missing else b""
            try:
                self._write(said + data)
                is_failing = False
            except OSError as error:
                self._note_failed(missing, 1 if data else 0)
                if not is_failing:
                    is_failing = True
                    self._on_failed(error)
            with self._lock:
                self._waiting_bytes -= len(data)

    def _note_failed(self, missing: int, lines: int) -> None:
        with self._lock:
            self._unsaid += missing + lines
            self.dropped += lines


class LineStream(io.TextIOBase):
    """A text stream that replaces `stream` and passes its lines to `put`."""

    def __init__(self, stream: TextIO, put: Callable[[str], None]) -> None:
        self._stream = stream
        self._put = put
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > LINE_CHARACTERS_MAX:
                lines.append(self._rest)
                self._rest = ""
            for line in lines:
                self._put(line)
        return len(text)

    def end_line(self) -> None:
        """Print the last line if it has no line feed."""
        if self._rest:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


@contextlib.contextmanager
def unblocked_stderr(dropped_line: Callable[[int], str]) -> Iterator[Printer]:
    """Within the context, writing to `sys.stderr` never waits for its reader and never fails."""
    stream = sys.stderr
    encoding = stream.encoding or "utf-8"
    with Printer(stream_writer(stream), lambda _: None, encoding=encoding, dropped_line=dropped_line) as printer:
        lines = LineStream(stream, printer.put)  # never closed: code that still refers to it later must not fail either
        try:
            with contextlib.redirect_stderr(lines):
                yield printer
        finally:
            lines.end_line()


def stream_writer(stream: TextIO) -> Callable[[bytes], None]:
    """A blocking write to the stream: to its file descriptor, past its buffer, if it has one."""
    try:
        return descriptor_writer(stream.fileno())
    except OSError:  # a stream in memory

        def write(data: bytes) -> None:
            stream.write(data.decode(stream.encoding or "utf-8", "replace"))

        return write


def descriptor_writer(descriptor: int) -> Callable[[bytes], None]:
    """A blocking, complete and unbuffered write to a file descriptor."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another process that shares the descriptor has made it non-blocking
                select.select([], [descriptor], [])

    return write


def open_standard_streams() -> None:
    """Open standard streams that are closed (`>&-`): else the next file or socket would get their descriptors.

    Standard input is empty, standard output fails as a closed descriptor does, and standard error is discarded, since
    its failure could not be reported. Characters that standard output cannot encode are replaced.
    """
    for descriptor, name, mode, flags in (
        (0, "stdin", "r", os.O_RDONLY),
        (1, "stdout", "w", os.O_RDONLY),
        (2, "stderr", "w", os.O_WRONLY),
    ):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest free number: this one
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
