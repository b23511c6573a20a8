"""Real servers for the contract suites, started as `cotacoes up` starts them and ended with the session."""

import contextlib
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.conftest import free_port

from cotacoes import embedded

READY_DEADLINE_S = 30.0


@dataclass
class Server:
    """A running server; freezing it stops all of its processes."""

    process: subprocess.Popen[bytes]
    port: int

    def freeze(self) -> None:
        for process in self._tree():
            process.suspend()

    def thaw(self) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
                process.resume()

    def _tree(self) -> list[psutil.Process]:
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]


def start(command: list[str], port: int, is_ready: Callable[[int], bool]) -> Server:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    due = time.monotonic() + READY_DEADLINE_S
    while not is_ready(process.pid):
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
        assert time.monotonic() < due, f"{command[0]} was not ready within {READY_DEADLINE_S} s"
        time.sleep(0.01)
    return Server(process, port)


def end(server: Server) -> None:
    server.thaw()
    server.process.terminate()
    try:
        server.process.wait(10)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait(10)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("postgres server") / "shard"
    embedded.initialise_postgres(folder, "password")
    port = free_port()
    server = start(embedded.postgres_command(folder, port), port, lambda pid: embedded.postgres_is_ready(folder, pid))
    yield server
    server.process.send_signal(2)  # the fast shutdown, which does not wait for connections
    end(server)


def start_valkey(folder: Path, port: int) -> Server:
    return start(embedded.valkey_command(folder, port), port, lambda _: embedded.valkey_is_ready(port))


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    server = start_valkey(tmp_path, free_port())
    yield server
    if server.process.poll() is None:
        end(server)


def psql(dsn: str, sql: str) -> str:
    """Run SQL as an operator would."""
    done = subprocess.run(
        [str(embedded.postgres_folder() / "psql"), "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", sql, dsn],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def databases(postgres_server: Server) -> Iterator[tuple[str, str]]:
    """Two empty databases, as shard1 and shard2."""
    server = embedded.postgres_dsn(postgres_server.port, "password", "postgres")
    names = [f"shard{number}_{uuid.uuid4().hex[:8]}" for number in (1, 2)]
    for name in names:
        psql(server, f"CREATE DATABASE {name}")
    yield (
        embedded.postgres_dsn(postgres_server.port, "password", names[0]),
        embedded.postgres_dsn(postgres_server.port, "password", names[1]),
    )
    for name in names:
        psql(server, f"DROP DATABASE {name} WITH (FORCE)")
