"""The front door says where things are, and passes on what quote_service says."""

import asyncio
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from tests.unit.quote_service_twin import Twin

from cotacoes import config
from cotacoes.errors import HttpUnavailableError, NoQuoteError
from cotacoes.gateway_service import app
from cotacoes.quote import Quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTES = {"bitcoin": [Quote("bitcoin", "USD", Decimal("67012.3400"), 5, 1, NOON, NOON, "sim")]}


def get(path: str, twin: Twin | None = None, host: str = "gateway", **settings: Any) -> httpx2.Response:
    async def scenario() -> httpx2.Response:
        async with (twin or Twin(QUOTES)).client(deadline_s=0.05) as client:
            served = app.wire(config.load({}, **settings), client).app
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://gateway") as asking:
                return await asking.get(path, headers={"host": host})

    return asyncio.run(scenario())


def test_the_front_page_names_every_address_and_runs_nothing() -> None:
    page = get("/", host="feed.example:8080", port_base=9000)
    for port in (9000, 9001, 9002, 9003):
        assert f"http://feed.example:{port}/docs" in page.text
    assert "http://[::1]:9002/docs" in get("/", host="[::1]:9000", port_base=9000).text
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script|\bon\w+=|src=", page.text)


def test_the_front_page_shows_no_inner_address_and_no_markup_of_a_host() -> None:
    page = get("/", quote_url="http://user:hunter2@quotes.inside")
    assert "hunter2" not in page.text
    assert "quotes.inside" not in page.text
    for host in ("a<b>c", 'a"><script>', "&lt", ""):
        shown = get("/", host=host)
        assert shown.status_code in {200, 400}
        assert not re.search(r"<b>|<script|\"><", shown.text)


def test_the_current_quote_is_that_of_quote_service() -> None:
    answer = get("/v1/quotes/bitcoin/current")
    assert answer.status_code == 200
    assert answer.json()["price"] == "67012.3400"


def test_a_refusal_of_quote_service_is_passed_on_with_when_to_try_again() -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = NoQuoteError("no quote of bitcoin yet", retry_after_s=7, reason="none_yet")
    answer = get("/v1/quotes/bitcoin/current", twin)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json()["type"] == "/docs#no-quote"
    assert answer.json()["reason"] == "none_yet"


@pytest.mark.parametrize("fault", [HttpUnavailableError(), None, b"nonsense"], ids=["away", "hangs", "babbles"])
def test_without_quote_service_it_says_so_in_time_and_is_not_ready(fault: Any) -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = fault
    answer = get("/v1/quotes/bitcoin/current", twin)
    assert (answer.status_code, answer.json()["type"]) == (503, "/docs#service-unavailable")
    assert "retry-after" in answer.headers
    assert get("/readyz", twin).status_code == 503
    assert get("/livez", twin).status_code == 200
    assert get("/", twin).status_code == 200


def test_an_unknown_coin_is_refused_as_quote_service_refuses_it_and_a_malformed_name_without_asking() -> None:
    twin = Twin(QUOTES)
    answer = get("/v1/quotes/bitcon/current", twin)
    assert (answer.status_code, answer.json()["did_you_mean"]) == (404, ["bitcoin"])
    twin.faults["*"] = HttpUnavailableError()
    assert get("/v1/quotes/Bit%20coin/current", twin).status_code == 404


def test_it_is_ready_when_quote_service_is_alive() -> None:
    assert get("/readyz").json()["checks"] == {"quote_service": {"ok": True, "required": True, "reason": None}}
