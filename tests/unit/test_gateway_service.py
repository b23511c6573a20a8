"""The front door says where things are, and passes on what quote_service says."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.errors import HttpUnavailableError, InternalError, NoQuoteError, OverloadedError, UnknownCoinError
from cotacoes.gateway_service import app
from cotacoes.gateway_service.coin_names import ASKS_AT_ONCE, UNKNOWN_NAMES_MAX, UNKNOWN_S, CoinNames
from cotacoes.model.live_message import channel, encode_quote
from cotacoes.model.quote import Quote
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.web.service_client import Addresses, ServiceClient

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTES = {"bitcoin": [Quote("bitcoin", "USD", Decimal("67012.3400"), 5, 1, NOON, NOON, "sim")]}


def get(path: str, twin: QuoteServiceTwin | None = None, host: str = "gateway", **settings: Any) -> httpx2.Response:
    async def scenario() -> httpx2.Response:
        async with asking(twin or QuoteServiceTwin(QUOTES), **settings) as gateway:
            return await gateway.get(path, headers={"host": host})

    return asyncio.run(scenario())


@contextlib.asynccontextmanager
async def asking(twin: QuoteServiceTwin, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with twin.client(deadline_s=0.05) as client:
        served = app.wire(config.load({}, **settings), client, MemoryBus()).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://gateway") as gateway:
            yield gateway


def test_the_documentation_explains_each_pattern_under_an_address_of_its_own() -> None:
    page = get("/docs").text
    for anchor in ("circuit-breaker", "publish-subscribe", "sharding", "scatter-gather", "consensus"):
        assert f'<h2 id="{anchor}">' in page
    for name in re.findall(r"docs/explanation/[a-z-]+[.]md", page):
        assert (ROOT / name).exists()


def test_the_current_quote_is_that_of_quote_service() -> None:
    answer = get("/v1/quotes/bitcoin/current")
    assert answer.status_code == 200
    assert answer.json()["price"] == "67012.3400"


def test_a_refusal_of_quote_service_is_passed_on_with_when_to_try_again() -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = NoQuoteError("no quote of bitcoin yet", retry_after_s=7, reason="none_yet")
    answer = get("/v1/quotes/bitcoin/current", twin)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json()["type"] == "/docs#no-quote"
    assert answer.json()["reason"] == "none_yet"


@pytest.mark.parametrize("fault", [HttpUnavailableError(), None, b"nonsense"], ids=["away", "hangs", "babbles"])
def test_without_quote_service_the_gateway_answers_so_in_time_and_is_not_ready(fault: Any) -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = fault
    answer = get("/v1/quotes/bitcoin/current", twin)
    assert (answer.status_code, answer.json()["type"]) == (503, "/docs#service-unavailable")
    assert "retry-after" in answer.headers
    assert get("/readyz", twin).status_code == 503
    assert get("/livez", twin).status_code == 200
    assert get("/", twin).status_code == 200


def test_an_unknown_coin_is_refused_as_quote_service_refuses_it_and_a_malformed_name_without_asking() -> None:
    twin = QuoteServiceTwin(QUOTES)
    answer = get("/v1/quotes/bitcon/current", twin)
    assert (answer.status_code, answer.json()["did_you_mean"]) == (404, ["bitcoin"])
    twin.faults["*"] = HttpUnavailableError()
    assert get("/v1/quotes/Bit%20coin/current", twin).status_code == 404


def test_the_gateway_is_ready_when_quote_service_is_alive() -> None:
    assert get("/readyz").json()["checks"] == {
        "quote_service": {"ok": True, "required": True, "reason": None},
        "redis": {"ok": True, "required": False, "reason": None},
    }


CURRENT = "/v1/quotes/bitcoin/current"
AWAY = [HttpUnavailableError(), None, b"nonsense", InternalError("bug")]


@pytest.mark.parametrize("fault", AWAY, ids=["away", "hangs", "babbles", "crashes"])
@pytest.mark.slow
async def test_while_quote_service_is_away_the_last_quote_is_answered_with_its_present_age(fault: Any) -> None:
    twin = QuoteServiceTwin(QUOTES)
    async with asking(twin) as gateway:
        live = (await gateway.get(CURRENT)).json()
        assert (live["source"], live["status"]) == ("live", "fresh")
        twin.faults["*"] = fault
        first = (await gateway.get(CURRENT)).json()
        await asyncio.sleep(0.05)
        answer = await gateway.get(CURRENT)
        kept = answer.json()
    assert answer.status_code == 200
    assert (kept["source"], kept["price"], kept["seq"]) == ("cache", live["price"], live["seq"])
    assert live["age_ms"] <= first["age_ms"] < kept["age_ms"]
    assert kept["age_ms"] >= live["age_ms"] + 50
    assert kept["breaker"] == "closed"


@pytest.mark.slow
async def test_an_old_quote_is_stale_and_one_beyond_the_age_limit_is_not_answered() -> None:
    async def kept(age_max_s: float) -> httpx2.Response:
        twin = QuoteServiceTwin(QUOTES)  # its quote is 200 ms old when it comes
        async with asking(twin, fresh_s=0.2, age_max_s=age_max_s) as gateway:
            await gateway.get(CURRENT)
            twin.faults["*"] = HttpUnavailableError()
            await asyncio.sleep(0.25)
            return await gateway.get(CURRENT)

    assert (await kept(300.0)).json()["status"] == "stale"
    refused = await kept(0.4)
    assert (refused.status_code, refused.json()["type"]) == (503, "/docs#service-unavailable")


async def test_a_refusal_of_a_healthy_service_is_passed_on_and_opens_no_circuit() -> None:
    twin = QuoteServiceTwin(QUOTES)
    async with asking(twin) as gateway:
        await gateway.get(CURRENT)
        twin.faults["*"] = NoQuoteError("the newest quote of bitcoin is 400 s old", reason="too_old")
        for _ in range(20):
            assert (await gateway.get(CURRENT)).json()["reason"] == "too_old"
        shown = (await gateway.get("/v1/breakers")).json()["breakers"][0]
    assert (shown["name"], shown["state"], shown["window"]["failures"]) == ("quote_service.current", "closed", 0)


@pytest.mark.slow
async def test_a_service_that_stays_away_is_not_asked_and_the_answer_says_so_at_once() -> None:
    twin = QuoteServiceTwin({**QUOTES, "ethereum": []})
    async with asking(twin) as gateway:
        await gateway.get("/v1/quotes/bitcoin")
        twin.faults["*"] = HttpUnavailableError()
        for _ in range(5):
            assert (await gateway.get(CURRENT)).status_code == 503
        del twin.faults["*"]
        refused = await gateway.get(CURRENT)
        assert refused.json()["detail"] == "quote_service is away (circuit open)"
        assert refused.headers["retry-after"] in {"1", "2"}
        await asyncio.sleep(1.2)
        assert (await gateway.get(CURRENT)).status_code == 200


async def test_a_hundred_identical_requests_at_once_are_one_question() -> None:
    twin = QuoteServiceTwin(QUOTES)
    asked = 0
    answer = twin.__call__

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        await answer(scope, receive, send)

    http = HttpClient(1.0, 100_000, transport=httpx2.ASGITransport(counted))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
        served = app.wire(config.load({}), client, MemoryBus()).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://gateway") as gateway:
            answers = await asyncio.gather(*(gateway.get(CURRENT) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert asked == 1


async def test_each_coin_has_a_last_quote_of_its_own() -> None:
    ether = Quote("ethereum", "USD", Decimal("3521.8800"), 5, 1, NOON, NOON, "sim")
    twin = QuoteServiceTwin({**QUOTES, "ethereum": [ether]})
    async with asking(twin) as gateway:
        paths = [f"/v1/quotes/{coin}/current" for coin in ("bitcoin", "ethereum")]
        live = await asyncio.gather(*(gateway.get(path) for path in paths))
        twin.faults["*"] = HttpUnavailableError()
        kept = await asyncio.gather(*(gateway.get(path) for path in paths))
    for answers in (live, kept):
        assert [answer.json()["coin"] for answer in answers] == ["bitcoin", "ethereum"]


async def test_what_fails_once_is_asked_twice_and_answered_live() -> None:
    twin = QuoteServiceTwin(QUOTES)
    asked = 0

    async def fails_once(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 11:
            raise httpx2.ConnectError("refused")
        await twin(scope, receive, send)

    http = HttpClient(1.0, 100_000, transport=httpx2.ASGITransport(fails_once))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
        served = app.wire(config.load({}), client, MemoryBus()).app
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://gateway") as gateway:
            received = [(await gateway.get(CURRENT)).json()["source"] for _ in range(11)]  # ten pay for the further try
    assert (received, asked) == (["live"] * 11, 12)


@contextlib.asynccontextmanager
async def following(twin: QuoteServiceTwin, bus: MemoryBus, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that also follows the bus."""
    async with twin.client(deadline_s=0.05) as client, bus:
        service = app.wire(config.load({}, **settings), client, bus)
        async with (
            service.resources(),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url="http://gateway") as gateway,
        ):
            yield gateway


async def publish(twin: QuoteServiceTwin, bus: MemoryBus, seq: int, age_s: float = 0.0) -> None:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    quote = Quote("bitcoin", "USD", Decimal("68000.10"), 5, seq, at, at, "sim")
    twin.quotes["bitcoin"].append(quote)
    while await bus.publish([(channel("bitcoin"), encode_quote(quote))]) == [0]:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("was_asked", [True, False], ids=["asked before", "never asked"])
async def test_while_quote_service_is_away_the_newest_quote_of_the_stream_is_answered(was_asked: bool) -> None:
    twin, bus = QuoteServiceTwin({"bitcoin": list(QUOTES["bitcoin"])}), MemoryBus()
    async with following(twin, bus) as gateway, asyncio.timeout(10):
        if was_asked:
            assert (await gateway.get(CURRENT)).json()["seq"] == 1
        await publish(twin, bus, 2, age_s=3.0)
        while True:
            twin.faults["*"] = HttpUnavailableError()
            answer = await gateway.get(CURRENT)
            del twin.faults["*"]
            if answer.status_code == 200 and answer.json()["seq"] == 2:
                break
            await asyncio.sleep(0.02)
        received = answer.json()
    assert (received["price"], received["source"], received["status"], received["origin"]) == (
        "68000.10",
        "cache",
        "fresh",
        "sim",
    )
    assert 3000 <= received["age_ms"] < 13_000
    assert "prev" not in received


async def test_a_quote_of_the_stream_beyond_the_age_limit_is_not_answered() -> None:
    twin, bus = QuoteServiceTwin({"bitcoin": list(QUOTES["bitcoin"])}), MemoryBus()
    async with following(twin, bus, age_max_s=20.0) as gateway, asyncio.timeout(10):
        await publish(twin, bus, 2, age_s=30.0)
        await asyncio.sleep(0.1)
        twin.faults["*"] = HttpUnavailableError()
        refused = await gateway.get(CURRENT)
    assert (refused.status_code, refused.json()["type"]) == (503, "/docs#service-unavailable")


async def test_a_service_that_is_still_starting_is_awaited_and_its_first_answer_is_used() -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = HttpUnavailableError()
    async with asking(twin) as gateway:
        for _ in range(20):
            assert (await gateway.get(CURRENT)).status_code == 503
        (shown, *_) = (await gateway.get("/v1/breakers")).json()["breakers"]
        assert (shown["state"], shown["is_awaited"]) == ("closed", True)
        del twin.faults["*"]
        assert (await gateway.get(CURRENT)).status_code == 200


@contextlib.asynccontextmanager
async def counting(twin: QuoteServiceTwin, asked: list[str]) -> AsyncIterator[httpx2.AsyncClient]:
    async def counted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await twin(scope, receive, send)

    http = HttpClient(1.0, 100_000, transport=httpx2.ASGITransport(counted))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client, MemoryBus() as bus:
        service = app.wire(config.load({}), client, bus)
        async with (
            service.resources(),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url="http://gateway") as gateway,
        ):
            yield gateway


async def test_an_unknown_coin_is_asked_about_once_every_few_seconds() -> None:
    asked: list[str] = []
    async with counting(QuoteServiceTwin(QUOTES), asked) as gateway:
        answers = [(await gateway.get("/v1/quotes/bitcon/current")) for _ in range(50)]
        await gateway.get("/v1/candles/bitcon?interval=1m")
    assert {answer.status_code for answer in answers} == {404}
    assert all(answer.json()["did_you_mean"] == ["bitcoin"] for answer in answers)
    assert sum("bitcon" in path for path in asked) == 1


@pytest.mark.slow
async def test_a_thousand_unknown_coins_cost_few_questions_and_delay_no_known_coin() -> None:
    asked: list[str] = []
    async with counting(QuoteServiceTwin(QUOTES), asked) as gateway:
        for number in range(1_000):
            assert (await gateway.get(f"/v1/quotes/unknown-{number}/current")).status_code == 404
        assert (await gateway.get(CURRENT)).status_code == 200
    assert sum("unknown" in path for path in asked) < 200


def test_a_coin_that_was_added_is_answered_as_soon_as_it_is_known_or_the_refusal_is_over() -> None:
    known, now = {"bitcoin"}, 0.0
    names = CoinNames(lambda: known, lambda: now)
    names.check("solana")
    names.note_unknown("solana", UnknownCoinError("solana is not quoted here", did_you_mean=[]))
    with pytest.raises(UnknownCoinError):
        names.check("solana")
    now = UNKNOWN_S + 0.1
    names.check("solana")
    for number in range(UNKNOWN_NAMES_MAX + 10):
        names.note_unknown(f"name-{number}", UnknownCoinError("no"))
    assert len(names._unknown) == UNKNOWN_NAMES_MAX
    known.add("name-1000")
    names.check("name-1000")


def test_names_beyond_the_rate_are_refused_here_and_as_unknown_only_if_the_coins_are_known() -> None:
    names = CoinNames(lambda: {"bitcoin"}, lambda: 0.0)
    for number in range(int(ASKS_AT_ONCE)):
        names.check(f"name-{number}")
    with pytest.raises(OverloadedError):
        names.check("one-more")
    names.note_listed()
    with pytest.raises(UnknownCoinError):
        names.check("one-more")
