"""PostgreSQL and Valkey for a figure: from the wheels, as `cotacoes up` starts them, in folders removed at the end.

Durability is on, as it is in the system. Databases on it are made as shards by `cotacoes migrate` itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figure import MeasureError
from benchmarks.system import free_port_block
from cotacoes import config
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin import migrate
from cotacoes.up import embedded_servers
from cotacoes.up.supervision import die_with_parent

PASSWORD = "measure"
READY_DEADLINE_S = 30.0
READY_POLL_S = 0.02
STOP_DEADLINE_S = 30.0
PROGRAM_DEADLINE_S = 600.0  # of one psql or pgbench; the longest fills ten million rows, day by day
STATEMENT_DEADLINE_S = 300.0
CONNECT_DEADLINE_S = 10.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    folder: Path

    def dsn(self, database: str) -> str:
        return embedded_servers.postgres_dsn(self.port, PASSWORD, database)

    def psql(self, database: str, *words: str) -> str:
        """What psql says to commands and scripts, `-c SQL` or `-f FILE`; MeasureError where one fails."""
        return self.run("psql", "-qXAt", "-v", "ON_ERROR_STOP=1", *words, self.dsn(database))

    def sql(self, database: str, sql: str) -> str:
        """What psql says to one command."""
        return self.psql(database, "-c", sql)

    def run(self, program: str, *words: str) -> str:
        """What a program from the wheel says; MeasureError where it fails."""
        try:
            done = subprocess.run(
                [str(embedded_servers.postgres_folder() / program), *words],
                env=embedded_servers.environment(),
                capture_output=True,
                text=True,
                timeout=PROGRAM_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"{program} did not end within {PROGRAM_DEADLINE_S:g} s") from error
        if done.returncode:
            raise MeasureError(f"{program} failed: {done.stderr.strip() or done.returncode}")
        return done.stdout.strip()

    def make_shards(self, *names: str, coins: str = "bitcoin:shard1") -> None:
        """Databases by these names, one or two, as shard1 and shard2; one alone has a partner that is dropped again."""
        partner = [] if len(names) > 1 else [f"{names[0]}_partner"]
        both = [*names, *partner]
        for name in both:
            self.sql("postgres", f"CREATE DATABASE {name}")
        make_shards(self.dsn(both[0]), self.dsn(both[1]), coins=coins)
        for name in partner:
            self.sql("postgres", f"DROP DATABASE {name}")

    def shard(self, database: str) -> PostgresShard:
        """shard1, with a deadline that no measure meets."""
        return PostgresShard("shard1", self.dsn(database), deadline_s=STATEMENT_DEADLINE_S)

    def session(self, database: str) -> Session:
        """One connection for plain SQL."""
        return Session("shard1", self.dsn(database), connect_s=CONNECT_DEADLINE_S, deadline_s=STATEMENT_DEADLINE_S)


def make_shards(shard1_dsn: str, shard2_dsn: str, *, coins: str) -> None:
    """`cotacoes migrate` over two empty databases."""
    asyncio.run(migrate.main(config.load({}, shard1_dsn=shard1_dsn, shard2_dsn=shard2_dsn, coins=coins)))


@contextlib.contextmanager
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL with an empty database `cotacoes`; MeasureError where it does not start."""
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        folder = Path(place) / "postgres"
        embedded_servers.initialise_postgres(folder, PASSWORD)
        port = free_port_block()
        # SIGINT is its fast shutdown, SIGQUIT the immediate one
        with _running(
            embedded_servers.postgres_command(folder, port),
            lambda pid: embedded_servers.postgres_is_ready(folder, pid),
            stop=signal.SIGINT,
            death=signal.SIGQUIT,
        ):
            yield Server(port, folder)


@contextlib.contextmanager
def valkey_server() -> Iterator[int]:
    """The port of a Valkey; MeasureError where it does not start."""
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        port = free_port_block()
        with _running(
            embedded_servers.valkey_command(Path(place), port),
            lambda _: embedded_servers.valkey_is_ready(port),
            stop=signal.SIGTERM,
            death=signal.SIGKILL,
        ):
            yield port


@contextlib.contextmanager
def _running(
    command: list[str], is_ready: Callable[[int], bool], *, stop: signal.Signals, death: signal.Signals
) -> Iterator[None]:
    """A server that takes connections; it does not outlive us."""
    process = subprocess.Popen(
        [*die_with_parent.launcher(death), *command],
        env=embedded_servers.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        due = time.monotonic() + READY_DEADLINE_S
        while not is_ready(process.pid):
            if process.poll() is not None or time.monotonic() > due:
                raise MeasureError(f"{command[0]} did not start within {READY_DEADLINE_S:g} s")
            time.sleep(READY_POLL_S)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
