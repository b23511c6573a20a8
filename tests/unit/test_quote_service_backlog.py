"""What is recorded and not on its shard yet, as /readyz tells it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.harness_quote_service import COIN, Core, until

from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.quote_service.backlog import Backlog
from cotacoes.quote_service.checks import check_shard

pytestmark = pytest.mark.anyio


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    core = Core(tmp_path)
    async with core.running():
        yield core


def backlog_of(core: Core) -> Backlog:
    return Backlog(core.recorder, {COIN: core.delivery}, QuoteMetrics(Metrics()), lambda: core.wall)


async def test_a_shard_that_takes_all_is_ready(core: Core) -> None:
    backlog = backlog_of(core)
    await core.record("1", "2")
    await until(lambda: core.history.pending == 0)
    await backlog.measure()
    assert backlog.held_on("shard1") is None
    assert await check_shard(core.directory, backlog, "shard1") is None


async def test_a_shard_that_refuses_writes_is_not_ready_before_anything_waits_for_it(core: Core) -> None:
    core.shard.is_read_only = True
    assert await check_shard(core.directory, backlog_of(core), "shard1") == (
        "shard1 takes no writes: it is a standby, or set to read-only"
    )


async def test_a_delivery_that_is_held_is_told_with_its_reason_and_how_long_the_oldest_quote_has_waited(
    core: Core,
) -> None:
    backlog = backlog_of(core)
    core.shard.closed = True  # it answers, and takes nothing
    await core.record("1", "2")
    await until(lambda: core.delivery.held is not None)
    core.wall += timedelta(seconds=40)
    await backlog.measure()
    held = "the delivery of bitcoin is held: shard1: the fence is closed; the oldest quote has waited 40 s"
    assert await check_shard(core.directory, backlog, "shard1") == held
    assert backlog.held_on("shard2") is None
    core.shard.away = True
    assert await check_shard(core.directory, backlog, "shard1") == f"shard1 is not reachable; {held}"
    core.shard.away, core.shard.closed, core.shard.is_read_only = False, False, True
    held = "the delivery of bitcoin is held: shard1 takes no writes: it is a standby, or set to read-only"
    await until(lambda: core.delivery.held is not None and "takes no writes" in core.delivery.held)
    assert await check_shard(core.directory, backlog, "shard1") == f"{held}; the oldest quote has waited 40 s"
    core.shard.is_read_only = False
    await until(lambda: core.history.pending == 0)
    assert await check_shard(core.directory, backlog, "shard1") is None
