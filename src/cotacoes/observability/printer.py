"""Output that never holds up and never fails whoever writes: a terminal may be paused, a pipe unread, a disk full.

A thread writes. `WAITING_BYTES_MAX` wait for it at most; what comes beyond, and what cannot be written, is dropped,
and how many lines that were is said as soon as there is room again.

    Printer               lines, handed over by `put`
    unblocked_stderr      the same for all that this process writes to standard error: log, warnings, tracebacks
    open_standard_streams for a process that was started without them
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
LINE_CHARACTERS_MAX = 65_536  # of one without an end
CLOSE_S = 1.0  # what a reader that does not read is given at the end


class Printer:
    """A context manager. `write` may block; `on_failed` is called from the thread at the first of several failures.

    `dropped_line` makes the line that says how many are missing.
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
        self._lines: queue.SimpleQueue[tuple[int, bytes] | None] = (
            queue.SimpleQueue()
        )  # each with what is missing before
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._unsaid = 0
        self.dropped = 0  # lines, since the start
        # a daemon, since a write that nobody reads cannot be called off, and must not hold the process
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
        """Hand over one line, without its line feed."""
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
    """A text stream in place of `stream`, whose lines go to `put`."""

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
        """Hand over the last line, if it did not end."""
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
    """Within, nothing that writes to `sys.stderr` waits for its reader or fails with it."""
    stream = sys.stderr
    encoding = stream.encoding or "utf-8"
    with Printer(stream_writer(stream), lambda _: None, encoding=encoding, dropped_line=dropped_line) as printer:
        lines = LineStream(stream, printer.put)  # never closed: who kept it must not fail afterwards either
        try:
            with contextlib.redirect_stderr(lines):
                yield printer
        finally:
            lines.end_line()


def stream_writer(stream: TextIO) -> Callable[[bytes], None]:
    """A blocking write to where the stream goes: to its descriptor, past its buffer, if it has one."""
    try:
        return descriptor_writer(stream.fileno())
    except OSError:  # a stream in memory

        def write(data: bytes) -> None:
            stream.write(data.decode(stream.encoding or "utf-8", "replace"))

        return write


def descriptor_writer(descriptor: int) -> Callable[[bytes], None]:
    """A blocking write to a file descriptor, complete at its return, with no buffer of ours in between."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another process that shares the descriptor has made it non-blocking
                select.select([], [descriptor], [])

    return write


def open_standard_streams() -> None:
    """Open what this process was started without (`>&-`): else its number would go to the next file or socket opened.

    Standard input is at its end, standard output fails as any closed descriptor does, and standard error goes nowhere,
    since nobody could be told that it fails. What the encoding of standard output cannot write is replaced.
    """
    for descriptor, name, mode, flags in (
        (0, "stdin", "r", os.O_RDONLY),
        (1, "stdout", "w", os.O_RDONLY),
        (2, "stderr", "w", os.O_WRONLY),
    ):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number: this one
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
