"""A program under measure: started, awaited on its port, and ended with the context."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from benchmarks import fanout_wire as wire
from benchmarks.fanout_history import History
from benchmarks.figure import MeasureError
from cotacoes.up.supervision import die_with_parent, processes

READY_DEADLINE_S = 30.0
READY_POLL_S = 0.05
STOP_DEADLINE_S = 30.0
COMPLAINT_CHARS = 500
HOLD_ALL = b'CONFIG SET client-output-buffer-limit "pubsub 0 0 0" maxmemory 0\r\n'  # for those who do not read


class MissingPeerError(Exception):
    """The peer's program is not here; the message says what to install."""


@dataclass(frozen=True)
class Server:
    """A server under measure. `history` is of ours alone, whose stand-in answers from it."""

    name: str
    pid: int
    ingress: wire.Ingress
    websocket: wire.Egress
    events: wire.Egress | None = None
    history: History | None = None

    def cpu_s(self) -> float:
        """User and system time so far, its own and its workers'."""
        return sum(times.user + times.system for times in (one.cpu_times() for one in processes.family(self.pid)))


def find_program(name: str, hint: str) -> str:
    """Its path; MissingPeerError where it is not there."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise MissingPeerError(f"there is no {name}: {hint}")
    return found


@contextlib.contextmanager
def running_program(command: Sequence[str], port: int, *, environment: dict[str, str] | None = None) -> Iterator[int]:
    """The number of the process of a program that listens on `port`; it does not outlive us."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*die_with_parent.launcher(signal.SIGTERM), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            due = time.monotonic() + READY_DEADLINE_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > due:
                    raise MeasureError(f"{command[0]} does not listen on port {port}: {_said(complaints)}")
                time.sleep(READY_POLL_S)
            yield process.pid
            if process.poll() is not None:
                raise MeasureError(f"{command[0]} ended by itself: {_said(complaints)}")
        finally:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                processes.kill(processes.family(process.pid))
                process.wait()


def _said(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    return complaints.read().decode(errors="replace")[-COMPLAINT_CHARS:].strip()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1.0).close()
        return True
    return False


def ask_valkey(port: int, command: bytes) -> None:
    """One command that answers with OK or a number; MeasureError where it does not."""
    with socket.create_connection(("127.0.0.1", port), READY_DEADLINE_S) as link:
        link.sendall(command)
        if (said := link.recv(1024))[:1] not in (b"+", b":"):
            raise MeasureError(f"Valkey refused: {said.decode(errors='replace').strip()}")
