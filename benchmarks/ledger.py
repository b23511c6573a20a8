"""`ingest`: quotes a second into a shard over one connection, beside what PostgreSQL does without a ledger.

All sides store the same quotes, made beforehand, durability on, in alternating order, each round on a day of its own
whose partition exists, after a checkpoint. Where batches are sent, one in twenty is sent twice; a rate counts
each quote once.

* ours: `PostgresShard.append`, batch by batch, each a transaction: runs and columns made of quotes, the coin's lock,
  the fence, the rows, minute and hour candles, the day, the fence's end;
* `\\copy`: psql copies a file of the same rows, in one transaction, into a table like the day's partition, with its
  key, its BRIN index and its checks. It reads no quote, knows no fence, and would stop at a row that it has already;
* ours without candles: the same in a database whose function was made from the migration's text without them;
* bare: `INSERT … SELECT unnest … ON CONFLICT DO NOTHING` of the same batches into the same table as ours, an array for
  each column, prices as text that is cast in SQL, each batch a transaction. No lock, no fence, no day;
* replay: every batch that was stored is sent once more, and nothing may be added.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import resources
from typing import Any

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.http_ratio import ratios
from benchmarks.made_quotes import FIRST_DAY, FIRST_EPOCH, batches, doubled, make_quotes
from benchmarks.servers import Server, postgres_server
from cotacoes.adapters.postgres.days import PostgresDays
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.model.quote import Position, Quote, format_price

BATCH_AIMS = {1_000: Aim(0.33, is_floor=True), 5_000: Aim(0.45, is_floor=True)}
PLAIN_AIM = Aim(0.95, is_floor=True)
REPLAY_AIM = Aim(1.0, is_floor=True)
QUOTES_PER_S = 20_000  # of `Effort.seconds`: what is stored in a round by each side
EPOCH = FIRST_EPOCH  # the writer's, for all days
WRITER = "bench"
_BARE = """
INSERT INTO quote (coin_id, epoch, seq, at, observed_at, price, origin_id)
SELECT 9, b.epoch, b.seq, b.at, b.observed_at, b.price::numeric, b.origin
FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::smallint[])
    AS b (epoch, seq, at, observed_at, price, origin)
ON CONFLICT DO NOTHING
"""
_PLAIN = """), minute AS MATERIALIZED (
        SELECT min(at) AS at, count(*) AS count, min(seq) AS first, max(seq) AS last FROM added GROUP BY utc_day(at)
    ), days AS ("""


def measure(effort: Effort) -> list[Row]:
    count = int(QUOTES_PER_S * effort.seconds)
    with postgres_server() as server:
        server.make_shards("whole")
        server.make_shards("plain")
        server.sql("plain", without_candles(migration_text()))
        return asyncio.run(_measure(server, effort.runs, count))


def without_candles(migration: str) -> str:
    """`store_run` of the migration's text, as it would be without candles; MeasureError if it has none."""
    found = re.search(r"CREATE FUNCTION store_run\(.*?\n\$\$;\n", migration, re.DOTALL)
    plain, count = re.subn(
        r"\), minute AS .*?\), days AS \(", lambda _: _PLAIN, found[0] if found else "", flags=re.DOTALL
    )
    if count != 1 or "candle" in plain:
        raise MeasureError("the migration's store_run has another shape than is known here")
    return plain.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)


def migration_text() -> str:
    """The schema of the ledger, as this release brings it."""
    return (
        resources.files("cotacoes.adapters.postgres")
        .joinpath("schema", "0008_agreement.sql")
        .read_text(encoding="utf-8")
    )


async def _measure(server: Server, runs: int, count: int) -> list[Row]:
    rows: list[Row] = []
    async with server.shard("whole") as whole, server.shard("plain") as plain, server.session("plain") as session:
        for name, shard in (("whole", whole), ("plain", plain)):
            await shard.become_writer("bitcoin", EPOCH, WRITER)
            async with PostgresDays("shard1", server.dsn(name)) as days:
                await days.prepare(FIRST_DAY.date(), make_quotes(1, day=4 * runs)[0].at.date())
        rounds = _Rounds(server, whole, plain, session, count)
        for size, aim in BATCH_AIMS.items():
            rates = [await rounds.against_copy(size) for _ in range(runs)]
            ours, copied = ([pair[side] for pair in rates] for side in (0, 1))
            rows += [
                Row(f"ingest, batches of {size}", "of \\copy", ratios(ours, copied), aim),
                Row(f"ingest, batches of {size}, ours", "quotes/s", ours),
                Row(f"ingest, batches of {size}, \\copy", "quotes/s", copied),
            ]
        rates = [await rounds.against_bare() for _ in range(runs)]
        ours, bare = ([pair[side] for pair in rates] for side in (0, 1))
        rows += [
            Row("ingest without candles", "of bare INSERT", ratios(ours, bare), PLAIN_AIM),
            Row("ingest without candles, ours", "quotes/s", ours),
            Row("ingest without candles, bare", "quotes/s", bare),
        ]
        rates = [await rounds.replayed() for _ in range(runs)]
        rows.append(Row("ingest, replay", "of first write", [again / first for first, again in rates], REPLAY_AIM))
    return rows


class _Rounds:
    """The rounds, each on the next day."""

    def __init__(
        self, server: Server, whole: PostgresShard, plain: PostgresShard, session: Session, count: int
    ) -> None:
        self._server = server
        self._whole = whole
        self._plain = plain
        self._session = session
        self._count = count
        self._day = -1
        self._last: dict[str, Position] = {}  # by database: each has a history of its own

    async def against_copy(self, size: int) -> tuple[float, float]:
        """Rates of ours and of `\\copy`."""
        quotes = self._next_quotes("whole")
        await self._sql(
            "whole", f"DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE {_part(quotes)} INCLUDING ALL)"
        )

        async def ours() -> float:
            return await _timed(self._append(self._whole, doubled(quotes, size)))

        async def copied() -> float:
            return await asyncio.to_thread(self._copy, quotes)

        return await self._alternated("whole", ours, copied)

    async def against_bare(self) -> tuple[float, float]:
        """Rates of ours without candles and of the bare statement."""
        quotes = self._next_quotes("plain")

        async def ours() -> float:
            return await _timed(self._append(self._plain, doubled(quotes, 1_000)))

        async def bare() -> float:
            return await _timed(self._insert(doubled(quotes, 1_000)))

        return await self._alternated("plain", ours, bare)

    async def replayed(self) -> tuple[float, float]:
        """Rates of a first write and of the same batches once more."""
        quotes = self._next_quotes("whole")
        await self._sql("whole", "CHECKPOINT")
        first = await _timed(self._append(self._whole, batches(quotes, 1_000)))
        await self._sql("whole", "CHECKPOINT")
        again = await _timed(self._append(self._whole, batches(quotes, 1_000), stored=0))
        if (held := await self._sql("whole", f"SELECT count(*) FROM {_part(quotes)}")) != str(self._count):
            raise MeasureError(f"{held} rows are held, where {self._count} were sent")
        return self._count / first, self._count / again

    async def _alternated(
        self, database: str, ours: Callable[[], Awaitable[float]], other: Callable[[], Awaitable[float]]
    ) -> tuple[float, float]:
        sides = (ours, other) if self._day % 2 else (other, ours)
        spent_s = {}
        for side in sides:
            await self._sql(database, "CHECKPOINT")
            spent_s[side] = await side()
        return self._count / spent_s[ours], self._count / spent_s[other]

    async def _append(self, shard: PostgresShard, sent: Iterable[Sequence[Quote]], stored: int | None = None) -> None:
        count = 0
        for batch in sent:
            count += (await shard.append("bitcoin", 1, EPOCH, batch)).stored
        if count != (self._count if stored is None else stored):
            raise MeasureError(f"{count} quotes were stored, {self._count if stored is None else stored} are meant")

    async def _insert(self, sent: Iterable[Sequence[Quote]]) -> None:
        for batch in sent:
            await self._session.fetch(_BARE, *_columns(batch))

    def _copy(self, quotes: Sequence[Quote]) -> float:
        """Seconds that psql says it took."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(map(_line, quotes))
            file.flush()
            columns = "epoch, at, observed_at, coin_id, seq, origin_id, price"
            said = self._server.psql(
                "whole", "-c", r"\timing on", "-c", rf"\copy copied ({columns}) FROM '{file.name}'"
            )
        return copy_seconds(said)

    async def _sql(self, database: str, sql: str) -> str:
        return await asyncio.to_thread(self._server.sql, database, sql)

    def _next_quotes(self, database: str) -> list[Quote]:
        self._day += 1
        quotes = make_quotes(self._count, day=self._day, prev=self._last.get(database))
        self._last[database] = quotes[-1].position
        return quotes


def copy_seconds(said: str) -> float:
    """From psql's `Time: 123.456 ms`, and what it may add for people; MeasureError where it says none."""
    found = re.search(r"^Time: ([0-9.]+) ms", said, re.MULTILINE)
    if found is None:
        raise MeasureError("psql told no time")
    return float(found[1]) / 1000


def _columns(quotes: Sequence[Quote]) -> tuple[list[Any], ...]:
    """An array per column, as the bare statement takes them."""
    return (
        [quote.epoch for quote in quotes],
        [quote.seq for quote in quotes],
        [quote.at for quote in quotes],
        [quote.observed_at for quote in quotes],
        [format_price(quote.price) for quote in quotes],
        [1] * len(quotes),
    )


def _part(quotes: Sequence[Quote]) -> str:
    return f"quote_{quotes[0].at:%Y%m%d}"


def _line(quote: Quote) -> str:
    return f"{quote.epoch}\t{quote.at}\t{quote.observed_at}\t1\t{quote.seq}\t1\t{format_price(quote.price)}\n"


async def _timed(work: Awaitable[None]) -> float:
    started_at = time.perf_counter()
    await work
    return time.perf_counter() - started_at
