"""Real servers for the contract suites, started as `cotacoes up` starts them and ended with the session."""

import contextlib
import os
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.conftest import free_port

from cotacoes import config, embedded
from cotacoes.admin import migrate

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
    """The embedded PostgreSQL, which a test may freeze; skips where the tests are to run against another one."""
    if OTHER_SERVER in os.environ:
        pytest.skip(f"the server's processes are out of reach: {OTHER_SERVER} names another one")
    folder = tmp_path_factory.mktemp("postgres server") / "shard"
    embedded.initialise_postgres(folder, "password")
    port = free_port()
    # without fsync, for speed: no test here cuts the power, and a process that is killed loses nothing by it
    command = [*embedded.postgres_command(folder, port), "-c", "fsync=off"]
    server = start(command, port, lambda pid: embedded.postgres_is_ready(folder, pid))
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


@pytest.fixture(scope="session")
def admin_dsn(request: pytest.FixtureRequest) -> str:
    """By which databases are made: COTACOES_TEST_DSN, or else that of the embedded server."""
    if OTHER_SERVER in os.environ:
        return os.environ[OTHER_SERVER]
    server: Server = request.getfixturevalue("postgres_server")
    return embedded.postgres_dsn(server.port, "password", "postgres")


def with_database(dsn: str, name: str) -> str:
    return urllib.parse.urlsplit(dsn)._replace(path=f"/{name}").geturl()


@pytest.fixture
def databases(admin_dsn: str) -> Iterator[tuple[str, str]]:
    """The DSNs of two empty databases, as shard1 and shard2, dropped afterwards.

    On the embedded server, or on that of COTACOES_TEST_DSN where it is set: a remote PostgreSQL 15 to 18, or the
    coordinator of a Citus cluster. It is the DSN, as a URI, of a user who may create databases, for example
    `postgresql://admin:password@db.example:5432/postgres`. Tests that freeze the server's processes then skip; those
    that put a proxy in between speak to it without TLS.
    """
    names = [f"shard{number}_{uuid.uuid4().hex[:8]}" for number in (1, 2)]
    for name in names:
        psql(admin_dsn, f"CREATE DATABASE {name}")
    yield with_database(admin_dsn, names[0]), with_database(admin_dsn, names[1])
    for name in names:
        psql(admin_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def migrated(databases: tuple[str, str]) -> str:
    """The DSN of a migrated shard1 on which bitcoin lives."""
    await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=databases[1], coins="bitcoin:shard1"))
    return databases[0]
