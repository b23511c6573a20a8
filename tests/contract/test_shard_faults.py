"""A shard behind a network that fails at any byte: a batch sent again is stored once, and every call ends in time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.contract.harness_fault_proxy import FaultProxy
from tests.contract.test_shard import COIN, NOON, spread_quotes

from cotacoes.adapters.postgres.pool import Pool, Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.errors import ShardTimedOutError, ShardUnavailableError
from cotacoes.model.candle import candles_of
from cotacoes.model.quote import Agreement, Quote, format_price
from cotacoes.patterns.sharding.shard import Stored

pytestmark = pytest.mark.anyio

EPOCH = 5
AGREEMENT = Agreement("agreed", Decimal("12.34"), 5, 6)
BATCH = 7
DEADLINE_S = 5.0
CALL_DEADLINE_S = 2.0
LATE_S = 30.0  # a delay of the network, far longer than a call on any slow machine
CONNECTIONS_MAX = 4
DAYS = """
SELECT d.day, d.first_epoch, d.first_seq, d.last_epoch, d.last_seq, d.count
FROM day AS d JOIN fence AS f USING (coin_id) WHERE f.coin = $1 ORDER BY d.day
"""
WAITING = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def wrong_with(dsn: str, quotes: Sequence[Quote]) -> list[str]:
    """How a shard differs from holding exactly these quotes of the coin: quotes, candles, days."""
    async with (
        PostgresShard("shard1", dsn, deadline_s=DEADLINE_S) as shard,
        Session("shard1", dsn, connect_s=DEADLINE_S, deadline_s=DEADLINE_S) as session,
    ):
        held = await shard.after(COIN, None, len(quotes) + 1)
        ends = NOON - timedelta(days=1), NOON + timedelta(days=99)
        candles = {size: (await shard.candles(COIN, size, *ends, len(quotes) + 1)).candles for size in (1, 60)}
        days = [tuple(row) for row in await session.fetch(DAYS, COIN)]
    by_day: dict[Any, list[Quote]] = {}
    for quote in quotes:
        by_day.setdefault(quote.at.date(), []).append(quote)
    expected = [(day, *of[0].position, *of[-1].position, len(of)) for day, of in sorted(by_day.items())]
    return [
        name
        for name, is_right in {
            "quotes": held == quotes,
            "prices": [format_price(one.price) for one in held] == [format_price(one.price) for one in quotes],
            "candles": all(candles[size] == candles_of(quotes, size) for size in candles),
            "days": days == expected,
        }.items()
        if not is_right
    ]


@dataclass
class ProxiedShard:
    """A shard behind a proxy, with a direct connection for the test; `offered` is what it should hold."""

    proxy: FaultProxy
    shard: PostgresShard
    straight: PostgresShard
    dsn: str
    offered: list[Quote]
    supply: list[Quote]

    def next_batch(self) -> list[Quote]:
        batch = self.supply[len(self.offered) : len(self.offered) + BATCH]
        assert len(batch) == BATCH
        self.offered += batch
        return batch

    async def append(self, batch: Sequence[Quote]) -> Stored:
        return await self.shard.append(COIN, 1, EPOCH, batch)

    async def append_cut(self, shard: PostgresShard | None = None) -> tuple[bool, Stored]:
        """Send a batch while a cut is set, then again; whether the first was stored, and the result of the second."""
        batch = self.next_batch()
        shard = shard or self.shard
        cuts = self.proxy.cuts
        with pytest.raises(ShardUnavailableError):
            await shard.append(COIN, 1, EPOCH, batch)
        assert self.proxy.cuts == cuts + 1
        was_stored = (await self.straight.fence(COIN)).through == batch[-1].position
        return was_stored, await shard.append(COIN, 1, EPOCH, batch)

    async def bytes_of(self, work: Callable[[], Any]) -> tuple[int, int]:
        before = dict(self.proxy.passed)
        await work()
        return self.proxy.passed["client"] - before["client"], self.proxy.passed["server"] - before["server"]

    def through_proxy(self) -> PostgresShard:
        return PostgresShard("shard1", self.proxy.dsn, deadline_s=DEADLINE_S)


@pytest.fixture
async def rig(migrated: str) -> AsyncIterator[ProxiedShard]:
    """A coin's writer that has sent one batch over hours and days, so that its connection is open and warm."""
    async with (
        FaultProxy(migrated) as proxy,
        PostgresShard("shard1", proxy.dsn, deadline_s=DEADLINE_S) as shard,
        PostgresShard("shard1", migrated, deadline_s=DEADLINE_S) as straight,
    ):
        quotes = spread_quotes(EPOCH, 3_000, every_s=120)
        # with one agreement for all, every batch has the same size, as cuts at each of its bytes need it
        supply = [msgspec.structs.replace(quote, agreement=AGREEMENT) for quote in quotes]
        rig = ProxiedShard(proxy, shard, straight, migrated, [], supply)
        await shard.become_writer(COIN, EPOCH, "a")
        await rig.append(rig.next_batch())
        yield rig


async def test_a_batch_cut_at_any_byte_of_the_request_is_stored_once_when_sent_again(rig: ProxiedShard) -> None:
    size, _ = await rig.bytes_of(lambda: rig.append(rig.next_batch()))
    for count in [*range(0, size, 11), size - 1]:
        rig.proxy.cut_after(client_bytes=count)
        assert await rig.append_cut() == (False, Stored(BATCH)), f"cut after {count} of {size} bytes"
    assert await wrong_with(rig.dsn, rig.offered) == []


async def test_a_batch_cut_at_any_byte_of_the_reply_changes_nothing_when_sent_again(
    rig: ProxiedShard,
) -> None:
    _, size = await rig.bytes_of(lambda: rig.append(rig.next_batch()))
    for count in range(size):
        rig.proxy.cut_after(server_bytes=count)
        assert await rig.append_cut() == (True, Stored(0, already=BATCH)), f"cut after {count} of {size} bytes"
    assert await wrong_with(rig.dsn, rig.offered) == []


async def test_a_batch_over_a_new_connection_cut_at_any_byte_is_stored_once(rig: ProxiedShard) -> None:
    async def on_a_new_connection() -> None:
        async with rig.through_proxy() as shard:
            await shard.append(COIN, 1, EPOCH, rig.next_batch())

    sent, said = await rig.bytes_of(on_a_new_connection)
    _, answer = await rig.bytes_of(lambda: rig.append(rig.next_batch()))
    for count in range(0, sent, 61):
        rig.proxy.cut_after(client_bytes=count)
        async with rig.through_proxy() as shard:
            assert await rig.append_cut(shard) == (False, Stored(BATCH)), f"cut after {count} of {sent} bytes"
    for count in range(0, said, 61):
        rig.proxy.cut_after(server_bytes=count)
        is_stored = count > said - answer
        async with rig.through_proxy() as shard:
            assert await rig.append_cut(shard) == (
                is_stored,
                Stored(0, already=BATCH) if is_stored else Stored(BATCH),
            ), f"{count} of {said} bytes"
    assert await wrong_with(rig.dsn, rig.offered) == []


async def test_a_commit_whose_reply_is_lost_is_harmless(rig: ProxiedShard) -> None:
    for _ in range(5):
        rig.proxy.cut_at_commit()
        assert await rig.append_cut() == (True, Stored(0, already=BATCH))
    rig.proxy.cut_at_commit()
    with pytest.raises(ShardUnavailableError):
        await rig.shard.become_writer(COIN, EPOCH + 1, "a")
    assert (await rig.shard.become_writer(COIN, EPOCH + 1, "a")).writer_epoch == EPOCH + 1
    assert await wrong_with(rig.dsn, rig.offered) == []


async def appended(shard: PostgresShard, batch: Sequence[Quote]) -> Stored:
    """The answer of the first call in time: on a busy machine a good call may miss its short deadline, too."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(ShardUnavailableError):
                return await shard.append(COIN, 1, EPOCH, batch)


async def test_a_reply_after_the_deadline_is_not_awaited_and_the_next_call_succeeds(rig: ProxiedShard) -> None:
    async with PostgresShard("shard1", rig.proxy.dsn, deadline_s=0.3) as shard:
        await appended(shard, rig.next_batch())
        for _ in range(2 * CONNECTIONS_MAX):
            rig.proxy.delay(LATE_S)
            batch = rig.next_batch()
            started = time.monotonic()
            with pytest.raises(ShardUnavailableError, match=r"within 0\.3 s|not reachable"):
                await shard.append(COIN, 1, EPOCH, batch)
            assert 0.25 < time.monotonic() - started < LATE_S
            rig.proxy.delay(0.0)
            assert (await appended(shard, batch)).conflicts == 0
    assert await wrong_with(rig.dsn, rig.offered) == []


async def test_calls_over_a_frozen_network_end_by_their_deadline_and_cost_the_pool_no_slot(rig: ProxiedShard) -> None:
    async def unchecked(_: Any) -> None:
        pass

    async with (
        Pool("shard1", rig.proxy.dsn, deadline_s=CALL_DEADLINE_S, check=unchecked) as pool,
        Session("shard1", rig.dsn, connect_s=DEADLINE_S, deadline_s=DEADLINE_S) as session,
    ):
        for _ in range(2):
            rig.proxy.freeze()
            started = time.monotonic()
            calls = [asyncio.create_task(pool.fetch("SELECT 1")) for _ in range(12)]
            await asyncio.sleep(0)
            calls[0].cancel()  # a call that is cancelled while it waits costs the others nothing
            answers = await asyncio.gather(*calls, return_exceptions=True)
            # in turn over the four connections of the pool, twelve calls would take three deadlines
            assert time.monotonic() - started < 3 * CALL_DEADLINE_S
            assert [type(answer) for answer in answers] == [asyncio.CancelledError, *[ShardTimedOutError] * 11]
            rig.proxy.thaw()
            assert await asyncio.gather(*(pool.fetch("SELECT 1") for _ in range(12))) == [[(1,)]] * 12
        await session.fetch("SELECT pg_advisory_lock(1)")
        waiting = [asyncio.create_task(pool.fetch("SELECT pg_advisory_xact_lock(1)")) for _ in range(CONNECTIONS_MAX)]
        while (await session.fetch(WAITING))[0][0] < CONNECTIONS_MAX:  # until all slots are used at once
            assert not any(call.done() for call in waiting)
        await session.fetch("SELECT pg_advisory_unlock(1)")
        await asyncio.gather(*waiting)


async def test_a_call_to_a_server_that_freezes_at_any_byte_of_a_new_connection_ends_by_its_deadline(
    rig: ProxiedShard,
) -> None:
    async def on_a_new_connection() -> None:
        async with rig.through_proxy() as shard:
            await shard.fence(COIN)

    _, size = await rig.bytes_of(on_a_new_connection)
    for count in range(0, size, 61):
        rig.proxy.freeze_after(server_bytes=count)
        async with PostgresShard("shard1", rig.proxy.dsn, deadline_s=0.2) as shard, asyncio.timeout(DEADLINE_S):
            with pytest.raises(ShardUnavailableError, match=r"within 0\.2 s|not reachable"):
                await shard.fence(COIN)
            rig.proxy.mend()
            await answered(shard)


@pytest.mark.parametrize(
    ("junk", "is_new"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"Z\x00\x00\x00\x04", True),  # over these asyncpg stumbles
        (b"Z\xff\xff\xff\x00abc", True),
        (b"Z\xff\xff\xff\x00abc", False),
        (b"R\x00\x00\x00\x04", True),
        (b"R\x00\x00\x00\x04", False),
    ],
)
async def test_a_shard_is_away_if_anything_but_postgresql_answers(rig: ProxiedShard, junk: bytes, is_new: bool) -> None:
    async with PostgresShard("shard1", rig.proxy.dsn, deadline_s=0.3) as shard:
        if not is_new:
            await answered(shard)
        rig.proxy.babble(junk)
        for _ in range(2):
            with pytest.raises(ShardUnavailableError):
                await shard.fence(COIN)
        rig.proxy.mend()
        async with asyncio.timeout(DEADLINE_S):
            await answered(shard)


async def answered(shard: PostgresShard) -> None:
    """Return once the shard answers, on a machine that may be busy."""
    while True:
        with contextlib.suppress(ShardUnavailableError):
            assert (await shard.fence(COIN)).placement == 1
            return


async def test_a_delayed_request_changes_nothing(rig: ProxiedShard) -> None:
    async with PostgresShard("shard1", rig.proxy.dsn, deadline_s=0.3) as shard:
        for _ in range(5):
            await shard.append(COIN, 1, EPOCH, rig.next_batch())
            batch = rig.next_batch()
            rig.proxy.freeze()
            with pytest.raises(ShardUnavailableError):
                await shard.append(COIN, 1, EPOCH, batch)
            assert (await rig.straight.fence(COIN)).through < batch[0].position  # type: ignore[operator]
            rig.proxy.thaw()
            stored = await shard.append(COIN, 1, EPOCH, batch)
            assert stored in {Stored(0, already=BATCH), Stored(BATCH)}  # whichever of the two came first
    assert await wrong_with(rig.dsn, rig.offered) == []


async def test_a_call_to_a_closed_port_fails_by_name_and_the_first_call_after_it_opens_succeeds(
    rig: ProxiedShard,
) -> None:
    rig.proxy.refuse()
    rig.proxy.cut_after(client_bytes=0)
    batch = rig.next_batch()
    for _ in range(3):
        with pytest.raises(ShardUnavailableError, match="not reachable"):
            await rig.append(batch)
    await rig.proxy.listen()
    assert await rig.append(batch) == Stored(BATCH)
