"""Delivery from the log to the shard, through a network with every kind of fault and over ends of the writer."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.contract.conftest import psql
from tests.contract.harness_fault_proxy import FaultProxy
from tests.contract.test_shard import COIN, NOON
from tests.contract.test_shard_faults import DEADLINE_S, wrong_with
from tests.unit.harness_quote_service import QuoteServiceCore, until

from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.model.quote import Quote

RETRIES: dict[str, Any] = {"retry_s": 0.005, "retry_max_s": 0.02}
pytestmark = pytest.mark.anyio


async def test_delivery_through_every_fault_loses_and_doubles_nothing_and_keeps_the_order(
    migrated: str, tmp_path: Path, seeded: Random
) -> None:
    recorded: list[Quote] = []
    wall = NOON
    async with (
        FaultProxy(migrated) as proxy,
        PostgresShard("shard1", proxy.dsn, deadline_s=0.5) as shard,
        PostgresShard("shard1", migrated, deadline_s=DEADLINE_S) as straight,
    ):
        for _ in range(3):  # the writer ends, and another epoch begins
            core = QuoteServiceCore(tmp_path, shard, **RETRIES)  # type: ignore[arg-type]
            core.wall = wall
            async with core.running():
                for fault in seeded.sample(FAULTS, len(FAULTS)):
                    held_s = fault(proxy, seeded)
                    prices = [f"{seeded.randrange(1, 10**6)}.{seeded.randrange(10**4):04}" for _ in range(40)]
                    recorded += await core.record(*prices)
                    await asyncio.sleep(held_s)
                    held = await straight.after(COIN, None, len(recorded) + 1)
                    assert held == recorded[: len(held)]  # a prefix, at any moment
                    proxy.mend()
                    await proxy.listen()
            wall = core.wall
        assert proxy.cuts > 0
        core = QuoteServiceCore(tmp_path, shard, **RETRIES)  # type: ignore[arg-type]
        core.wall = wall
        async with core.running():
            await until(lambda: core.history.fence is not None and core.history.pending == 0)
            assert core.history.delivered == recorded[-1].position
    assert len(recorded) == 3 * 40 * len(FAULTS)
    assert await wrong_with(migrated, recorded) == []


def cut_request(proxy: FaultProxy, dice: Random) -> float:
    proxy.cut_after(client_bytes=dice.randrange(4_000))
    return 0.05


def cut_answer(proxy: FaultProxy, dice: Random) -> float:
    proxy.cut_after(server_bytes=dice.randrange(1_000))
    return 0.05


def cut_commit(proxy: FaultProxy, _: Random) -> float:
    proxy.cut_at_commit()
    return 0.05


def delay(proxy: FaultProxy, dice: Random) -> float:
    proxy.delay(dice.choice([0.01, 0.4, 5.0]))
    return 0.05


def freeze(proxy: FaultProxy, dice: Random) -> float:
    proxy.freeze()
    return dice.choice([0.02, 0.7])


def refuse(proxy: FaultProxy, dice: Random) -> float:
    proxy.refuse()
    proxy.cut_after(server_bytes=dice.randrange(100))
    return 0.05


def no_fault(_: FaultProxy, __: Random) -> float:
    return 0.02


FAULTS = [*[cut_request, cut_answer, cut_commit] * 4, *[delay, freeze, refuse, no_fault] * 2]


SLOW_ROWS = """
CREATE FUNCTION slow_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(%s); RETURN NEW; END';
CREATE TRIGGER slow_row BEFORE INSERT ON quote FOR EACH ROW EXECUTE FUNCTION slow_row();
"""
QUICK_ROWS = "DROP FUNCTION slow_row CASCADE"


async def test_delivery_catches_up_with_a_shard_too_slow_for_a_whole_batch(migrated: str, tmp_path: Path) -> None:
    psql(migrated, SLOW_ROWS % 0.015)
    async with PostgresShard("shard1", migrated, deadline_s=0.5) as shard:
        core = QuoteServiceCore(tmp_path, shard, deadline_s=0.5)  # type: ignore[arg-type]
        async with core.running():
            recorded = await core.record(*map(str, range(1, 151)))
            await until(lambda: core.history.pending == 0, 60.0)
            assert core.delivery.held is None
    assert await wrong_with(migrated, recorded) == []


async def test_a_single_quote_that_misses_the_deadline_is_held_with_the_reason(migrated: str, tmp_path: Path) -> None:
    psql(migrated, SLOW_ROWS % 5)
    async with PostgresShard("shard1", migrated, deadline_s=0.3) as shard:
        core = QuoteServiceCore(tmp_path, shard, deadline_s=0.3)  # type: ignore[arg-type]
        async with core.running():
            recorded = await core.record("1", "2", "3")
            await until(lambda: core.delivery.limit.quotes == 1 and core.delivery.held is not None)
            assert core.delivery.held in {
                "shard1 did not answer within 0.3 s",
                "shard1 did not finish a statement in time (57014)",
            }
            psql(migrated, QUICK_ROWS)
            await until(lambda: core.history.pending == 0)
    assert await wrong_with(migrated, recorded) == []
