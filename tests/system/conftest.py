"""The whole system as people start it: `python -m cotacoes up` on free ports, torn down whatever happens."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from tests.conftest import SEED

from cotacoes.config import PORT_OFFSETS, PREFIX
from cotacoes.errors import ServiceUnavailableError
from cotacoes.up import control
from cotacoes.up.supervision import die_with_parent, processes

READY_DEADLINE_S = 40.0
STOP_DEADLINE_S = 30.0
CLI_DEADLINE_S = 60.0
GET_DEADLINE_S = 10.0
POLL_S = 0.02
PARTS = [
    "shard1",
    "shard2",
    "redis",
    "external_service",
    "quote_service",
    "aggregator_service",
    "gateway_service",
    "client_subscriber",
]

NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # with it each of some hundred processes would compile the whole source anew

# Runs side by side choose ports from ranges of their own: the same seed would lead both to the same block.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORT_BASES = range(12_000 + 19_000 * WORKER // WORKERS, 12_000 + 19_000 * (WORKER + 1) // WORKERS - 100)

_random = random.Random(SEED)


def free_port_block() -> int:
    """A port base whose ports are all free, below those that systems give out by themselves."""
    while True:
        base = _random.choice(PORT_BASES)
        try:
            for offset in PORT_OFFSETS.values():
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base


def wait_until(what: str, condition: Callable[[], Any], limit_s: float = 20.0) -> Any:
    """What `condition` returns once that is true; fails, naming `what`, after `limit_s`."""
    due = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < due, f"not within {limit_s:g} s: {what}"
        time.sleep(POLL_S)
    return found


@dataclass
class Answer:
    """What came back over HTTP; `body` is decoded if it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any


class System:
    """One `cotacoes up` at a time on one data folder, and what it says."""

    def __init__(self, data: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.port_base = free_port_block()
        self.options = options
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith((PREFIX, NO_BYTECODE))},
            **(environment or {}),
        }
        self.wrapper: list[str] = []
        self.up: subprocess.Popen[bytes] | None = None
        self.events: list[dict[str, Any]] = []
        self.stderr = b""
        self._births: set[tuple[int, str]] = set()
        self._readers: list[threading.Thread] = []
        self._is_reading = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.up is not None and self.up.poll() is None:
                self.note_pids()
                self.up.send_signal(signal.SIGTERM)
                self.up.wait(STOP_DEADLINE_S)
        finally:
            if self.up is not None:
                self.up.kill()
                self.up.wait()
            for pid, born in self._births:
                if processes.is_same(pid, born):
                    os.kill(pid, signal.SIGKILL)
            for reader in self._readers:
                reader.join(5)

    def begin(self) -> Self:
        """Start it, and do not wait. It stops, with all that it started, if this process is killed."""
        self.events = []
        self.stderr = b""
        command = [
            *die_with_parent.launcher(signal.SIGTERM),
            *self.wrapper,
            *self.program,
            "up",
            "--json",
            "--data",
            str(self.data),
            "--port-base",
            str(self.port_base),
        ]
        self.up = subprocess.Popen(
            [*command, *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=read, args=(self.up,), daemon=True) for read in (self._read_events, self._read_talk)
        ]
        for reader in self._readers:
            reader.start()
        return self

    def start(self) -> Self:
        """Start it, and return once every service runs."""
        self.begin()
        self.wait_for_states(dict.fromkeys(PARTS, "running"))
        return self

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "cotacoes"]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this system's data folder."""
        return subprocess.run(
            [*self.program, *arguments, "--data", str(self.data)],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=CLI_DEADLINE_S,
        )

    def ask(self, command: str, service: str = "") -> dict[str, Any]:
        """What `up` answers to `stop`, `start`, `freeze`, `status` and `env`, as the commands of these names ask it.

        Without a process of its own for it: `test_up.py` holds the commands themselves. BadRequestError and
        ServiceUnavailableError are the commands' refusals.
        """
        return control.ask(self.data, command, service)

    def status(self) -> dict[str, dict[str, Any]]:
        """The services by name; empty if nothing runs."""
        try:
            return {service["name"]: service for service in self.ask("status")["parts"]}
        except ServiceUnavailableError:
            return {}

    def dsn(self, shard: str) -> str:
        dsn: str = self.ask("env")["env"][f"{PREFIX}{shard.upper()}_DSN"]
        return dsn

    def redis_url(self) -> str:
        url: str = self.ask("env")["env"]["COTACOES_REDIS_URL"]
        return url

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.port(service)}"

    def port(self, service: str) -> int:
        return self.port_base + PORT_OFFSETS[service]

    def get(self, service: str, path: str) -> Answer:
        """What a service answers now; refusals are answers too. OSError if it does not answer."""
        asked = urllib.request.Request(self.url(service) + path, headers={"Cache-Control": "no-cache"})
        try:
            with urllib.request.urlopen(asked, timeout=GET_DEADLINE_S) as response:
                return _answer(response)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return _answer(refusal)

    def pid(self, service: str) -> int:
        pid = self.status()[service]["pid"]
        assert isinstance(pid, int), f"{service} has no process"
        return pid

    def kill(self, service: str) -> None:
        """kill -9."""
        os.kill(self.pid(service), signal.SIGKILL)

    def kill_up(self) -> None:
        """kill -9 of `up` alone."""
        self.note_pids()
        assert self.up is not None
        self.up.kill()
        self.up.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.up is not None
        self.up.send_signal(number)

    def stop_reading(self) -> None:
        """Close the pipe of its output, with the next line that comes."""
        self._is_reading = False

    def wait_ended(self) -> int:
        """The exit code of `up`."""
        assert self.up is not None
        code = self.up.wait(STOP_DEADLINE_S)
        for reader in self._readers:
            reader.join(5)
        return code

    def note_pids(self) -> set[tuple[int, str]]:
        """All processes of the system just now, as (pid, birth)."""
        assert self.up is not None
        self._births |= {(member.pid, processes.birth(member.pid)) for member in processes.family(self.up.pid)}
        return self._births

    def left(self) -> set[tuple[int, str]]:
        """Those noted that still run."""
        return {(pid, born) for pid, born in self._births if processes.is_same(pid, born)}

    def wait_for_states(self, states: dict[str, str], limit_s: float = READY_DEADLINE_S) -> None:
        def reached() -> bool:
            assert self.up is not None
            assert self.up.poll() is None, f"up ended with {self.up.returncode}: {self.stderr.decode()}"
            seen = {event["part"]: event["state"] for event in list(self.events) if event["type"] == "part"}
            return all(seen.get(service) == state for service, state in states.items())

        wait_until(f"{states}", reached, limit_s)

    def wait_for_event(
        self, what: str, matches: Callable[[dict[str, Any]], bool], limit_s: float = 20.0
    ) -> dict[str, Any]:
        """The first line of `up --json` that matches."""
        found: dict[str, Any] = wait_until(
            what, lambda: next((event for event in list(self.events) if matches(event)), None), limit_s
        )
        return found

    def _read_events(self, up: subprocess.Popen[bytes]) -> None:
        assert up.stdout is not None
        with up.stdout:
            for line in up.stdout:
                if not self._is_reading:
                    return
                if line.endswith(b"\n"):  # a killed `up` may leave half a line
                    self.events.append(json.loads(line))

    def _read_talk(self, up: subprocess.Popen[bytes]) -> None:
        assert up.stderr is not None
        with up.stderr:
            for line in up.stderr:
                self.stderr += line


def _answer(response: Any) -> Answer:
    raw = response.read()
    kind = response.headers.get("content-type", "")
    return Answer(response.status, dict(response.headers), json.loads(raw) if "json" in kind else raw.decode())


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system that is not started yet."""
    with System(tmp_path / "the data") as one:
        yield one


@pytest.fixture(scope="module")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that runs, for all tests of a module; each leaves it running."""
    with System(tmp_path_factory.mktemp("a system") / "data") as one:
        yield one.start()
