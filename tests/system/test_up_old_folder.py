"""A data folder that the code before 0.2 left is opened: history, positions, reports and audit go on from there.

`tests/data/folder_before_0_2` has the files of such a folder, and a dump of each shard in place of its cluster, which
would be too large. It holds two epochs of two coins.
"""

import contextlib
import gzip
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.conftest import System, free_port_block, wait_until

from cotacoes.config import SHARDS
from cotacoes.up import embedded_servers
from cotacoes.up.data_folder import DataFolder

OLD = Path(__file__).parents[1] / "data" / "folder_before_0_2"
COINS = ("bitcoin", "ethereum")


def recorded(coin: str) -> list[tuple[str, str]]:
    """Position and price of each quote in the old log."""
    file = OLD / "quote_service" / "quotes.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as log:
        rows = log.execute("SELECT epoch, seq, price FROM entry WHERE coin = ? ORDER BY epoch, seq", (coin,)).fetchall()
    return [(f"{epoch}-{seq}", price) for epoch, seq, price in rows]


def restore(folder: DataFolder, shard: str, port: int) -> None:
    """Make a cluster for the shard, and load its dump."""
    path, password = folder.path / shard, folder.secret(shard)
    embedded_servers.initialise_postgres(path, password)
    server = subprocess.Popen(
        embedded_servers.postgres_command(path, port), env=embedded_servers.environment(), stderr=subprocess.DEVNULL
    )
    try:
        wait_until("PostgreSQL is ready", lambda: embedded_servers.postgres_is_ready(path, server.pid))
        psql = [str(embedded_servers.postgres_folder() / "psql"), "--quiet", "--set=ON_ERROR_STOP=1"]
        dump = gzip.decompress((OLD / f"{shard}.sql.gz").read_bytes())
        dsn = embedded_servers.postgres_dsn(port, password)
        subprocess.run([*psql, dsn], input=dump, check=True, timeout=60, stdout=subprocess.DEVNULL)
    finally:
        server.send_signal(2)  # SIGINT is its fast shutdown
        server.wait(30)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The old folder, with this release running on it."""
    data = tmp_path_factory.mktemp("old") / "data"
    shutil.copytree(OLD, data, ignore=shutil.ignore_patterns("*.gz"))
    data.chmod(0o700)
    with DataFolder(data) as folder:
        for shard in SHARDS:
            restore(folder, shard, free_port_block())
    # the clock of this machine may be behind the one that recorded the quotes
    with System(data, "--accept-clock") as one:
        yield one.start()


@pytest.mark.parametrize("coin", COINS)
def test_the_history_continues_in_a_new_epoch_after_the_last_old_quote(opened: System, coin: str) -> None:
    old = recorded(coin)

    def history() -> list[dict[str, object]]:
        done = opened.cli("history", coin, "--last", "1000", "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    rows = wait_until("a new quote is recorded", lambda: found if len(found := history()) > len(old) else None, 40)
    assert len(old) == 27
    assert [(f"{row['epoch']}-{row['seq']}", row["price"]) for row in rows[: len(old)]] == old
    first = rows[len(old)]
    assert (first["seq"], first["prev"]) == (1, old[-1][0])
    assert int(first["epoch"]) > int(rows[len(old) - 1]["epoch"])


def test_a_report_is_complete_and_every_service_runs(opened: System) -> None:
    def report() -> dict[str, object] | None:
        done = opened.cli("report", "--json")
        answer: dict[str, object] = json.loads(done.stdout or "{}")
        return answer if answer.get("complete") else None

    coins = wait_until("a complete report", report, 40)["coins"]
    assert set(coins) == set(COINS)
    status = opened.cli("status")
    assert status.returncode == 0
    assert status.stdout.count(" running ") == 8


def test_the_audit_finds_nothing_wrong_in_old_and_new_quotes(opened: System) -> None:
    def audit() -> subprocess.CompletedProcess[str] | None:
        done = opened.cli("audit")
        return done if done.returncode != 4 else None  # a shard may be busy for a moment

    done = wait_until("the audit is complete", audit, 60)
    assert (done.returncode, done.stdout.splitlines()[-1].partition(":")[0]) == (0, "nothing is wrong"), done.stdout
