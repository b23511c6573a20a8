"""`history`: whether ten million rows in ninety days are read as fast as ten thousand.

Two databases on one server. The large one is filled by the server itself, day by day, with its days and its fence as
the ledger would have left them; candles are left out, which these reads do not touch. Asked are the last 100 quotes and
100 after a position anywhere in the history, by turns in both, over one connection each, through `PostgresShard`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.http_ratio import ratios
from benchmarks.made_quotes import FIRST_DAY, FIRST_EPOCH, SEED
from benchmarks.servers import Server, postgres_server
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.model.quote import Position, Quote

AIM = Aim(1.3)
DAYS = 90
SMALL_QUOTES = 10_000
LARGE_QUOTES_PER_S = 1_000_000  # of `Effort.seconds`: ten seconds stand for ten million quotes
READS = 400  # of each kind in each database and round
COUNT = 100
_DAY = """
SELECT prepare_day('{day:%Y-%m-%d}');
INSERT INTO quote_{day:%Y%m%d} (epoch, at, observed_at, coin_id, seq, origin_id, price)
SELECT {epoch}, t.at, t.at - interval '3 milliseconds', 1, t.seq, 1, round(t.cents / 100, 2)
FROM (
    SELECT seq, '{day:%Y-%m-%d}Z'::timestamptz + (seq - {first}) * interval '{step_us} microseconds' AS at,
        (6700000 + seq % 9973)::numeric AS cents
    FROM generate_series({first}, {last}) AS seq
) AS t;
INSERT INTO day (coin_id, day, first_epoch, first_seq, last_epoch, last_seq, count)
VALUES (1, '{day:%Y-%m-%d}', {epoch}, {first}, {epoch}, {last}, {last} - {first} + 1);
"""
_FENCE = """
UPDATE fence SET floor_epoch = {epoch}, floor_seq = 1, last_epoch = {epoch}, last_seq = {last}, writer_epoch = {epoch}
WHERE coin_id = 1;
VACUUM ANALYZE;
CHECKPOINT;
"""


def measure(effort: Effort) -> list[Row]:
    large = max(10 * SMALL_QUOTES, int(LARGE_QUOTES_PER_S * effort.seconds))
    with postgres_server() as server:
        for name, count, days in (("small", SMALL_QUOTES, 1), ("large", large, DAYS)):
            server.make_shards(name)
            fill(server, name, count, days)
        return asyncio.run(_measure(server, effort.runs, large))


def fill(server: Server, database: str, count: int, days: int) -> None:
    """So many quotes of bitcoin in so many days, in one era, and what the ledger keeps of them but candles."""
    server.sql(database, "INSERT INTO origin (name, currency) VALUES ('sim', 'USD')")
    for number in range(days):
        first, last = 1 + count * number // days, count * (number + 1) // days
        day = FIRST_DAY + timedelta(days=number)
        step_us = 86_400_000_000 // (last - first + 1)
        server.sql(database, _DAY.format(day=day, epoch=FIRST_EPOCH, first=first, last=last, step_us=step_us))
    for statement in _FENCE.format(epoch=FIRST_EPOCH, last=count).strip().split(";\n"):
        server.sql(database, statement)


async def _measure(server: Server, runs: int, large: int) -> list[Row]:
    chance = random.Random(SEED)
    medians: dict[tuple[str, str], list[float]] = {}
    async with server.shard("small") as small, server.shard("large") as big:
        for _ in range(runs):
            seqs = {
                "small": [chance.randrange(1, SMALL_QUOTES - COUNT) for _ in range(READS)],
                "large": [chance.randrange(1, large - COUNT) for _ in range(READS)],
            }
            for key, found in (await _round({"small": small, "large": big}, seqs)).items():
                medians.setdefault(key, []).append(1000 * statistics.median(found))
    return [
        row
        for kind, name in (("last", f"last {COUNT}"), ("after", f"{COUNT} after a position"))
        for row in (
            Row(
                f"{name}, {large:,} rows",
                f"of {SMALL_QUOTES:,}",
                ratios(medians[kind, "large"], medians[kind, "small"]),
                AIM,
            ),
            Row(f"{name}, {large:,} rows", "ms", medians[kind, "large"]),
            Row(f"{name}, {SMALL_QUOTES:,} rows", "ms", medians[kind, "small"]),
        )
    ]


async def _round(shards: dict[str, PostgresShard], seqs: dict[str, list[int]]) -> dict[tuple[str, str], list[float]]:
    """Seconds of every read, by kind and database, one of each by turns."""
    spent: dict[tuple[str, str], list[float]] = {}
    for number in range(READS):
        for name, shard in shards.items():
            position = Position(FIRST_EPOCH, seqs[name][number])
            started_at = time.perf_counter()
            last = await shard.last("bitcoin", COUNT)
            read_at = time.perf_counter()
            after = await shard.after("bitcoin", position, COUNT)
            spent.setdefault(("after", name), []).append(time.perf_counter() - read_at)
            spent.setdefault(("last", name), []).append(read_at - started_at)
            _check(last, after, position)
    return spent


def _check(last: Sequence[Quote], after: Sequence[Quote], position: Position) -> None:
    if len(last) != COUNT or [quote.seq for quote in after] != list(range(position.seq + 1, position.seq + 1 + COUNT)):
        raise MeasureError("a read came short")
