"""The report is honest: it has what arrived, names what did not, and is there by its deadline."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.harness_directory import directory_over

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.aggregator_service import app
from cotacoes.aggregator_service.plan import ReportPlan
from cotacoes.aggregator_service.report import merge
from cotacoes.aggregator_service.routes import plan
from cotacoes.aggregator_service.shards import ShardAnswer
from cotacoes.errors import (
    BadRequestError,
    DeadlineExceededError,
    HttpUnavailableError,
    InternalError,
    NoQuoteError,
    ServiceUnavailableError,
    ShardUnavailableError,
)
from cotacoes.model.payloads import CurrentJson, MeanJson, Progress
from cotacoes.model.quote import AgeLimits, Position, Quote
from cotacoes.model.window import Window, WindowView
from cotacoes.patterns.scatter_gather.gather_result import Branch, BranchStatus, GatherResult
from cotacoes.patterns.sharding.shard import Directory, Home, Shard, ShardView
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.overview import Overview
from cotacoes.web.service_client import Addresses, ServiceClient

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COINS = ("bitcoin", "ethereum")
PLACEMENT = {"bitcoin": "shard1", "ethereum": "shard2"}
WINDOW = Window.until("24h", NOON + timedelta(minutes=1))
PLAN = ReportPlan(PLACEMENT, WINDOW)
OF_NOW = {"cache-control": "no-cache"}
LIMITS = AgeLimits(5_000, 300_000)


def quotes(coin: str, count: int = 12) -> list[Quote]:
    return [Quote(coin, "USD", Decimal(f"{seq}.10"), 5, seq, NOON, NOON, "sim") for seq in range(1, count + 1)]


class FrozenShard(MemoryShard):
    """A shard that never answers."""

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        await asyncio.Event().wait()
        raise AssertionError


async def filled(shard: MemoryShard, coin: str) -> Shard:
    fence = await shard.become_writer(coin, 5, "writer")
    await shard.append(coin, fence.placement, 5, quotes(coin))
    return shard


async def ask(
    twin: QuoteServiceTwin, shard1: MemoryShard | None = None, path: str = "/report/full", deadline_s: float = 5.0
) -> httpx2.Response:
    shards = {
        "shard1": await filled(shard1 or MemoryShard("shard1", ["bitcoin"]), "bitcoin"),
        "shard2": await filled(MemoryShard("shard2", ["ethereum"]), "ethereum"),
    }
    if shard1 is not None and not isinstance(shard1, FrozenShard):
        shard1.away = True
    async with twin.client(deadline_s=60) as client:
        served = app.wire(
            config.load({}, report_deadline_s=deadline_s, report_kept_s=60.0, request_deadline_s=60.0),
            client,
            directory_over(shards, PLACEMENT),
        ).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://aggregator") as asking:
            return await asking.get(path)


def reported(
    twin: QuoteServiceTwin | None = None, shard1: MemoryShard | None = None, deadline_s: float = 5.0
) -> dict[str, Any]:
    answer = asyncio.run(ask(twin or new_twin(), shard1, deadline_s=deadline_s))
    assert answer.status_code == 200
    report: dict[str, Any] = answer.json()
    assert report["complete"] == (not report["missing"])
    assert report["elapsed_ms"] <= report["deadline_ms"] == deadline_s * 1000
    return report


def new_twin() -> QuoteServiceTwin:
    return QuoteServiceTwin({coin: quotes(coin) for coin in COINS})


def test_with_all_sources_the_report_is_complete_and_in_the_order_of_the_settings() -> None:
    report = reported()
    assert report["complete"] is True
    assert list(report["coins"]) == list(COINS)
    assert list(report["sources"]) == ["quote_service", "shard1", "shard2"]
    assert {source["status"] for source in report["sources"].values()} == {"ok"}
    coin = report["coins"]["bitcoin"]
    assert coin["current"]["price"] == "12.10"
    assert coin["average"]["average"] == "1.5"
    assert [log["seq"] for log in coin["last_logs"]] == list(range(3, 13))
    assert coin["last_logs"][-1]["price"] == "12.10"
    assert (coin["through"], coin["pending"]) == ("5-12", 3)


def test_a_shard_that_is_away_costs_its_own_part_and_no_other() -> None:
    report = reported(shard1=MemoryShard("shard1", ["bitcoin"]))
    assert report["missing"] == [{"part": "shard1", "reason": "shard1 is not reachable"}]
    assert report["sources"]["shard1"]["status"] == "failed"
    assert (report["coins"]["bitcoin"]["last_logs"], report["coins"]["bitcoin"]["through"]) == (None, None)
    assert report["coins"]["bitcoin"]["current"]["price"] == "12.10"
    assert report["coins"]["ethereum"]["through"] == "5-12"


@pytest.mark.slow
def test_a_frozen_shard_does_not_hold_the_report_past_its_deadline() -> None:
    started = time.monotonic()
    report = reported(shard1=FrozenShard("shard1", ["bitcoin"]), deadline_s=1.0)
    assert time.monotonic() - started < 3.0
    assert [missing["part"] for missing in report["missing"]] == ["shard1"]
    assert report["sources"]["shard1"]["status"] == "timed_out"


@pytest.mark.parametrize(
    ("fault", "status"),
    [(HttpUnavailableError(), "failed"), (None, "timed_out"), (b"<html>", "failed"), (InternalError("bug"), "failed")],
    ids=["away", "hangs", "babbles", "crashes"],
)
@pytest.mark.slow
def test_quote_service_away_is_one_missing_part_and_the_shards_still_answer(fault: Any, status: str) -> None:
    twin = new_twin()
    twin.faults["*"] = fault
    report = reported(twin, deadline_s=1.0)
    assert [missing["part"] for missing in report["missing"]] == ["quote_service"]
    assert report["sources"]["quote_service"]["status"] == status
    for coin in COINS:
        assert (
            report["coins"][coin]["current"]
            is report["coins"][coin]["average"]
            is report["coins"][coin]["pending"]
            is None
        )
        assert len(report["coins"][coin]["last_logs"]) == 10


def test_a_refusal_is_a_missing_part_of_a_healthy_source() -> None:
    twin = new_twin()
    twin.faults["/cotacao_atual/ethereum"] = NoQuoteError("no quote of ethereum yet")
    report = reported(twin)
    assert report["missing"] == [{"part": "ethereum.current", "reason": "no quote of ethereum yet"}]
    assert report["sources"]["quote_service"]["status"] == "ok"
    assert report["coins"]["ethereum"]["current"] is None
    assert report["coins"]["bitcoin"]["current"] is not None


def test_a_value_that_quote_service_could_not_give_in_time_costs_only_that_value() -> None:
    twin = new_twin()
    twin.faults["/media_ultimos_10_logs/bitcoin"] = DeadlineExceededError("no answer within 1.4 s")
    report = reported(twin)
    assert report["missing"] == [{"part": "bitcoin.average", "reason": "no answer within 1.4 s"}]
    assert report["sources"]["quote_service"]["status"] == "ok"
    assert report["coins"]["bitcoin"]["average"] is None
    assert (report["coins"]["bitcoin"]["pending"], report["coins"]["bitcoin"]["current"]["price"]) == (3, "12.10")
    assert report["coins"]["ethereum"]["average"]["average"] == "1.5"


def test_it_is_ready_whichever_source_is_away_and_names_it() -> None:
    answer = asyncio.run(ask(new_twin(), MemoryShard("shard1", ["bitcoin"]), "/readyz"))
    assert answer.status_code == 200
    assert {name: check["ok"] for name, check in answer.json()["checks"].items()} == {
        "quote_service": True,
        "shard1": False,
        "shard2": True,
    }


def test_the_time_for_asking_leaves_some_for_the_merge_and_never_exceeds_a_request() -> None:
    assert app.ask_deadline_s(config.load({})) == pytest.approx(1.9)
    assert app.ask_deadline_s(config.load({}, request_deadline_s=1.0)) == pytest.approx(0.9)
    assert app.ask_deadline_s(config.load({}, report_deadline_s=0.05)) == pytest.approx(0.045)


TIME = "2026-11-24T12:00:00.000000Z"
BROUGHT: dict[str, Any] = {
    "quote_service": Overview(
        {coin: CurrentJson(coin, "USD", "1", 5, 9, TIME, TIME, 100, "fresh", "live", "sim") for coin in COINS},
        {coin: MeanJson(coin, "USD", "1", 9, "5-1", "5-9") for coin in COINS},
        {coin: Progress("5-9", "5-7", 2, PLACEMENT[coin]) for coin in COINS},
        {},
    ),
    "shard1": ShardAnswer({"bitcoin": ShardView(Position(5, 7), NOON, 1, quotes("bitcoin", 2), WindowView())}),
    "shard2": ShardAnswer({"ethereum": ShardView(None, None, 1, [], WindowView())}),
}
ERRORS = [NoQuoteError("none yet"), ServiceUnavailableError("away"), ShardUnavailableError("away"), KeyError("secret")]


@st.composite
def outcomes(draw: st.DrawFn) -> GatherResult[Any]:
    branches = {}
    for name, value in BROUGHT.items():
        status = draw(st.sampled_from(BranchStatus))
        error = draw(st.sampled_from(ERRORS)) if status is BranchStatus.FAILED else None
        brought = value if status.is_good else None
        branches[name] = Branch(name, status, 0.0, 0.1, 1, brought, error, None if status is BranchStatus.OK else "why")
    return GatherResult(branches, 0.2)


@given(outcomes())
def test_whatever_failed_the_report_names_exactly_the_parts_that_are_null(result: GatherResult[Any]) -> None:
    report = merge(PLAN, result, LIMITS, generated_at=NOON, deadline_s=2.0)
    missing = {entry.part for entry in report.missing}
    assert len(missing) == len(report.missing)
    for coin, shard in PLACEMENT.items():
        parts = report.coins[coin]
        silent = "quote_service" in missing
        assert (parts.current is None) == (silent or f"{coin}.current" in missing)
        assert (parts.average is None) == (silent or f"{coin}.average" in missing)
        assert (parts.pending is None) == (silent or "pending" in missing)
        assert (parts.last_logs is None) == (parts.window is None) == (shard in missing)
        if silent:
            assert not missing - {"quote_service", "shard1", "shard2"}
    assert report.complete == result.complete
    assert msgspec.json.encode(report)


@pytest.mark.slow
def test_a_coin_that_cannot_be_found_costs_its_own_parts_and_none_of_a_healthy_shard() -> None:
    class SilentShard(FrozenShard):
        async def directory(self) -> Directory:
            await asyncio.sleep(60)  # it does not know where the coin went either
            raise AssertionError

    async def run() -> dict[str, Any]:
        shards = {"shard1": SilentShard("shard1", ["bitcoin"]), "shard2": MemoryShard("shard2", ["ethereum"])}
        await filled(shards["shard2"], "ethereum")
        directory = directory_over(shards, {**PLACEMENT, "lost": "shard2"})
        directory.shards |= shards
        async with new_twin().client(deadline_s=60) as client:
            served = app.wire(config.load({}, report_deadline_s=1.0), client, directory).app
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://x") as asking:
                report: dict[str, Any] = (await asking.get("/report/full")).json()
                return report

    report = asyncio.run(run())
    missing = [entry["part"] for entry in report["missing"]]
    assert "shard2" not in missing
    assert {"shard1", "lost.last_logs", "lost.window"} <= set(missing)
    assert len(report["coins"]["ethereum"]["last_logs"]) == 10


def test_a_moved_coin_is_reported_from_where_its_fence_points_with_shard1_away() -> None:
    async def run() -> dict[str, Any]:
        gone, home = MemoryShard("shard1", ["bitcoin"]), MemoryShard("shard2", ["bitcoin", "ethereum"])
        await filled(home, "bitcoin")
        await filled(home, "ethereum")
        gone.copies["bitcoin"].state, gone.copies["bitcoin"].moved_to = "moved", "shard2"
        home.copies["bitcoin"].placement = 2
        directory = directory_over({"shard1": gone, "shard2": home}, PLACEMENT)
        async with new_twin().client(deadline_s=60) as client:
            served = app.wire(config.load({}), client, directory).app
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://x") as asking:
                report: dict[str, Any] = (await asking.get("/report/full")).json()
                return report

    report = asyncio.run(run())
    assert report["complete"]
    assert len(report["coins"]["bitcoin"]["last_logs"]) == 10


@pytest.mark.slow
async def test_a_shard_that_hangs_is_left_out_after_a_few_reports_until_it_is_back() -> None:
    class Hanging(MemoryShard):
        asked = 0
        hangs = True

        async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
            self.asked += 1
            if self.hangs:
                await asyncio.Event().wait()
            return await super().newest(coins, count, window)

    hanging = Hanging("shard1", ["bitcoin"])
    shards = {
        "shard1": await filled(hanging, "bitcoin"),
        "shard2": await filled(MemoryShard("shard2", ["ethereum"]), "ethereum"),
    }
    async with new_twin().client(deadline_s=60) as client:
        settings = config.load({}, report_deadline_s=0.5)
        served = app.wire(settings, client, directory_over(shards, PLACEMENT)).app
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(served), base_url="http://aggregator", headers=OF_NOW
        ) as asking:
            report = [(await asking.get("/report/full")).json()]
            while report[-1]["sources"]["shard1"]["status"] == "timed_out":  # a busy machine may cut one off unjudged
                assert len(report) < 20
                report.append((await asking.get("/report/full")).json())
            assert report[-1]["missing"] == [{"part": "shard1", "reason": "shard1 is away (circuit open)"}]
            assert report[-1]["sources"]["shard1"]["status"] == "rejected"
            assert report[-1]["elapsed_ms"] < report[0]["elapsed_ms"]
            assert hanging.asked == len(report) - 1 >= 5
            hanging.hangs = False
            await asyncio.sleep(1.15)
            assert (await asking.get("/report/full")).json()["complete"] is True
            shown = (await asking.get("/v1/breakers")).json()["breakers"]
            assert {report["name"]: report["state"] for report in shown}["shard1"] == "closed"


@pytest.mark.parametrize(("left_ms", "state"), [("200", "closed"), (None, "open")])
async def test_a_caller_in_a_hurry_opens_no_circuit(left_ms: str | None, state: str) -> None:
    """quote_service gives up at the deadline that we send; that is no evidence if our own caller had no more time."""
    twin = new_twin()
    twin.faults["*"] = DeadlineExceededError("not ready in time")
    shards = {
        "shard1": await filled(MemoryShard("shard1", ["bitcoin"]), "bitcoin"),
        "shard2": await filled(MemoryShard("shard2", ["ethereum"]), "ethereum"),
    }
    async with twin.client(deadline_s=60) as client:
        served = app.wire(config.load({}), client, directory_over(shards, PLACEMENT)).app
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(served), base_url="http://aggregator", headers=OF_NOW
        ) as asking:
            for _ in range(6):
                await asking.get("/report/full", headers={} if left_ms is None else {"X-Deadline-Ms": left_ms})
            shown = (await asking.get("/v1/breakers")).json()["breakers"]
    assert {report["state"] for report in shown if report["name"].startswith("quote_service")} == {state}


async def test_quote_service_is_asked_once_for_each_part_and_not_at_all_while_its_circuits_are_open() -> None:
    twin = new_twin()
    asked: list[str] = []
    broken = False

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        if broken:
            raise httpx2.ConnectError("refused")
        await twin(scope, receive, send)

    shards = {
        "shard1": await filled(MemoryShard("shard1", ["bitcoin"]), "bitcoin"),
        "shard2": await filled(MemoryShard("shard2", ["ethereum"]), "ethereum"),
    }
    http = HttpClient(60.0, 100_000, transport=httpx2.ASGITransport(counted))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
        served = app.wire(config.load({}), client, directory_over(shards, PLACEMENT)).app
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(served), base_url="http://aggregator", headers=OF_NOW
        ) as asking:
            for _ in range(10):
                assert (await asking.get("/report/full")).json()["complete"]
            assert len(asked) == 10
            broken = True
            asked.clear()
            await asking.get("/report/full")
            assert len(asked) == 1  # only the gateway makes a second attempt
            for _ in range(4):
                report = (await asking.get("/report/full")).json()
            asked.clear()
            report = (await asking.get("/report/full")).json()
    assert asked == []
    assert report["missing"] == [{"part": "quote_service", "reason": "quote_service is away (circuit open)"}]
    assert len(report["coins"]["bitcoin"]["last_logs"]) == 10


def asked(query: str, twin: QuoteServiceTwin | None = None, shard1: MemoryShard | None = None) -> httpx2.Response:
    return asyncio.run(ask(twin or new_twin(), shard1, f"/report/full{query}"))


def test_sources_are_asked_only_for_the_named_coins_and_parts() -> None:
    report = asked("?coins=ethereum&parts=last_logs,current&last=2", shard1=FrozenShard("shard1", ["bitcoin"])).json()
    assert report["complete"] is True
    assert list(report["coins"]) == ["ethereum"]
    assert list(report["coins"]["ethereum"]) == ["current", "last_logs", "through"]
    assert [log["seq"] for log in report["coins"]["ethereum"]["last_logs"]] == [11, 12]
    assert list(report["sources"]) == ["quote_service", "shard2"]


def test_a_report_of_the_shards_alone_does_not_ask_quote_service() -> None:
    twin = new_twin()
    twin.faults["*"] = HttpUnavailableError()
    report = asked("?parts=last_logs", twin).json()
    assert report["complete"] is True
    assert list(report["sources"]) == ["shard1", "shard2"]


@pytest.mark.parametrize("path", ["/report/full", "/v1/report"])
def test_a_partial_report_has_a_header_and_is_an_error_if_strict(path: str) -> None:
    answer = asyncio.run(ask(new_twin(), MemoryShard("shard1", ["bitcoin"]), path))
    assert (answer.status_code, answer.headers["x-partial"]) == (200, "shard1")
    strict = asyncio.run(ask(new_twin(), MemoryShard("shard1", ["bitcoin"]), f"{path}?strict=1"))
    assert strict.status_code == 503
    assert strict.json()["detail"] == "the report is not complete: shard1 (shard1 is not reachable)"
    whole = asyncio.run(ask(new_twin(), None, f"{path}?strict=1"))
    assert whole.status_code == 200
    assert "x-partial" not in whole.headers


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("?coins=bitcoyn", 404, "bitcoyn is not quoted here"),
        ("?coins=", 422, "coins must name at least one"),
        ("?parts=current,,average", 422, "parts must name at least one"),
        ("?parts=prices", 422, "unknown part 'prices', choose from current, average, last_logs, window, pending"),
        ("?last=0", 422, "last"),
        ("?last=101", 422, "last"),
        ("?strict=perhaps", 422, "strict"),
    ],
)
def test_an_invalid_question_is_refused_with_what_to_write(query: str, status: int, said: str) -> None:
    answer = asked(query)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


async def test_a_coin_whose_new_shard_hangs_costs_its_own_parts_and_none_of_the_old_shard() -> None:
    gone, hanging = MemoryShard("shard1", ["bitcoin", "ethereum"]), FrozenShard("shard2", ["bitcoin"])
    await filled(gone, "bitcoin")
    await filled(gone, "ethereum")
    gone.copies["bitcoin"].state, gone.copies["bitcoin"].moved_to = "moved", "shard2"
    directory = directory_over({"shard1": gone, "shard2": hanging}, dict.fromkeys(COINS, "shard1"))
    async with new_twin().client(deadline_s=60) as client:
        served = app.wire(config.load({}), client, directory).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://x") as asking:
            report = (await asking.get("/report/full?parts=last_logs", headers={"X-Deadline-Ms": "600"})).json()
    assert [one["part"] for one in report["missing"]] == ["bitcoin.last_logs"]
    assert report["sources"]["shard1"]["status"] == "ok"
    assert len(report["coins"]["ethereum"]["last_logs"]) == 10


@pytest.mark.parametrize(
    ("coins", "last", "said"),
    [
        (2_000, None, None),
        (2_001, None, "coins: 2001 coins exceed the limit of 2000, name fewer"),
        (200, 100, None),
        (201, 100, "last: 100 quotes of 201 coins exceed the limit of 20000"),
    ],
)
def test_an_answer_is_bounded_and_a_larger_question_is_refused_with_the_limit(
    coins: int, last: int | None, said: str | None
) -> None:
    placement = {f"coin-{number}": "shard1" for number in range(coins)}
    if said is None:
        assert len(plan(placement, None, None, last, "1h", NOON).placement) == coins
        return
    with pytest.raises(BadRequestError, match=said):
        plan(placement, None, None, last, "1h", NOON)
    if last is not None:
        assert plan(placement, None, "window", last, "1h", NOON).parts == ("window",)


async def test_the_series_of_a_venue_is_in_a_report_only_by_its_name() -> None:
    name = "bitcoin-kraken"
    shard = MemoryShard("shard1", ["bitcoin", name])
    for coin in ("bitcoin", name):
        await filled(shard, coin)
    directory = directory_over({"shard1": shard}, dict.fromkeys(("bitcoin", name), "shard1"))
    directory.homes[name] = Home(2, "shard1", 1, kind="venue")
    twin = QuoteServiceTwin({coin: quotes(coin) for coin in ("bitcoin", name)})
    async with twin.client(deadline_s=60) as client:
        served = app.wire(config.load({}, report_deadline_s=5.0, request_deadline_s=60.0), client, directory).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://aggregator") as asking:
            every = (await asking.get("/report/full")).json()
            named = (await asking.get(f"/report/full?coins={name}")).json()
    assert every["coins"].keys() == {"bitcoin"}
    assert named["missing"] == []
    assert named["coins"].keys() == {name}
    assert len(named["coins"][name]["last_logs"]) == 10


@pytest.mark.slow
def test_a_trace_shows_how_each_branch_went_in_the_order_of_the_plan() -> None:
    twin = new_twin()
    twin.faults["/v1/overview"] = None
    answer = asyncio.run(ask(twin, MemoryShard("shard1", ["bitcoin"]), "/report/full?trace=1", deadline_s=1.0)).json()
    trace = {step["branch"]: step for step in answer["trace"]}
    assert list(trace) == ["quote_service", "shard1", "shard2"]
    assert (trace["shard2"]["status"], trace["shard2"]["attempts"]) == ("ok", 1)
    assert (trace["quote_service"]["status"], trace["shard1"]["status"]) == ("timed_out", "failed")
    assert trace["shard1"]["reason"] == "shard1 is not reachable"
    assert trace["quote_service"]["elapsed_ms"] > 500
    assert all(0 <= step["start_ms"] <= answer["elapsed_ms"] for step in trace.values())
    assert "trace" not in asked("").json()


async def serving_two(deadline_s: float, twin: Any) -> tuple[httpx2.AsyncClient, ServiceClient, dict[str, Any]]:
    shards = {
        "shard1": await filled(MemoryShard("shard1", ["bitcoin"]), "bitcoin"),
        "shard2": await filled(MemoryShard("shard2", ["ethereum"]), "ethereum"),
    }
    http = HttpClient(60.0, 100_000, transport=httpx2.ASGITransport(twin))
    client = ServiceClient(Addresses(quote_service="http://quote_service"), http=http)
    served = app.wire(
        config.load({}, report_deadline_s=deadline_s, report_kept_s=60.0, request_deadline_s=60.0),
        client,
        directory_over(shards, PLACEMENT),
    ).app
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://aggregator")
    return asking, client, shards


async def test_identical_questions_at_the_same_time_share_one_answer_and_one_asking() -> None:
    twin, asked = new_twin(), []

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await asyncio.sleep(0.05)
        await twin(scope, receive, send)

    asking, client, _ = await serving_two(5.0, counted)
    async with asking, client:
        answers = await asyncio.gather(
            *(asking.get("/report/full") for _ in range(50)), asking.get("/v1/report?last=2")
        )
    assert len({answer.content for answer in answers[:-1]}) == 1
    assert answers[-1].content != answers[0].content
    assert len(asked) == 2


@pytest.mark.slow
async def test_a_caller_that_hangs_up_takes_nothing_from_the_others() -> None:
    twin = new_twin()
    twin.faults["/v1/overview"] = None
    asking, client, _ = await serving_two(1.0, twin)
    async with asking, client:
        first = asyncio.create_task(asking.get("/report/full"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(asking.get("/report/full"))
        await asyncio.sleep(0.1)
        first.cancel()
        assert [one["part"] for one in (await second).json()["missing"]] == ["quote_service"]


@pytest.mark.slow
async def test_a_caller_in_a_hurry_gets_what_has_arrived_by_then() -> None:
    twin = new_twin()
    twin.faults["/v1/overview"] = None
    asking, client, _ = await serving_two(30.0, twin)
    async with asking, client:
        answer = await asking.get("/report/full", headers={"X-Deadline-Ms": "2000"})
        report = answer.json()
    assert answer.status_code == 200
    assert report["deadline_ms"] <= 2000
    assert [one["part"] for one in report["missing"]] == ["quote_service"]
    assert report["coins"]["bitcoin"]["through"] == "5-12"


def test_a_merge_reads_the_values_of_its_branches_once() -> None:
    reads = 0

    class CountedResult(GatherResult[Any]):
        @property
        def values(self) -> dict[str, Any]:
            nonlocal reads
            reads += 1
            return super().values

    branches = {name: Branch(name, BranchStatus.OK, 0.0, 0.1, 1, value) for name, value in BROUGHT.items()}
    assert merge(PLAN, CountedResult(branches, 0.2), LIMITS, generated_at=NOON, deadline_s=2.0).complete
    assert reads == 1
