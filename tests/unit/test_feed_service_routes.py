"""feed_service refuses what it cannot answer in words that help, and shows what its venues say."""

from pathlib import Path

import pytest
from tests.unit.harness_openapi import feed
from tests.unit.harness_quote_service import COIN

pytestmark = pytest.mark.anyio
TOKEN = {"authorization": "Bearer sesame"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "cursor", ["5", "-", "feed.1-", "feed.1-x", "feed.1-1.0", "feed.1-" + "9" * 30, "%00", "feed.1-1%0A"]
)
async def test_a_text_that_is_no_cursor_is_refused(cursor: str, tmp_path: Path) -> None:
    async with feed(tmp_path) as asking:
        answer = await asking.ask("GET", f"/quotes?after={cursor}")
        assert answer.status_code == 422
        assert "RUN-INDEX" in answer.text


@pytest.mark.parametrize("cursor", ["feed.2-0", "feed.1-99999", "sim.1-1", "0-0-0", "feed.1--1"])
async def test_a_cursor_of_another_run_is_gone_and_gets_where_to_begin(cursor: str, tmp_path: Path) -> None:
    async with feed(tmp_path) as asking:
        answer = await asking.ask("GET", f"/quotes?after={cursor}")
        assert (answer.status_code, answer.json()["next"]) == (410, "feed.1-0")
        page = (await asking.ask("GET", f"/quotes?after={answer.json()['next']}")).json()
        assert [entry["coin"] for entry in page["quotes"]] == [COIN]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=10001", "limit=1e3", "wait_ms=-1", "wait_ms=4001", "wait_ms=x"]
)
async def test_a_limit_outside_its_bounds_is_refused(query: str, tmp_path: Path) -> None:
    async with feed(tmp_path) as asking:
        assert (await asking.ask("GET", f"/quotes?{query}")).status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "bit%20coin", "bitcoin%0A", "a" * 33, "..%2Fcoins", "%00", "observed", "origin"])
async def test_a_name_that_is_no_coin_is_not_followed(name: str, tmp_path: Path) -> None:
    async with feed(tmp_path) as asking:
        answer = await asking.ask("PUT", f"/coins/{name}", headers=TOKEN) if "%2F" not in name else None
        assert answer is None or answer.status_code == 422
        assert (await asking.ask("GET", "/coins")).json()["coins"] == [COIN]


async def test_a_venue_without_a_book_is_shown_with_its_reason(tmp_path: Path) -> None:
    async with feed(tmp_path) as asking:
        shown = (await asking.ask("GET", f"/v1/venues/{COIN}")).json()
    by_venue = {one["venue"]: one for one in shown["venues"]}
    assert (shown["state"], shown["used"], shown["of"]) == ("thin", 2, len(by_venue))
    assert (by_venue["kraken"]["used"], by_venue["kraken"]["bid"]) == (True, "67012.30")
    assert by_venue["kraken"]["age_ms"] >= 0
    assert (by_venue["okx"]["used"], by_venue["okx"]["reason"]) == (False, "empty")
    assert "bid" not in by_venue["okx"] or by_venue["okx"]["bid"] is None


async def test_feeds_that_were_never_connected_are_shown_as_waiting(tmp_path: Path) -> None:
    async with feed(tmp_path) as asking:
        shown = (await asking.ask("GET", "/v1/venues")).json()
    assert {one["state"] for one in shown["feeds"]} == {"waiting"}
    assert {one["closed_reason"] for one in shown["feeds"]} == {None}
    assert shown["rates"] == {"USD": "1"}
