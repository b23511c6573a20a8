"""Real servers for the contract suites, started as `cotacoes up` starts them and ended with the session."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.conftest import free_port

from cotacoes import config
from cotacoes.admin import migrate
from cotacoes.up import embedded_servers
from cotacoes.up.supervision import die_with_parent

READY_DEADLINE_S = 30.0
OTHER_SERVER = "COTACOES_TEST_DSN"  # an administrator's DSN, by which the shards' suites run against another PostgreSQL


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


def start(
    command: list[str], port: int, is_ready: Callable[[int], bool], *, death: signal.Signals = signal.SIGKILL
) -> Server:
    """A server that accepts connections; it gets `death` if this process is killed, so that nothing outlives a run."""
    process = subprocess.Popen(
        [*die_with_parent.launcher(death), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
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
    """The embedded PostgreSQL, which a test may freeze; skipped if the tests run against another server."""
    if OTHER_SERVER in os.environ:
        pytest.skip(f"the server's processes are out of reach: {OTHER_SERVER} names another one")
    folder = tmp_path_factory.mktemp("postgres server") / "shard"
    embedded_servers.initialise_postgres(folder, "password")
    port = free_port()
    # without fsync, for speed: no test here cuts the power, and a process that is killed loses nothing by it
    command = [*embedded_servers.postgres_command(folder, port), "-c", "fsync=off"]
    # SIGQUIT is its immediate shutdown, SIGINT the fast one, which does not wait for connections
    server = start(command, port, lambda pid: embedded_servers.postgres_is_ready(folder, pid), death=signal.SIGQUIT)
    yield server
    server.process.send_signal(signal.SIGINT)
    end(server)


def start_valkey(folder: Path, port: int) -> Server:
    return start(embedded_servers.valkey_command(folder, port), port, lambda _: embedded_servers.valkey_is_ready(port))


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    server = start_valkey(tmp_path, free_port())
    yield server
    if server.process.poll() is None:
        end(server)


def psql(dsn: str, sql: str) -> str:
    """Run SQL as an operator would."""
    done = subprocess.run(
        [str(embedded_servers.postgres_folder() / "psql"), "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", sql, dsn],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def admin_dsn(request: pytest.FixtureRequest) -> str:
    """The DSN with which databases are created: COTACOES_TEST_DSN, or else that of the embedded server."""
    if OTHER_SERVER in os.environ:
        return os.environ[OTHER_SERVER]
    server: Server = request.getfixturevalue("postgres_server")
    return embedded_servers.postgres_dsn(server.port, "password", "postgres")


def with_database(dsn: str, name: str) -> str:
    return urllib.parse.urlsplit(dsn)._replace(path=f"/{name}").geturl()


class Databases:
    """Creates databases on the server, and drops those that it has created.

    They are copied file by file: copying page by page through the server's log, its default, takes some twenty times as
    long on a server that syncs nothing. Migrated databases are copies too, of a pair that is migrated once for each way
    to place coins; only the copying ever connects to that pair again.
    """

    def __init__(self, admin_dsn: str) -> None:
        self.admin_dsn = admin_dsn
        self._names: list[str] = []
        self._placed: dict[str, tuple[str, str]] = {}

    def make(self, role: str, template: str = "template1") -> str:
        """The name of a new database, a copy of the template if there is one, else empty."""
        name = f"{role}_{uuid.uuid4().hex[:8]}"
        psql(self.admin_dsn, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        self._names.append(name)
        return name

    def dsn(self, name: str) -> str:
        return with_database(self.admin_dsn, name)

    def placed(self, coins: str) -> tuple[str, str]:
        """The names of two databases to copy: shard1 and shard2, migrated, with coins as COTACOES_COINS places them."""
        if coins not in self._placed:
            first, second = names = self.make("placed1"), self.make("placed2")
            settings = config.load({}, shard1_dsn=self.dsn(first), shard2_dsn=self.dsn(second), coins=coins)
            with ThreadPoolExecutor(1) as thread:  # in this one a test's event loop may be running
                thread.submit(asyncio.run, migrate.main(settings)).result()
            self._placed[coins] = names
        return self._placed[coins]

    def drop(self) -> None:
        while self._names:
            psql(self.admin_dsn, f"DROP DATABASE {self._names.pop()} WITH (FORCE)")


@pytest.fixture(scope="session")
def templates(admin_dsn: str) -> Iterator[Databases]:
    """The databases that tests copy, but never write to."""
    made = Databases(admin_dsn)
    yield made
    made.drop()


@pytest.fixture
def made(admin_dsn: str) -> Iterator[Databases]:
    """Databases for this test alone.

    They are on the embedded server, or on that of COTACOES_TEST_DSN if it is set: a remote PostgreSQL 15 to 18, or the
    coordinator of a Citus cluster. Its value is the DSN, as a URI, of a user who may create databases, for example
    `postgresql://admin:password@db.example:5432/postgres`. Then tests that freeze the server's processes are skipped,
    and those with a proxy in between connect without TLS.
    """
    made = Databases(admin_dsn)
    yield made
    made.drop()


@pytest.fixture
def databases(made: Databases) -> tuple[str, str]:
    """The DSNs of two empty databases, as shard1 and shard2."""
    return made.dsn(made.make("shard1")), made.dsn(made.make("shard2"))


Placed = Callable[[str], tuple[str, str]]


@pytest.fixture
def placed(made: Databases, templates: Databases) -> Placed:
    """Gives the DSNs of two migrated databases, as shard1 and shard2, with coins as COTACOES_COINS places them."""

    def place(coins: str) -> tuple[str, str]:
        first, second = templates.placed(coins)
        return made.dsn(made.make("shard1", first)), made.dsn(made.make("shard2", second))

    return place


@pytest.fixture
def migrated(placed: Placed) -> str:
    """The DSN of a migrated shard1 on which bitcoin lives."""
    return placed("bitcoin:shard1")[0]
