"""One child process: its lines as they come, its end, and that it does not outlive us.

The wait is a thread of ours, not asyncio's: in some Python versions asyncio's waits for the pipes as well, and those
stay open as long as any orphan of the child holds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from cotacoes.up.supervision import die_with_parent

LINE_BYTES_MAX = 65_536
LAST_LINES_S = 0.25  # what is left in the pipes of a child that has ended is read for so long

OnLine = Callable[[str, bytes], None]


class Child:
    """A process, running or ended. `on_line(stream, line)` is called from the loop, without the line feed."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: OnLine) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        self._process = process
        self._on_line = on_line
        self._ended: asyncio.Future[int] = loop.create_future()
        self._pipes: list[_LineProtocol] = []

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_line: OnLine,
        *,
        death_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start it in its own session; on Linux it gets `death_signal` when we end. OSError if it cannot start."""
        with _pipe() as (stdout, to_stdout), _pipe() as (stderr, to_stderr):
            process = subprocess.Popen(  # noqa: ASYNC220  # returns at once; the child must descend from the main thread
                [*die_with_parent.launcher(death_signal), *command],
                stdin=subprocess.DEVNULL,
                stdout=to_stdout,
                stderr=to_stderr,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C on the terminal is for us alone
            )
        child = cls(process, on_line)
        threading.Thread(
            target=child._wait, args=(asyncio.get_running_loop(),), name=f"wait {process.pid}", daemon=True
        ).start()
        await child._read(stdout=stdout, stderr=stderr)
        return child

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """The exit code, once it has ended and its last lines are read."""
        code = await asyncio.shield(self._ended)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LINES_S):
                for pipe in self._pipes:
                    await pipe.closed.wait()
        for pipe in self._pipes:
            pipe.close()
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._ended.set_result, code)

    async def _read(self, **pipes: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        for name, pipe in pipes.items():
            _, lines = await loop.connect_read_pipe(functools.partial(_LineProtocol, name, self._on_line), pipe)
            self._pipes.append(lines)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], int]]:
    """A pipe: our end, which is closed here if the body fails, and the child's, which always is.

    The child's end does not block. While we stand still, what the child writes beyond what the pipe holds is dropped:
    blocked on its log, it would stand still as well.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    reader = os.fdopen(ours, "rb", buffering=0)
    try:
        yield reader, theirs
    except BaseException:
        reader.close()
        raise
    finally:
        os.close(theirs)


class _LineProtocol(asyncio.Protocol):
    """Cuts what comes into lines; of a line beyond `LINE_BYTES_MAX` the rest is dropped."""

    def __init__(self, name: str, on_line: OnLine) -> None:
        self._name = name
        self._on_line = on_line
        self._rest = b""
        self._is_dropping = False
        self._transport: asyncio.BaseTransport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._is_dropping:
                self._on_line(self._name, line[:LINE_BYTES_MAX].removesuffix(b"\r"))
            self._is_dropping = False
        if len(self._rest) > LINE_BYTES_MAX:
            if not self._is_dropping:
                self._on_line(self._name, self._rest[:LINE_BYTES_MAX])
            self._is_dropping = True
            self._rest = b""

    def eof_received(self) -> None:
        if self._rest and not self._is_dropping:
            self._on_line(self._name, self._rest)
        self._rest = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
