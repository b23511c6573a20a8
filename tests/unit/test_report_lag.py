"""A shard that lacks what was delivered to it costs its part of the report, which says by how much it is behind."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.harness_directory import directory_over

from cotacoes import config
from cotacoes.aggregator_service import app
from cotacoes.errors import ShardUnavailableError
from cotacoes.model.quote import Position, Quote
from cotacoes.model.window import Window
from cotacoes.patterns.sharding.shard import ShardView
from cotacoes.testing.memory_shard import MemoryShard

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLACEMENT = {"bitcoin": "shard1", "litecoin": "shard1", "ethereum": "shard2"}
GIVEN = 275


def quotes(coin: str, count: int = GIVEN) -> list[Quote]:
    return [Quote(coin, "USD", Decimal(f"{seq}.10"), 5, seq, NOON, NOON, "sim") for seq in range(1, count + 1)]


class Standby(MemoryShard):
    """Another node than the one that stores the quotes; `catch_up` has arrived there when it is asked again."""

    catch_up: Sequence[Quote] = ()
    asked = 0
    fails_again = False

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        self.asked += 1
        if self.fails_again and self.asked > 1:
            raise ShardUnavailableError("shard1 is not reachable")
        views = await super().newest(coins, count, window)
        self.copies["bitcoin"].store(self.catch_up)
        return views


class AggregatorWithStandby:
    """An aggregator over a shard1 that holds the first `held` quotes of bitcoin, and all quotes of the other coins."""

    def __init__(self, held: int) -> None:
        self.twin = QuoteServiceTwin({coin: quotes(coin) for coin in PLACEMENT})
        self.twin.through = dict.fromkeys(PLACEMENT, f"5-{GIVEN}")
        self.shard = Standby("shard1", ["bitcoin", "litecoin"])
        self.shards = {"shard1": self.shard, "shard2": MemoryShard("shard2", ["ethereum"])}
        for coin, shard in PLACEMENT.items():
            self.shards[shard].copies[coin].store(quotes(coin, held if coin == "bitcoin" else GIVEN))

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[httpx2.AsyncClient]:
        directory = directory_over(self.shards, PLACEMENT)
        async with self.twin.client(deadline_s=60) as client:
            served = app.wire(config.load({}, report_kept_s=0), client, directory).app
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://x") as asking:
                yield asking

    async def report(self, path: str = "/report/full") -> dict[str, Any]:
        async with self.asking() as asking:
            report: dict[str, Any] = (await asking.get(path)).json()
        return report


@pytest.mark.parametrize(
    ("held", "through", "words"),
    [
        (10, "5-275", "shard1 is 265 quotes behind: it ends with 5-10, but 5-275 was delivered to it"),
        (274, "5-275", "shard1 is 1 quote behind: it ends with 5-274, but 5-275 was delivered to it"),
        (275, "6-3", "shard1 is behind: it ends with 5-275, but 6-3 was delivered to it"),
        (0, "5-275", "shard1 is behind: it has no quote, but 5-275 was delivered to it"),
    ],
)
async def test_the_parts_of_a_lagging_shard_are_missing_and_say_how_far_it_is_behind(
    held: int, through: str, words: str
) -> None:
    world = AggregatorWithStandby(held)
    world.twin.through["bitcoin"] = through
    report = await world.report()
    assert not report["complete"]
    assert report["missing"] == [{"part": f"bitcoin.{part}", "reason": words} for part in ("last_logs", "window")]
    assert {name: source["status"] for name, source in report["sources"].items()} == {
        "quote_service": "ok",
        "shard1": "lagging",
        "shard2": "ok",
    }
    coin = report["coins"]["bitcoin"]
    assert (coin["last_logs"], coin["through"], coin["window"]) == (None, None, None)
    assert coin["current"]["price"] == "275.10"
    for other in ("litecoin", "ethereum"):
        assert report["coins"][other]["through"] == "5-275"


async def test_a_report_is_complete_again_once_the_shard_has_caught_up() -> None:
    world = AggregatorWithStandby(10)
    assert not (await world.report())["complete"]
    world.shard.copies["bitcoin"].store(quotes("bitcoin"))
    report = await world.report()
    assert (report["complete"], report["coins"]["bitcoin"]["through"]) == (True, "5-275")


async def test_a_delivery_between_the_two_answers_is_no_lag() -> None:
    """The shard answered just before the last batch came, quote_service just after."""
    world = AggregatorWithStandby(250)
    world.shard.catch_up = quotes("bitcoin")
    report = await world.report()
    assert (report["complete"], report["coins"]["bitcoin"]["through"]) == (True, "5-250")
    assert world.shard.asked == 2


@pytest.mark.parametrize("through", [None, "5-200", "5-250"])
async def test_a_shard_that_has_more_than_is_known_to_be_delivered_is_asked_once(through: str | None) -> None:
    world = AggregatorWithStandby(250)
    world.twin.through["bitcoin"] = through
    assert (await world.report())["complete"]
    assert world.shard.asked == 1


async def test_a_shard_that_cannot_be_asked_again_is_believed() -> None:
    world = AggregatorWithStandby(10)
    world.shard.fails_again = True
    assert (await world.report())["complete"]


async def test_without_pending_among_the_parts_no_lag_is_found() -> None:
    report = await AggregatorWithStandby(10).report("/report/full?parts=last_logs")
    assert (report["complete"], report["coins"]["bitcoin"]["through"]) == (True, str(Position(5, 10)))
