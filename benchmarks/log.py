"""`log`: quotes a second into the log, and out of it to a shard.

* commit: `QuoteLog.append` in batches of 1,000, each a transaction with its fsync. A shard follows closely, so that
  delivered entries are trimmed as they are in the running system;
* delivery: a log with a backlog is opened by the real `Recorder`, and the real `Delivery` brings it to an empty shard,
  with candles, over the real directory. The pace that spares a shard while it catches up is set out of reach.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.made_quotes import FIRST_EPOCH, batches, make_quotes
from benchmarks.servers import Server, make_shards, postgres_server
from benchmarks.writer import COIN, FOLDER, Writing, background, writing
from cotacoes import config
from cotacoes.adapters.postgres.days import PostgresDays
from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.rows import Mark
from cotacoes.model.quote import Quote
from cotacoes.observability.logs import configure_logging
from cotacoes.patterns.sharding.shard import BATCH_QUOTES_MAX
from cotacoes.testing.memory_bus import MemoryBus

COMMIT_AIM = Aim(200_000.0, is_floor=True)
DELIVERY_AIM = Aim(60_000.0, is_floor=True)
QUOTES_PER_S = 50_000  # of `Effort.seconds`: what is recorded and delivered in a round
QUOTA_BYTES = 2**30
SHARD_DEADLINE_S = 10.0
DELIVERY_DEADLINE_S = 120.0
POLL_S = 0.001


def measure(effort: Effort) -> list[Row]:
    configure_logging("bench", "error")
    quotes = make_quotes(int(QUOTES_PER_S * effort.seconds))
    committed, delivered = [], []
    with postgres_server() as server:
        for run in range(effort.runs):
            with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
                committed.append(len(quotes) / asyncio.run(_commit(Path(place), quotes)))
            with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
                settings = _settings(server, Path(place), run)
                delivered.append(len(quotes) / asyncio.run(_deliver(settings, quotes)))
    return [
        Row(f"log commit, batches of {BATCH_QUOTES_MAX}", "quotes/s", committed, COMMIT_AIM),
        Row("delivery of a backlog", "quotes/s", delivered, DELIVERY_AIM),
    ]


async def _commit(folder: Path, quotes: list[Quote]) -> float:
    """Seconds to commit them all."""
    log = await _begun(folder)
    mark = Mark(None, None)
    started_at = time.perf_counter()
    for batch in batches(quotes, BATCH_QUOTES_MAX):
        await log.append(batch, {COIN: mark})
        mark = Mark(batch[-1].position, quotes[0].position)
    spent_s = time.perf_counter() - started_at
    await log.close()
    return spent_s


async def _begun(folder: Path) -> QuoteLog:
    """An open log in which the era of the quotes has begun."""
    log = QuoteLog(folder, quota_bytes=QUOTA_BYTES)
    await log.open()
    await log.begin_epoch(COIN, FIRST_EPOCH, None, Mark(None, None))
    return log


def _settings(server: Server, place: Path, run: int) -> config.Settings:
    """Over two fresh shards."""
    names = (f"shard1_{run}", f"shard2_{run}")
    for name in names:
        server.sql("postgres", f"CREATE DATABASE {name}")
    shard1, shard2 = map(server.dsn, names)
    coins = f"{COIN}:shard1"
    make_shards(shard1, shard2, coins=coins)
    return config.load(
        {}, data=place, shard1_dsn=shard1, shard2_dsn=shard2, coins=coins, shard_deadline_s=SHARD_DEADLINE_S
    )


async def _deliver(settings: config.Settings, quotes: list[Quote]) -> float:
    """Seconds from the first question to the shard to its last answer."""
    folder = settings.data / FOLDER
    folder.mkdir()
    log = await _begun(folder)
    for batch in batches(quotes, BATCH_QUOTES_MAX):
        await log.append(batch, {})
    await log.close()
    async with writing(settings, MemoryBus()) as writer:
        async with PostgresDays("shard1", settings.dsn("shard1")) as days:
            await days.prepare(quotes[0].at.date(), quotes[-1].at.date())
        spent_s = await _until_delivered(writer)
        fence = await writer.directory.shard_of(COIN).fence(COIN)
    if fence.through != quotes[-1].position:
        raise MeasureError(f"the shard holds quotes up to {fence.through}, the log up to {quotes[-1].position}")
    return spent_s


async def _until_delivered(writer: Writing) -> float:
    started_at = time.perf_counter()
    history = writer.history
    async with background(writer.delivery.run()):
        try:
            async with asyncio.timeout(DELIVERY_DEADLINE_S):
                while history.pending or history.delivered is None:  # noqa: ASYNC110  # as a person would look
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise MeasureError(f"{history.pending} quotes were not delivered in {DELIVERY_DEADLINE_S:g} s") from error
        return time.perf_counter() - started_at
