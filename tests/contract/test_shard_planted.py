"""The checks of a shard work: each finds the bug that is planted for it in a copy of the shard's functions."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.contract.test_shard import COIN, spread_quotes
from tests.contract.test_shard_faults import BATCH, DEADLINE_S, EPOCH, WAITING, wrong_with

from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.errors import FenceClosedError, ShardRefusedError, WriterSupersededError
from cotacoes.model.quote import Quote

pytestmark = pytest.mark.anyio

LOCK_THE_FENCE = "pg_advisory_xact_lock(hashtext('cotacoes.fence'), id)"
BEFORE_THE_LOCK = [  # the snapshot of a statement is older than the lock for which it waits
    (f"PERFORM {LOCK_THE_FENCE};", ""),
    ("FROM fence WHERE coin_id = id;", f"FROM fence WHERE coin_id = id AND {LOCK_THE_FENCE} IS NOT NULL;"),
]
OFFERED = """(
            SELECT p_seq + (b.n - 1)::integer AS seq, moment(b.at) AS at, b.price
            FROM unnest(p_at, p_price) WITH ORDINALITY AS b (at, price, n)
        ) AS offered"""
FROM_OFFERED = [
    ("        RETURNING seq", "        ON CONFLICT DO NOTHING RETURNING seq"),
    ("FROM added GROUP BY 1", f"FROM {OFFERED} GROUP BY 1"),
]
ALL_OFFERED = [("WHERE f.last_epoch IS NULL OR (b.epoch, b.seq) > (f.last_epoch, f.last_seq)", "")]
BY_FLOAT = [("p_origin_id, b.price", "p_origin_id, b.price::float8::numeric")]


async def plant(dsn: str, function: str, changes: list[tuple[str, str]]) -> None:
    """Change the text of a function of this shard."""
    async with Session("shard1", dsn, connect_s=DEADLINE_S, deadline_s=DEADLINE_S) as session:
        ((source,),) = await session.fetch("SELECT pg_get_functiondef($1::text::regproc)", function)
        for old, new in changes:
            assert source.count(old) == 1, f"{function} has changed: {old}"
            source = source.replace(old, new)
        await session.execute(source)


@pytest.fixture
async def shard(migrated: str) -> AsyncIterator[PostgresShard]:
    """A shard with the coin's writer."""
    async with PostgresShard("shard1", migrated, deadline_s=DEADLINE_S) as shard:
        await shard.become_writer(COIN, EPOCH, "a")
        yield shard


@pytest.mark.parametrize("is_planted", [False, True])
@pytest.mark.parametrize(
    ("change", "refusal"),
    [("writer_epoch = writer_epoch + 1", WriterSupersededError), ("state = 'closed'", FenceClosedError)],
)
async def test_a_batch_that_waits_for_the_fence_is_judged_by_the_fence_at_that_time(
    migrated: str,
    shard: PostgresShard,
    change: str,
    refusal: type[ShardRefusedError],
    is_planted: bool,
) -> None:
    if is_planted:
        await plant(migrated, "locked_fence", BEFORE_THE_LOCK)
    async with Session("shard1", migrated, connect_s=DEADLINE_S, deadline_s=DEADLINE_S) as other:
        async with other.transaction():
            await other.fetch("SELECT pg_advisory_xact_lock(hashtext('cotacoes.fence'), coin_id) FROM fence")
            batch = asyncio.create_task(shard.append(COIN, 1, EPOCH, spread_quotes(EPOCH, BATCH, every_s=1)))
            while (await other.fetch(WAITING))[0][0] == 0:
                assert not batch.done()
            await other.fetch(f"UPDATE fence SET {change}")
        (outcome,) = await asyncio.gather(batch, return_exceptions=True)
    is_refused = isinstance(outcome, refusal) and (await shard.fence(COIN)).newest is None
    assert is_refused is not is_planted


async def offer_twice(shard: PostgresShard, quotes: list[Quote]) -> None:
    """Send the quotes in two batches, the second of which repeats some of the first."""
    await shard.append(COIN, 1, EPOCH, quotes[:BATCH])
    await shard.append(COIN, 1, EPOCH, quotes[BATCH // 2 :])


async def test_candles_made_of_sent_instead_of_added_quotes_are_found(
    migrated: str,
    shard: PostgresShard,
) -> None:
    quotes = spread_quotes(EPOCH, 2 * BATCH, every_s=20)
    await offer_twice(shard, quotes[:BATCH])
    assert await wrong_with(migrated, quotes[:BATCH]) == []
    await plant(migrated, "store_run", FROM_OFFERED)
    await plant(migrated, "append_quotes", ALL_OFFERED)
    await offer_twice(shard, quotes)
    assert await wrong_with(migrated, quotes) == ["candles", "days"]


async def test_a_price_that_was_a_float_on_its_way_is_found(
    migrated: str,
    shard: PostgresShard,
) -> None:
    quotes = [
        replace(quote, price=Decimal(f"0.{quote.seq}{'1' * 26}0")) for quote in spread_quotes(EPOCH, BATCH, every_s=20)
    ]
    await shard.append(COIN, 1, EPOCH, quotes[:3])
    assert await wrong_with(migrated, quotes[:3]) == []
    await plant(migrated, "store_run", BY_FLOAT)
    await shard.append(COIN, 1, EPOCH, quotes[3:])
    assert await wrong_with(migrated, quotes) == ["quotes", "prices", "candles"]
