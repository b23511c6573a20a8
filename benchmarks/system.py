"""The system under measure: `python -m cotacoes up` as people start it, on free ports, and gone at the end.

Whatever ends a measure ends the system: `up` is asked to stop, and what is left of its family after that is killed.
Where this process itself is killed, `up` ends by itself with the next line that it can not write.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.figure import MeasureError
from cotacoes import config
from cotacoes.config import PORT_OFFSETS, PREFIX, SHARDS, Settings
from cotacoes.up import control
from cotacoes.up.data_folder import read_running
from cotacoes.up.live_view import SUBSCRIBER
from cotacoes.up.supervision import processes
from cotacoes.up.supervision.service import ServiceState

SERVICES = (*Settings().http_services, SUBSCRIBER)
RUNNING = ServiceState.RUNNING.value
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0  # each part may take its grace
KILL_DEADLINE_S = 5.0
PORT_BASES = range(12_000, 31_000)  # below those that systems give out by themselves
PORT_TRIES = 100


class System:
    """A running `up`. `quotes` counts by coin the quote lines that client_subscriber has shown."""

    def __init__(self, data: Path, settings: dict[str, str], complaints: IO[bytes]) -> None:
        self.data = data
        self.port_base = free_port_block()
        self.quotes: Counter[str] = Counter()
        services = config.load({}, **{name.removeprefix(PREFIX).lower(): text for name, text in settings.items()})
        self._parts = (*SHARDS, "redis", *services.http_services, SUBSCRIBER)
        self._states: dict[str, str] = {}
        self._first_quote_at: float | None = None
        self._has_ended = False
        self._news = threading.Condition()
        self._complaints = complaints
        self._started_at = time.monotonic()
        self._up = subprocess.Popen(
            [
                *(sys.executable, "-m", "cotacoes", "up", "--json"),
                *("--data", str(data), "--port-base", str(self.port_base)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={name: text for name, text in os.environ.items() if not name.startswith(PREFIX)} | settings,
            start_new_session=True,  # Ctrl-C is for us, who then stop it in order
        )
        self._reader = threading.Thread(target=self._read, name="up's lines", daemon=True)
        self._reader.start()

    def wait_first_quote(self) -> float:
        """Seconds from the start of the process to the first quote line."""
        self._wait("a first quote", lambda: self._first_quote_at is not None)
        assert self._first_quote_at is not None
        return self._first_quote_at - self._started_at

    def wait_running(self) -> None:
        """Until every part runs and the first quote was shown."""
        self._wait("all parts running", lambda: all(self._states.get(part) == RUNNING for part in self._parts))
        self.wait_first_quote()

    def pids(self) -> dict[str, int]:
        """The process of `up` and the topmost process of each part."""
        parts = control.ask(self.data, "status")["parts"]
        return {"up": self._up.pid} | {part["name"]: part["pid"] for part in parts}

    def port(self, part: str) -> int:
        return self.port_base + PORT_OFFSETS[part]

    def url(self, part: str) -> str:
        return f"http://127.0.0.1:{self.port(part)}"

    def redis_url(self) -> str:
        """Where its Valkey is, with the password."""
        url: str = control.ask(self.data, "env")["env"]["COTACOES_REDIS_URL"]
        return url

    def stop(self) -> None:
        """Stop it, and kill what is left."""
        members = processes.family(self._up.pid)
        try:
            self._up.terminate()
            self._up.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            members += processes.family(self._up.pid)
        finally:
            processes.kill(members)
            self._up.wait(KILL_DEADLINE_S)
            processes.wait_gone(members, KILL_DEADLINE_S)
            if (left := read_running(self.data)) is not None:  # an `up` that ended in order leaves no such note
                processes.end_leftovers(left.children, deadline_s=KILL_DEADLINE_S)
            self._reader.join(KILL_DEADLINE_S)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        with self._news:
            self._news.wait_for(lambda: self._has_ended or condition(), READY_DEADLINE_S)
            if not condition():
                raise MeasureError(f"not within {READY_DEADLINE_S:g} s: {what} ({self._said()})")

    def _said(self) -> str:
        """What could tell why it is not as it should be: the parts that do not run, and what `up` complained of."""
        states = [
            f"{part} {self._states.get(part, 'unknown')}" for part in self._parts if self._states.get(part) != RUNNING
        ]
        self._complaints.seek(0)
        return "; ".join([*states, *self._complaints.read().decode(errors="replace").splitlines()])

    def _read(self) -> None:
        assert self._up.stdout is not None
        try:
            with self._up.stdout as lines:
                for line in lines:
                    self._take(json.loads(line))
        finally:
            with self._news:
                self._has_ended = True
                self._news.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        with self._news:
            if event["type"] == "quote":
                self.quotes[event["coin"]] += 1
                self._first_quote_at = self._first_quote_at or now
            elif event["type"] == "part":
                self._states[event["part"]] = " ".join(filter(None, [event["state"], event["detail"]]))
            self._news.notify_all()


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder that does not exist yet, in a place of its own that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        yield Path(place) / "data"


@contextlib.contextmanager
def started(data: Path, **settings: str) -> Iterator[System]:
    """A system that was just started on `data`; `settings` are its COTACOES_ variables, without that prefix."""
    with tempfile.TemporaryFile() as complaints:
        system = System(data, {PREFIX + name: text for name, text in settings.items()}, complaints)
        try:
            yield system
        finally:
            system.stop()


@contextlib.contextmanager
def running(**settings: str) -> Iterator[System]:
    """A system on fresh data of which every part runs."""
    with data_folder() as data, started(data, **settings) as system:
        system.wait_running()
        yield system


def python_parts(pids: dict[str, int]) -> dict[str, psutil.Process]:
    """Those of our own code: `up` and the services."""
    return {name: psutil.Process(pids[name]) for name in ("up", *SERVICES)}


def free_port_block(bases: range = PORT_BASES) -> int:
    """A port base whose ports are all free."""
    for base in random.sample(bases, PORT_TRIES):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for offset in PORT_OFFSETS.values():
                stack.enter_context(socket.socket()).bind(("127.0.0.1", base + offset))
            return base
    raise MeasureError(f"no free block of ports in {PORT_TRIES} tries")
