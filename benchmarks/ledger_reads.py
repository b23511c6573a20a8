"""`reads`: what stored candles save, and the store layer beside the server's own client.

* candles: `PostgresShard.candles` of 300 minutes, in which the coin had four quotes a second (the simulated market's
  own pace), beside the same candles made of the rows by SQL over one connection. Both are read into `Candle`s and are
  equal;
* last 100: `PostgresShard.last` in this process, as many calls in flight as its pool has connections, beside pgbench
  with the same query, prepared, over as many connections, which throws away what it reads.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.http_ratio import ratios
from benchmarks.made_quotes import FIRST_DAY, FIRST_EPOCH, batches, make_quotes
from benchmarks.servers import Server, postgres_server
from cotacoes.adapters.postgres.pool import CONNECTIONS_MAX, Session
from cotacoes.adapters.postgres.rows import candle_of
from cotacoes.adapters.postgres.shard import QUERIES, PostgresShard
from cotacoes.model.candle import Candle
from cotacoes.model.quote import Quote

CANDLES_AIM = Aim(15.0, is_floor=True)
LAST_AIM = Aim(0.25, is_floor=True)
MINUTES = 300
RATE = 4.0  # quotes/s
LAST = 100
CANDLE_READS = 5  # a round
_FROM_ROWS = """
SELECT date_bin('1 minute', q.at, '2000-01-01Z') AS at, o.name AS origin, o.currency,
    (array_agg(q.price ORDER BY q.epoch, q.seq))[1]::text AS open, max(q.price)::text AS high,
    min(q.price)::text AS low, (array_agg(q.price ORDER BY q.epoch DESC, q.seq DESC))[1]::text AS close,
    sum(q.price)::text AS sum, count(*) AS count,
    (min(ARRAY[q.epoch, q.seq]))[1] AS first_epoch, (min(ARRAY[q.epoch, q.seq]))[2]::integer AS first_seq,
    (max(ARRAY[q.epoch, q.seq]))[1] AS last_epoch_in, (max(ARRAY[q.epoch, q.seq]))[2]::integer AS last_seq_in
FROM quote AS q JOIN origin AS o USING (origin_id)
WHERE q.coin_id = 1 AND q.at >= $1 AND q.at < $2
GROUP BY 1, 2, 3 ORDER BY 1
"""


def measure(effort: Effort) -> list[Row]:
    with postgres_server() as server:
        server.make_shards("shard1")
        return asyncio.run(_measure(server, effort))


async def _measure(server: Server, effort: Effort) -> list[Row]:
    quotes = make_quotes(int(MINUTES * 60 * RATE), rate=RATE)
    async with server.shard("shard1") as shard, server.session("shard1") as session:
        await shard.become_writer("bitcoin", FIRST_EPOCH, "bench")
        for batch in batches(quotes, 5_000):
            await shard.append("bitcoin", 1, FIRST_EPOCH, batch)
        await asyncio.to_thread(server.sql, "shard1", "VACUUM ANALYZE")
        pairs = [await _candles(shard, session, is_first=bool(run % 2)) for run in range(effort.runs)]
        rates = [await _last(server, shard, quotes, effort.seconds, run) for run in range(effort.runs)]
    stored, raw = ([pair[side] for pair in pairs] for side in (0, 1))
    ours, pgbench = ([pair[side] for pair in rates] for side in (0, 1))
    return [
        Row(f"{MINUTES} minute candles, stored", "times as fast", ratios(raw, stored), CANDLES_AIM),
        Row("candles, stored", "ms", [1000 * one for one in stored]),
        Row("candles, from rows", "ms", [1000 * one for one in raw]),
        Row(f"last {LAST}", "of pgbench", ratios(ours, pgbench), LAST_AIM),
        Row(f"last {LAST}, ours", "reads/s", ours),
        Row(f"last {LAST}, pgbench", "reads/s", pgbench),
    ]


async def _candles(shard: PostgresShard, session: Session, *, is_first: bool) -> tuple[float, float]:
    """Seconds a read: of stored candles, of candles from rows."""
    start = FIRST_DAY + timedelta(hours=1)
    end = start + timedelta(minutes=MINUTES)

    async def stored() -> Sequence[Candle]:
        return (await shard.candles("bitcoin", 1, start, end, MINUTES)).candles

    async def raw() -> Sequence[Candle]:
        return [candle_of(row) for row in await session.fetch(_FROM_ROWS, start, end)]

    sides = (stored, raw) if is_first else (raw, stored)
    found = {side: await _read(side) for side in sides}
    if found[stored][1] != found[raw][1] or len(found[raw][1]) != MINUTES:
        raise MeasureError("the stored candles are not those of the rows")
    return found[stored][0], found[raw][0]


async def _read(read: Callable[[], Awaitable[Sequence[Candle]]]) -> tuple[float, Sequence[Candle]]:
    candles = await read()  # prepared, and in memory
    started_at = time.perf_counter()
    for _ in range(CANDLE_READS):
        candles = await read()
    return (time.perf_counter() - started_at) / CANDLE_READS, candles


async def _last(
    server: Server, shard: PostgresShard, quotes: Sequence[Quote], seconds: float, run: int
) -> tuple[float, float]:
    """Reads a second: ours and pgbench's."""
    if await shard.last("bitcoin", LAST) != quotes[-LAST:]:
        raise MeasureError("the last quotes are not those that were stored last")

    async def ours() -> float:
        return await _rate(lambda: shard.last("bitcoin", LAST), seconds)

    async def pgbench() -> float:
        return await asyncio.to_thread(_pgbench, server, seconds)

    sides = (ours, pgbench) if run % 2 else (pgbench, ours)
    rates = {side: await side() for side in sides}
    return rates[ours], rates[pgbench]


async def _rate(read: Callable[[], Awaitable[Any]], seconds: float) -> float:
    due = time.perf_counter() + seconds

    async def reader() -> int:
        count = 0
        while time.perf_counter() < due:
            await read()
            count += 1
        return count

    started_at = time.perf_counter()
    counts = await asyncio.gather(*(reader() for _ in range(CONNECTIONS_MAX)))
    return sum(counts) / (time.perf_counter() - started_at)


def _pgbench(server: Server, seconds: float) -> float:
    script = QUERIES["newest"].replace("$1::text[]", "ARRAY['bitcoin']").replace("$2", ":count")
    script = re.sub(r"\$[3-8]\b", "NULL", script)  # no window
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script if script.endswith(";") else f"{script};")
        file.flush()
        said = server.run(
            *("pgbench", "-n", "-M", "prepared", "-f", file.name, "-D", f"count={LAST}"),
            *("-c", str(CONNECTIONS_MAX), "-j", str(min(CONNECTIONS_MAX, os.cpu_count() or 1))),
            *("-T", str(max(1, round(seconds))), server.dsn("shard1")),
        )
    return transactions_per_s(said)


def transactions_per_s(said: str) -> float:
    """From pgbench's `tps = 1234.567890 (without initial connection time)`; MeasureError where it says none."""
    found = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    if found is None:
        raise MeasureError("pgbench told no rate")
    return float(found[1])
