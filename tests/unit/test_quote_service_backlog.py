"""Quotes that are recorded and not yet on their shard, as /readyz reports them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.harness_quote_service import COIN, QuoteServiceCore, until

from cotacoes.quote_service.checks import check_shard, held_on

pytestmark = pytest.mark.anyio


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[QuoteServiceCore]:
    core = QuoteServiceCore(tmp_path)
    async with core.running():
        yield core


async def check(core: QuoteServiceCore) -> str | None:
    return await check_shard(core.directory, {COIN: core.delivery}, "shard1")


async def test_a_shard_that_accepts_every_quote_is_ready(core: QuoteServiceCore) -> None:
    await core.record("1", "2")
    await until(lambda: core.history.pending == 0)
    await core.delivery.measure(core.wall)
    assert await check(core) is None


async def test_a_shard_that_refuses_writes_is_not_ready_even_if_no_quote_waits(core: QuoteServiceCore) -> None:
    core.shard.is_read_only = True
    assert await check(core) == ("shard1 takes no writes: it is a standby, or set to read-only")


async def test_a_held_delivery_is_reported_with_its_reason_and_the_age_of_the_oldest_quote(
    core: QuoteServiceCore,
) -> None:
    core.shard.closed = True  # it answers, and takes nothing
    await core.record("1", "2")
    await until(lambda: core.delivery.held is not None)
    core.wall += timedelta(seconds=40)
    await core.delivery.measure(core.wall)
    held = "the delivery of bitcoin is held: shard1: the fence is closed; the oldest quote has waited 40 s"
    assert await check(core) == held
    assert held_on({COIN: core.delivery}, "shard2") is None
    core.shard.away = True
    assert await check(core) == f"shard1 is not reachable; {held}"
    core.shard.away, core.shard.closed, core.shard.is_read_only = False, False, True
    held = "the delivery of bitcoin is held: shard1 takes no writes: it is a standby, or set to read-only"
    await until(lambda: core.delivery.held is not None and "takes no writes" in core.delivery.held)
    assert await check(core) == f"{held}; the oldest quote has waited 40 s"
    core.shard.is_read_only = False
    await until(lambda: core.history.pending == 0)
    assert await check(core) is None
