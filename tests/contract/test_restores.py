"""Backups of random age, restored under the running writer: quotes in its log come back, the others are a hole."""

import asyncio
import functools
import json
import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.conftest import free_port
from tests.contract.conftest import OTHER_SERVER, Server, end, psql, start
from tests.unit.harness_quote_service import COIN, QuoteServiceCore, until

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.trim import Retention
from cotacoes.admin import audit, discrepancies, migrate
from cotacoes.config import Settings
from cotacoes.model.quote import Position, Quote
from cotacoes.up import embedded_servers

RETRIES: dict[str, Any] = {"retry_s": 0.005, "retry_max_s": 0.05}
pytestmark = pytest.mark.anyio

KEPT_S = 0.2  # of the writer's clock, in which a quote takes a millisecond


class Cluster:
    """A PostgreSQL server whose folder is copied and restored while it is down."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._server: Server | None = None
        embedded_servers.initialise_postgres(folder, "password")

    def dsn(self, database: str) -> str:
        return embedded_servers.postgres_dsn(self._port, "password", database)

    def start(self) -> None:
        command = [*embedded_servers.postgres_command(self._folder, self._port), "-c", "fsync=off"]
        self._server = start(command, self._port, lambda pid: embedded_servers.postgres_is_ready(self._folder, pid))

    def stop(self) -> None:
        if self._server is not None:
            self._server.process.send_signal(2)
            end(self._server)
            self._server = None

    def back_up(self, to: Path) -> None:
        self.stop()
        shutil.copytree(self._folder, to)
        self.start()

    def put_back(self, backup: Path) -> None:
        self.stop()
        shutil.rmtree(self._folder)
        shutil.copytree(backup, self._folder)
        self.start()


@dataclass
class Backup:
    folder: Path
    taken_at: datetime


class Restoring:
    """A writer that continues whatever happens to its shard, and all that it recorded."""

    def __init__(self, core: QuoteServiceCore, cluster: Cluster, settings: Settings, dice: Random) -> None:
        self.core = core
        self.cluster = cluster
        self.settings = settings
        self.dice = dice
        self.recorded: list[Quote] = []

    async def record(self, count: int) -> None:
        for _ in range(count):
            self.recorded += await self.core.record(str(self.dice.randrange(1, 1000)))

    async def delivered(self) -> None:
        last = self.recorded[-1].position
        await until(lambda: self.core.history.pending == 0 and self.core.history.end == last, 60)

    async def while_recording(self, work: asyncio.Future[None]) -> None:
        while not work.done():
            await self.record(1)
            await asyncio.sleep(0.02)
        await work

    async def read(self) -> tuple[list[Position], list[tuple[Position, Position]]]:
        """The quotes and the holes of the history, read in pages."""
        held: list[Position] = []
        holes: list[tuple[Position, Position]] = []
        after, more = None, True
        while more:
            page = json.loads(await self.core.answers.after(COIN, after, 70))
            held += [Position(quote["epoch"], quote["seq"]) for quote in page["quotes"]]
            holes += [(Position.parse(gap["after"]), Position.parse(gap["through"])) for gap in page["gaps"]]
            more, after = page["more"], held[-1]
        return held, holes

    async def check(self) -> set[Position]:
        """Check that stored quotes and reported holes add up to what was recorded; returns the missing positions."""
        held, holes = await self.read()
        missing = {
            quote.position
            for quote in self.recorded
            if any(after < quote.position <= through for after, through in holes)
        }
        assert held == [quote.position for quote in self.recorded if quote.position not in missing]
        noted = await discrepancies.accept(self.settings, COIN)
        assert noted.orphans == 0
        found = await audit.main(self.settings, on_coin=lambda _: None, say=lambda _: None, second_look_after_s=0)
        assert (found.verdict, found.wrong) == ("right", 0)
        return missing


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
async def test_a_backup_of_any_age_restored_under_the_writer_leaves_only_reported_holes(
    tmp_path: Path, seeded: Random, rounds: int
) -> None:
    if OTHER_SERVER in os.environ:
        pytest.skip("the server's folder is out of reach")
    cluster = Cluster(tmp_path / "server")
    cluster.start()
    try:
        for name in ("one", "two"):
            psql(cluster.dsn("postgres"), f"CREATE DATABASE {name}")
        settings = config.load(
            {},
            shard1_dsn=cluster.dsn("one"),
            shard2_dsn=cluster.dsn("two"),
            coins=f"{COIN}:shard1",
            port_base=free_port(),
        )
        await migrate.main(settings)
        async with PostgresShard("shard1", cluster.dsn("one"), deadline_s=2.0) as shard:
            log = functools.partial(QuoteLog, retention=Retention(quotes=30, seconds=KEPT_S, every=10))
            core = QuoteServiceCore(tmp_path / "log", shard, log=log, **RETRIES)  # type: ignore[arg-type]
            world = Restoring(core, cluster, settings, seeded)
            async with core.running():
                await put_back_again_and_again(world, tmp_path, rounds)
    finally:
        cluster.stop()


async def put_back_again_and_again(world: Restoring, folder: Path, rounds: int) -> None:
    await world.record(5)
    await world.delivered()
    backups: list[Backup] = []
    known: set[Position] = set()
    for number in range(rounds):
        backups.append(Backup(folder / f"backup{number}", world.core.wall))
        await world.while_recording(asyncio.ensure_future(asyncio.to_thread(world.cluster.back_up, backups[-1].folder)))
        await world.record(world.dice.choice([5, 50, 400]))
        await world.delivered()
        if world.dice.random() < 0.3:  # an epoch that the backup does not have
            world.core.history._is_over = True
            await world.core.recorder.begin_missing_epochs()
            await world.record(3)
            await world.delivered()
        chosen = world.dice.choice(backups[-5:])
        age = world.core.wall - chosen.taken_at
        newest = world.recorded[-1].position
        before = world.core.wall
        await world.while_recording(asyncio.ensure_future(asyncio.to_thread(world.cluster.put_back, chosen.folder)))
        await world.delivered()
        assert not world.core.superseded
        missing = await world.check()
        if age < timedelta(seconds=KEPT_S) and world.core.wall - before < timedelta(seconds=KEPT_S) - age:
            assert missing <= known, "a younger backup than the log leaves no hole"
        assert newest not in missing
        known |= missing
        for old in backups[:-5]:
            shutil.rmtree(old.folder, ignore_errors=True)
