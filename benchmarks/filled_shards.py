"""Two shards, each a server of its own, with a coin's history on each, made by that server, day by day, until now.

All that the ledger keeps of quotes is there: days, candles, the fence. Between two quotes is always the same time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from benchmarks.made_quotes import FIRST_EPOCH
from benchmarks.servers import Server, make_shards, postgres_server

COINS = {"bitcoin": 1, "ethereum": 2}  # with their ids, in the order of their shards
_CENTS = {1: 6_700_000, 2: 350_000}  # near what the simulated market quotes: a jump would be refused as absurd
_DAY = """
SELECT prepare_day('{day:%Y-%m-%d}');
INSERT INTO quote_{day:%Y%m%d} (epoch, at, observed_at, coin_id, seq, origin_id, price)
SELECT {epoch}, t.at, t.at - interval '3 milliseconds', {coin}, t.seq, 1,
    round(({cents} + t.seq % 997)::numeric / 100, 2)
FROM (
    SELECT seq, '{start}'::timestamptz + seq * interval '{step_us} microseconds' AS at
    FROM generate_series({first}, {last}) AS seq
) AS t;
INSERT INTO day (coin_id, day, first_epoch, first_seq, last_epoch, last_seq, count)
VALUES ({coin}, '{day:%Y-%m-%d}', {epoch}, {first}, {epoch}, {last}, {last} - {first} + 1);
INSERT INTO candle (coin_id, minutes, at, origin_id, open, high, low, close, sum, count,
    first_epoch, first_seq, last_epoch, last_seq)
SELECT {coin}, m.minutes, date_bin(m.minutes * interval '1 minute', q.at, '2000-01-01Z'), 1,
    (array_agg(q.price ORDER BY q.seq))[1], max(q.price), min(q.price), (array_agg(q.price ORDER BY q.seq DESC))[1],
    sum(q.price), count(*), {epoch}, min(q.seq), {epoch}, max(q.seq)
FROM quote_{day:%Y%m%d} AS q, unnest('{{1, 60}}'::integer[]) AS m (minutes)
WHERE q.coin_id = {coin} GROUP BY 2, 3;
"""
_FENCE = """
UPDATE fence SET floor_epoch = {epoch}, floor_seq = 1, last_epoch = {epoch}, last_seq = {last}, writer_epoch = {epoch},
    last_at = '{start}'::timestamptz + {last} * interval '{step_us} microseconds' WHERE coin_id = {coin};
VACUUM ANALYZE;
CHECKPOINT;
"""


@contextlib.contextmanager
def filled_shards(database: str, count: int, *, days: int) -> Iterator[list[Server]]:
    """Servers whose `database` holds so many quotes of the shard's coin, over so many days."""
    with postgres_server() as first, postgres_server() as second:
        servers = [first, second]
        for server in servers:
            server.sql("postgres", f"CREATE DATABASE {database}")
        placed = ",".join(f"{coin}:shard{number}" for number, coin in enumerate(COINS, start=1))
        make_shards(*(server.dsn(database) for server in servers), coins=placed)
        with ThreadPoolExecutor(len(servers)) as both:
            list(both.map(lambda server, coin: _fill(server, coin, database, count, days), servers, COINS.values()))
        yield servers


def _fill(server: Server, coin: int, database: str, count: int, days: int) -> None:
    server.sql(database, "INSERT INTO origin (name, currency) VALUES ('sim', 'USD')")
    end = datetime.now(UTC)
    step = timedelta(days=days) / (count + 1)
    start, step_us = end - step * (count + 1), step // timedelta(microseconds=1)
    first, day = 1, start.replace(hour=0, minute=0, second=0, microsecond=0)
    same = {"epoch": FIRST_EPOCH, "coin": coin, "cents": _CENTS[coin], "start": start.isoformat(), "step_us": step_us}
    while first <= count:
        day_end = day + timedelta(days=1)
        last = min(count, (day_end - start - timedelta(microseconds=1)) // timedelta(microseconds=step_us))
        if last >= first:
            for statement in _DAY.format(day=day, first=first, last=last, **same).strip().split(";\n"):
                server.sql(database, statement)
        first, day = max(first, last + 1), day_end
    for statement in _FENCE.format(last=count, **same).strip().split(";\n"):
        server.sql(database, statement)
