"""The report over real shards: exact when they answer, in time if they do not, and complete again afterwards."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from tests.contract.conftest import Placed, Server
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.harness_directory import directory_over

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.aggregator_service import app
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.scatter_gather.gather import still_running

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DEADLINE_S = 1.0
SHARD_DEADLINE_S = 60.0  # a report that waits for a frozen shard takes as long, far longer than on any slow machine
HELD = {
    coin: [
        Quote(coin, "USD", Decimal(f"{seq}.{digits}"), 5, seq, NOON, NOON, "sim", Position(4, 2) if seq == 1 else None)
        for seq in range(1, 13)
    ]
    for coin, digits in (("bitcoin", "1000"), ("ethereum", "1" * 28), ("other", "5"))
}


@pytest.fixture
async def asking(placed: Placed) -> AsyncIterator[httpx2.AsyncClient]:
    """An aggregator over two filled shards; bitcoin and other live on the first."""
    coins = "bitcoin:shard1,ethereum:shard2,other:shard1"
    first, second = placed(coins)
    settings = config.load({}, shard1_dsn=first, shard2_dsn=second, report_deadline_s=DEADLINE_S, coins=coins)
    shards = {name: PostgresShard(name, settings.dsn(name), deadline_s=SHARD_DEADLINE_S) for name in config.SHARDS}
    async with shards["shard1"], shards["shard2"], QuoteServiceTwin(HELD).client(deadline_s=5.0) as client:
        for coin, name in settings.seed_placement.items():
            fence = await shards[name].become_writer(coin, 5, "writer")
            await shards[name].append(coin, fence.placement, 5, HELD[coin])
        transport = httpx2.ASGITransport(
            app.wire(settings, client, directory_over(shards, settings.seed_placement)).app
        )
        async with httpx2.AsyncClient(transport=transport, base_url="http://aggregator") as asking:
            yield asking


async def new_report(asking: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await asking.get("/report/full", headers={"cache-control": "no-cache"})
    assert answer.status_code == 200
    report: dict[str, Any] = answer.json()
    return report


async def complete_report(asking: httpx2.AsyncClient) -> dict[str, Any]:
    """The first complete one, on a machine that may be busy or a server that wakes up."""
    async with asyncio.timeout(20):
        while not (report := await new_report(asking))["complete"]:
            pass
        return report


async def test_the_logs_of_all_coins_are_those_of_the_shards_digit_for_digit(asking: httpx2.AsyncClient) -> None:
    report = await complete_report(asking)
    assert list(report["coins"]) == list(HELD)
    for coin, quotes in HELD.items():
        assert [Decimal(log["price"]) for log in report["coins"][coin]["last_logs"]] == [q.price for q in quotes[-10:]]
        assert report["coins"][coin]["last_logs"][-1]["price"] == str(quotes[-1].price)
        assert report["coins"][coin]["through"] == "5-12"


async def test_frozen_shards_cost_no_more_than_the_deadline_and_leave_nothing_behind(
    asking: httpx2.AsyncClient, postgres_server: Server
) -> None:
    await complete_report(asking)
    tasks = len(asyncio.all_tasks())
    postgres_server.freeze()
    try:
        for _ in range(2):
            async with asyncio.timeout(SHARD_DEADLINE_S / 2):
                report = await new_report(asking)
            assert {entry["part"] for entry in report["missing"]} == {"shard1", "shard2"}
            assert report["coins"]["bitcoin"]["current"]["price"] == "12.1000"
    finally:
        postgres_server.thaw()
    assert (await complete_report(asking))["coins"]["bitcoin"]["through"] == "5-12"
    assert still_running() == 0
    assert len(asyncio.all_tasks()) <= tasks


async def test_reasons_contain_no_password_and_no_address(migrated: str) -> None:
    settings = config.load({}, coins="bitcoin:shard1", report_deadline_s=DEADLINE_S)
    dsn = migrated.replace("password", "hunter2").replace("127.0.0.1", "localhost")
    async with PostgresShard("shard1", dsn, deadline_s=5.0) as shard, QuoteServiceTwin(HELD).client() as client:
        directory = directory_over({"shard1": shard}, settings.seed_placement)
        transport = httpx2.ASGITransport(app.wire(settings, client, directory).app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://aggregator") as other:
            answer = await other.get("/report/full")
    assert [entry["part"] for entry in answer.json()["missing"]] == ["shard1"]
    assert not any(secret in answer.text for secret in ("hunter2", "localhost", "postgresql://", "Traceback"))
