"""A report that is served again is the same one, says how old it is, and makes no price younger than it is."""

import contextlib
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
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
from cotacoes.aggregator_service import app
from cotacoes.aggregator_service.plan import ReportPlan
from cotacoes.aggregator_service.report import etag_payload, merge
from cotacoes.aggregator_service.report_cache import BYTES_MAX, REPORTS_MAX, RenderedReport, ReportCache
from cotacoes.aggregator_service.routes import _max_age_s
from cotacoes.model.payloads import CurrentJson, MissingJson, ReportJson
from cotacoes.model.quote import AgeLimits, Quote, utc_now
from cotacoes.model.window import Window
from cotacoes.patterns.scatter_gather.gather_result import Branch, BranchStatus, GatherResult
from cotacoes.patterns.sharding.shard import Home
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.overview import Overview

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTES = [Quote("bitcoin", "USD", Decimal("67012.30"), 5, seq, NOON, NOON, "sim") for seq in range(1, 13)]
PATH = "/report/full?parts=current,average,last_logs,pending"
LIMITS = AgeLimits(5_000, 300_000)
TIME = "2026-11-24T12:00:00.000000Z"
CURRENT = CurrentJson("bitcoin", "USD", "1", 5, 12, TIME, TIME, 0, "fresh", "live", "sim")


def report_of(*missing: MissingJson) -> ReportJson:
    """A report without a coin."""
    return ReportJson(
        generated_at=TIME,
        deadline_ms=2_000,
        elapsed_ms=1,
        complete=not missing,
        missing=list(missing),
        coins={},
        sources={},
    )


class Clock:
    """A clock whose seconds pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class AggregatorOverOneShard:
    """An aggregator over one shard and a quote_service, which count how often they are asked."""

    def __init__(self, **settings: Any) -> None:
        self.clock, self.twin = Clock(), QuoteServiceTwin({"bitcoin": list(QUOTES)})
        self.shard = MemoryShard("shard1", ["bitcoin"])
        self.directory = directory_over({"shard1": self.shard}, {"bitcoin": "shard1"})
        self.settings = config.load(
            {}, coins="bitcoin:shard1", **{"request_deadline_s": 60.0, "report_deadline_s": 60.0, **settings}
        )

    @contextlib.asynccontextmanager
    async def asking(self, now: Callable[[], datetime] = utc_now) -> AsyncIterator[httpx2.AsyncClient]:
        await self.shard.become_writer("bitcoin", 5, "writer")
        await self.shard.append("bitcoin", 1, 5, QUOTES)
        async with self.twin.client(deadline_s=60) as client:
            served = app.wire(self.settings, client, self.directory, clock=self.clock, now=now).app
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://x") as asking:
                yield asking


async def test_the_same_question_soon_after_gets_the_same_report_with_its_age_and_older_prices() -> None:
    world = AggregatorOverOneShard(report_kept_s=2.0, fresh_s=1.0)
    async with world.asking() as asking:
        first = await asking.get(PATH)
        world.clock.now += 1.3
        again = await asking.get(PATH)
        other = await asking.get(f"{PATH}&last=3")
        world.clock.now += 0.8
        later = await asking.get(PATH)
    before, after = (answer.json()["coins"]["bitcoin"]["current"] for answer in (first, again))
    assert (first.headers["age"], again.headers["age"]) == ("0", "1")
    assert again.json()["generated_at"] == first.json()["generated_at"]
    assert after == before | {"age_ms": before["age_ms"] + 1_300, "status": "stale"}
    assert before["status"] == "fresh"
    assert other.json()["generated_at"] > first.json()["generated_at"]
    assert (later.headers["age"], later.json()["coins"]["bitcoin"]["current"]["status"]) == ("0", "fresh")


@pytest.mark.parametrize(
    ("header", "is_again"),
    [
        ("", True),
        ("no-cache", False),
        ("no-store", False),
        ("max-age=0", False),
        ("max-age=1", True),
        ("private", True),
    ],
)
async def test_a_request_for_a_new_report_gets_a_new_report(header: str, is_again: bool) -> None:
    world = AggregatorOverOneShard()
    async with world.asking() as asking:
        first = await asking.get(PATH)
        world.clock.now += 0.5
        again = await asking.get(PATH, headers={"cache-control": header})
        traced = await asking.get(f"{PATH}&trace=1")
    assert (again.json()["generated_at"] == first.json()["generated_at"]) == is_again
    assert traced.json()["generated_at"] > first.json()["generated_at"]
    assert traced.headers.get("etag") is None


@pytest.mark.parametrize(
    ("header", "most_s"),
    [("max-age=5, no-cache", 0), ("max-age=9,MAX-AGE=3", 3), ("max-age=0000000005", 5), ("max-age=-1", math.inf)],
)
def test_the_strictest_directive_of_a_header_counts(header: str, most_s: float) -> None:
    assert _max_age_s(header) == most_s


async def test_no_cache_may_store_a_report_since_it_would_serve_its_ages_unchanged() -> None:
    async with AggregatorOverOneShard().asking() as asking:
        first = await asking.get(PATH)
        known = await asking.get(PATH, headers={"if-none-match": first.headers["etag"]})
    assert first.headers["cache-control"] == known.headers["cache-control"] == "no-store"


def test_a_reason_that_changes_by_the_second_changes_no_etag() -> None:
    reports = [report_of(MissingJson("bitcoin.current", f"{age} s old")) for age in (301, 302)]
    assert etag_payload(reports[0]) == etag_payload(reports[1])


async def test_the_time_to_make_a_report_is_part_of_the_age_of_its_prices() -> None:
    world = AggregatorOverOneShard(report_kept_s=5.0)

    def slowly() -> datetime:
        """The wall time, which is read for the merge once everything has been gathered."""
        world.clock.now += 0.4
        return datetime.now(UTC)

    async with world.asking(slowly) as asking:
        first = (await asking.get(PATH)).json()["coins"]["bitcoin"]["current"]["age_ms"]
        world.clock.now += 0.1
        again = (await asking.get(PATH)).json()["coins"]["bitcoin"]["current"]["age_ms"]
    assert 600 <= first < 610
    assert again == first + 100


@given(st.text(st.sampled_from("max-age=no,cache 019,")))
def test_any_header_says_how_old_an_answer_may_be(header: str) -> None:
    assert _max_age_s(header) >= 0


async def test_an_etag_stays_the_same_until_there_is_something_new() -> None:
    world = AggregatorOverOneShard(report_kept_s=0.0, fresh_s=1.0)
    async with world.asking() as asking:
        first = await asking.get(PATH)
        tag = first.headers["etag"]
        known = await asking.get(PATH, headers={"if-none-match": f'"other", {tag}'})
        newer = Quote("bitcoin", "USD", Decimal("67013"), 5, 13, NOON, NOON, "sim")
        await world.shard.append("bitcoin", 1, 5, [newer])
        changed = await asking.get(PATH, headers={"if-none-match": tag})
        world.shard.away = True
        partial = await asking.get(PATH, headers={"if-none-match": changed.headers["etag"]})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    assert not {"content-length", "content-type"} & set(known.headers)  # they are about a body
    assert tag.startswith('W/"')
    assert (changed.status_code, partial.status_code) == (200, 200)
    assert len({tag, changed.headers["etag"], partial.headers["etag"]}) == 3


async def test_the_etag_changes_when_a_price_goes_stale_in_a_cached_report() -> None:
    world = AggregatorOverOneShard(report_kept_s=5.0, fresh_s=1.0)
    async with world.asking() as asking:
        tags = []
        for _ in range(3):
            tags.append((await asking.get(PATH)).headers["etag"])
            world.clock.now += 0.5
    assert tags[0] == tags[1] != tags[2]


async def test_a_report_with_a_price_beyond_its_age_limit_is_not_served_again() -> None:
    world = AggregatorOverOneShard(report_kept_s=60.0, fresh_s=1.0, age_max_s=2.0)
    async with world.asking() as asking:
        first = await asking.get(PATH)
        world.clock.now += 1.9
        again = await asking.get(PATH)
    assert again.json()["generated_at"] > first.json()["generated_at"]


@given(st.integers(0, 2_000), st.integers(0, 400_000))
def test_the_age_of_a_price_includes_the_wait_for_the_other_sources(waited_ms: int, age_ms: int) -> None:
    """quote_service answers at once, a frozen shard holds the report: no price may come out younger than it is."""
    quote = msgspec.structs.replace(CURRENT, age_ms=age_ms, status=LIMITS.status(age_ms))
    plan = ReportPlan({"bitcoin": "shard1"}, Window.until("24h", NOON), ("current",))
    branch = Branch[Any]("quote_service", BranchStatus.OK, 0.010, 0.001, 1, Overview({"bitcoin": quote}, {}, {}, {}))
    result = GatherResult({"quote_service": branch}, 0.010 + waited_ms / 1000)
    report = merge(plan, result, LIMITS, generated_at=NOON, deadline_s=2.0)
    current = report.coins["bitcoin"].current
    if age_ms + waited_ms > LIMITS.most:
        assert current is None
        assert report.missing == [MissingJson("bitcoin.current", "the newest quote of bitcoin is too old")]
        assert not report.complete
    else:
        assert isinstance(current, CurrentJson)
        assert age_ms + waited_ms <= current.age_ms <= age_ms + waited_ms + 1
        assert current.status == LIMITS.status(current.age_ms)


@pytest.mark.parametrize(("size", "kept"), [(10, REPORTS_MAX), (BYTES_MAX // 4, 4), (BYTES_MAX + 1, 0)])
def test_the_cache_is_bounded_by_number_and_bytes_and_drops_the_oldest_first(size: int, kept: int) -> None:
    clock = Clock()
    reports = ReportCache(max_age_s=1.0, clock=clock)
    body = bytes(size)
    for number in range(REPORTS_MAX + 5):
        reports.put(number, RenderedReport(report_of(), body, "", clock()))
    held = [number for number in range(REPORTS_MAX + 5) if reports.find(number, 9.0) is not None]
    assert held == list(range(REPORTS_MAX + 5 - kept, REPORTS_MAX + 5))
    clock.now += 1.0
    assert not any(reports.find(number, 9.0) for number in held)
    reports.put("new", RenderedReport(report_of(), b"", "", clock()))
    assert list(reports._reports) == ["new"]


async def test_a_shard_that_answers_for_an_old_placement_is_not_believed() -> None:
    """A shard restored from an old copy does: the coin's parts are missing rather than old."""
    world = AggregatorOverOneShard(report_kept_s=0.0)
    async with world.asking() as asking:
        world.directory.homes["bitcoin"] = Home(1, "shard1", 3)
        old = (await asking.get("/report/full")).json()
        world.shard.copies["bitcoin"].placement = 3
        back = (await asking.get("/report/full")).json()
        world.shard.copies["bitcoin"].placement = 4  # the coin has moved away and back since: the fence knows better
        ahead = (await asking.get("/report/full")).json()
    reason = "shard1 answers for an old placement of bitcoin"
    assert old["missing"] == [{"part": f"bitcoin.{part}", "reason": reason} for part in ("last_logs", "window")]
    coin = old["coins"]["bitcoin"]
    assert (coin["last_logs"], coin["through"], coin["window"]) == (None, None, None)
    assert coin["current"] is not None
    assert back["complete"]
    assert ahead["complete"]
