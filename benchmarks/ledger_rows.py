"""`rows`: bytes that a row takes with its indexes, of an open day and of the same day sealed and packed.

Once without and once with how venues agreed on each price.

Two coins are stored by turns, a thousand quotes of each at a time, as two writers would. The day is then closed by a
quote of the next one, and sealed and packed by what the keeper of days calls.
"""

from __future__ import annotations

import asyncio
from datetime import date

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.made_quotes import FIRST_DAY, FIRST_EPOCH, batches, make_quotes
from benchmarks.servers import Server, postgres_server
from cotacoes.adapters.postgres.days import PostgresDays

OPEN_AIM = Aim(145.0)
PACKED_AIM = Aim(115.0)
AGREED_AIM = Aim(122.0)
COINS = ("bitcoin", "ethereum")
QUOTES_PER_S = 20_000  # of `Effort.seconds`: of each coin
BATCH = 1_000


def measure(effort: Effort) -> list[Row]:
    count = int(QUOTES_PER_S * effort.seconds)
    with postgres_server() as server:
        plain = [_made(server, f"rows_{run}", count, agreed=False) for run in range(effort.runs)]
        agreed = [_made(server, f"agreed_{run}", count, agreed=True) for run in range(effort.runs)]
    opened, packed, beside = zip(*plain, strict=True)
    opened_agreed, packed_agreed, _ = zip(*agreed, strict=True)
    return [
        Row("a row of an open day", "bytes", opened, OPEN_AIM),
        Row("a row of a packed day", "bytes", packed, PACKED_AIM),
        Row("candles, days and fences beside it", "bytes a row", beside),
        Row("a row of a packed day, with an agreement", "bytes", packed_agreed, AGREED_AIM),
        Row("a row of an open day, with an agreement", "bytes", opened_agreed),
    ]


def _made(server: Server, name: str, count: int, *, agreed: bool) -> tuple[float, float, float]:
    server.make_shards(name, coins=",".join(f"{coin}:shard1" for coin in COINS))
    return asyncio.run(_measure(server, name, count, agreed=agreed))


async def _measure(server: Server, database: str, count: int, *, agreed: bool) -> tuple[float, float, float]:
    day = FIRST_DAY.date()
    async with server.shard(database) as shard, PostgresDays("shard1", server.dsn(database)) as days:
        for coin in COINS:
            await shard.become_writer(coin, FIRST_EPOCH, "bench")
        made = [make_quotes(count, coin=coin, agreed=agreed) for coin in COINS]
        for pair in zip(*(batches(quotes, BATCH) for quotes in made), strict=True):
            for coin, batch in zip(COINS, pair, strict=True):
                await shard.append(coin, 1, FIRST_EPOCH, batch)
        opened = await _bytes(server, database, f"quote_{day:%Y%m%d}")
        for coin, quotes in zip(COINS, made, strict=True):
            await shard.append(coin, 1, FIRST_EPOCH, make_quotes(1, coin=coin, day=1, prev=quotes[-1].position))
        await _pack(days, day)
        packed = await _bytes(server, database, f"quote_{day:%Y%m%d}")
        beside = [await _bytes(server, database, table) for table in ("candle", "day", "fence")]
    rows = len(COINS) * count
    return opened / rows, packed / rows, sum(beside) / rows


async def _pack(days: PostgresDays, day: date) -> None:
    closed = [one for one in await days.closed() if one.day == day]
    sealed = [await days.seal(one) for one in closed]
    if len(closed) != len(COINS) or not all(one is not None and one.is_sealed for one in sealed):
        raise MeasureError(f"{day} was not sealed")
    await days.pack(day)


async def _bytes(server: Server, database: str, table: str) -> int:
    return int(await asyncio.to_thread(server.sql, database, f"SELECT pg_total_relation_size('{table}')"))
