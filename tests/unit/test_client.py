"""An answer comes as it was given; whatever else comes is the error that says who is to blame."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import Response
from tests.unit import fake_event_loop
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.errors import (
    DeadlineExceededError,
    HttpUnavailableError,
    InternalError,
    NoQuoteError,
    OverloadedError,
    PositionGoneError,
    ProblemError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnknownCoinError,
    problem_types,
)
from cotacoes.model.breakers import BreakerJson
from cotacoes.model.payloads import Progress
from cotacoes.model.quote import Quote
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience import BreakerState, Deadline
from cotacoes.web.resilient_client import ResilientClient
from cotacoes.web.service_client import Addresses, ServiceClient
from cotacoes.web.upstreams import Upstreams

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTES = {"bitcoin": [Quote("bitcoin", "USD", Decimal("67012.3400"), 5, seq, NOON, NOON, "sim") for seq in (1, 2, 3)]}


def ask(twin: QuoteServiceTwin, call: Callable[[ServiceClient], Awaitable[Any]]) -> Any:
    async def scenario() -> Any:
        async with twin.client() as client:
            return await call(client)

    return asyncio.run(scenario())


def test_prices_stay_strings() -> None:
    answer = ask(QuoteServiceTwin(QUOTES), lambda client: client.current("bitcoin"))
    assert answer.price == "67012.3400"


def test_a_page_is_requested_with_the_given_parameters_only() -> None:
    twin = QuoteServiceTwin(QUOTES)
    assert [quote["seq"] for quote in ask(twin, lambda c: c.quotes("bitcoin", last=2))["quotes"]] == [2, 3]
    assert ask(twin, lambda c: c.quotes("bitcoin", after="5-1", limit=7))["asked"] == ["5-1", None, 7, None, None]
    start, end = "2026-11-24T12:00:00+02:00", "2026-11-24T13:00:00.5Z"
    asked = ask(twin, lambda c: c.quotes("bitcoin", start=start, end=end))["asked"]
    assert asked == [None, None, None, start, end]


def test_candles_are_requested_with_the_given_parameters_only() -> None:
    twin = QuoteServiceTwin(QUOTES)
    assert ask(twin, lambda client: client.candles("bitcoin", "5m"))["asked"] == {"interval": "5m"}
    received = ask(
        twin,
        lambda client: client.candles(
            "bitcoin",
            "1h",
            start="2026-11-24T00:00:00+01:00",
            end="2026-11-25T00:00:00Z",
            limit=7,
            empty=True,
            origin="replay:a b&c",
            currency="USD",
        ),
    )
    assert received["asked"] == {
        "interval": "1h",
        "from": "2026-11-24T00:00:00+01:00",
        "to": "2026-11-25T00:00:00Z",
        "limit": "7",
        "empty": "true",
        "origin": "replay:a b&c",
        "currency": "USD",
    }
    assert received["candles"][0]["open"] == "67012.3400"


def test_progress_is_typed_and_a_wrong_shape_is_the_services_fault() -> None:
    twin = QuoteServiceTwin(QUOTES)
    assert ask(twin, lambda client: client.positions()) == {"bitcoin": Progress("5-3", None, 3, "shard1")}
    twin.faults["/v1/positions"] = b'{"coins":{"bitcoin":{"pending":"three"}}}'
    with pytest.raises(ServiceUnavailableError):
        ask(twin, lambda client: client.positions())


def test_a_refusal_is_raised_as_the_service_raised_it() -> None:
    twin = QuoteServiceTwin(QUOTES)
    with pytest.raises(UnknownCoinError) as unknown:
        ask(twin, lambda client: client.current("bitcon"))
    assert unknown.value.extra == {"did_you_mean": ["bitcoin"]}
    twin.faults["*"] = NoQuoteError("the newest is 400 s old", retry_after_s=7, reason="too_old", age_ms=400_000)
    with pytest.raises(NoQuoteError) as old:
        ask(twin, lambda client: client.current("bitcoin"))
    assert (old.value.detail, old.value.retry_after_s) == ("the newest is 400 s old", 7)
    assert old.value.extra == {"reason": "too_old", "age_ms": 400_000}


@pytest.mark.parametrize("kind", list(problem_types()), ids=lambda kind: kind.slug)
def test_every_problem_type_is_raised_as_itself(kind: type[ProblemError]) -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = kind("as sent")
    with pytest.raises(ProblemError) as caught:
        ask(twin, lambda client: client.quotes("bitcoin"))
    assert (type(caught.value), caught.value.detail) == (kind, "as sent")


def test_extra_fields_that_collide_with_our_own_names_do_no_harm() -> None:
    twin = QuoteServiceTwin(QUOTES)
    received = b'{"type":"/docs#position-gone","detail":"gone","floor":"5-2","self":"x","kind":"y","retry_after_s":"z"}'
    twin.faults["*"] = Response(received, 410, media_type="application/problem+json")
    with pytest.raises(PositionGoneError) as gone:
        ask(twin, lambda client: client.quotes("bitcoin", after="5-1"))
    assert gone.value.extra == {"floor": "5-2", "kind": "y"}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'"\xff"', b"[" * 100_000, b"null"])
def test_an_invalid_answer_is_the_services_fault(body: bytes) -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = body
    with pytest.raises(ServiceUnavailableError, match="quote_service gave an invalid answer with status 200"):
        ask(twin, lambda client: client.current("bitcoin"))


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"coin":"ethereum","price":"67012.34","age_ms":1,"status":"fresh"}',
        b'{"coin":"bitcoin","price":67012.34,"age_ms":1,"status":"fresh"}',
    ],
    ids=["nothing", "another coin", "numbers"],
)
def test_an_answer_to_another_question_is_the_services_fault(body: bytes) -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = body
    with pytest.raises(ServiceUnavailableError, match=r"quote_service (gave an invalid answer|answered for another)"):
        ask(twin, lambda client: client.current("bitcoin"))


def test_a_service_that_is_away_is_named_and_its_address_is_not() -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = HttpUnavailableError()
    with pytest.raises(ServiceUnavailableError, match="quote_service is away") as away:
        ask(twin, lambda client: client.current("bitcoin"))
    assert "10.1.2.3" not in away.value.detail


def test_a_call_to_a_service_that_hangs_ends_by_the_deadline() -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = None

    async def scenario() -> None:
        async with twin.client(deadline_s=0.05) as client:
            with pytest.raises(ServiceUnavailableError, match="within"):
                await client.current("bitcoin")

    asyncio.run(scenario())


def test_setting_faults_without_the_right_token_is_unauthorized() -> None:
    twin = QuoteServiceTwin(QUOTES)
    twin.faults["*"] = UnauthorizedError("send the token")
    with pytest.raises(ProblemError):
        ask(twin, lambda client: client.set_faults({"error_rate": 1}))


def test_addresses_are_those_of_the_settings() -> None:
    settings = config.load({"COTACOES_PORT_BASE": "9000", "COTACOES_QUOTE_URL": "https://quotes.example"})
    assert Addresses.of(settings) == Addresses(
        "http://127.0.0.1:9000", "https://quotes.example", "http://127.0.0.1:9003", "http://127.0.0.1:9001"
    )


# the guarded client

NO_ANSWER = [DeadlineExceededError, InternalError, OverloadedError, ServiceUnavailableError]


class Guarded:
    """A guarded client in virtual time over a twin that counts what it is asked."""

    def __init__(self, twin: QuoteServiceTwin, client: ServiceClient, **given: Any) -> None:
        clock = asyncio.get_running_loop().time
        self.twin = twin
        self.upstreams = Upstreams(Metrics(), random=random.Random(1), clock=clock, now=lambda: NOON)
        asked = {"questions": ("current", "quotes", "positions"), "deadline_s": 2.0, "clock": clock, **given}
        self.client = ResilientClient(client, self.upstreams, **asked)

    def shown(self, question: str) -> BreakerJson:
        name = f"quote_service.{question}"
        return next(received for received in self.upstreams.described() if received.name == name)

    async def refused(self, count: int = 1) -> ServiceUnavailableError:
        """What comes of the last of so many questions, each of which brings a problem."""
        problem: ProblemError | None = None
        for _ in range(count):
            with pytest.raises(ProblemError) as caught:
                await self.client.quotes("bitcoin")
            problem = caught.value
        assert isinstance(problem, ServiceUnavailableError)
        return problem


@contextlib.asynccontextmanager
async def guarding(fault: Exception | None = None, **given: Any) -> AsyncIterator[Guarded]:
    twin = QuoteServiceTwin(dict.fromkeys(("bitcoin", "ethereum"), QUOTES["bitcoin"]))
    if fault is not None:
        twin.faults["*"] = fault
    async with twin.client(deadline_s=60.0) as client:
        yield Guarded(twin, client, **given)


@pytest.mark.parametrize("kind", list(problem_types()), ids=lambda kind: kind.slug)
@pytest.mark.slow
def test_a_circuit_opens_for_services_that_do_not_answer_and_for_no_answer_of_a_healthy_one(
    kind: type[ProblemError],
) -> None:
    async def work() -> None:
        async with guarding(kind("as sent")) as guarded:
            for _ in range(5):
                with contextlib.suppress(ProblemError):
                    await guarded.client.quotes("bitcoin")
            assert guarded.shown("quotes").state == ("open" if kind in NO_ANSWER else "closed")
            assert guarded.shown("current").state == "closed"  # each question has its own

    fake_event_loop.run(work())


def test_an_overloaded_service_is_left_alone_for_as_long_as_it_asked() -> None:
    async def work() -> None:
        async with guarding(OverloadedError("full", retry_after_s=7)) as guarded:
            with pytest.raises(OverloadedError):
                await guarded.client.quotes("bitcoin")
            refused = await guarded.refused()
            assert refused.detail == "quote_service is away (circuit open)"
            assert refused.retry_after_s == 7.0
            guarded.twin.faults.clear()
            await asyncio.sleep(7.0)
            assert (await guarded.client.quotes("bitcoin"))["coin"] == "bitcoin"

    fake_event_loop.run(work())


@pytest.mark.parametrize("left_s", [0.3, 1.6])
def test_a_caller_in_a_hurry_opens_no_circuit_for_the_others(left_s: float) -> None:
    """The service gives up by the time that it was given: that is no evidence against it."""

    async def work() -> None:
        async with guarding(DeadlineExceededError("the caller's deadline is over"), attempts=1) as guarded:
            clock = asyncio.get_running_loop().time
            for _ in range(10):
                with Deadline(clock() + left_s, clock).scope():
                    refused = await guarded.refused()
                assert refused.detail == "quote_service is away (no time left)"
            shown = guarded.shown("quotes")
            assert (shown.state, shown.window.failures, shown.last_errors) == ("closed", 0, [])

    fake_event_loop.run(work())


def test_a_circuit_that_only_a_person_closes_is_reported_with_a_finite_wait() -> None:
    async def work() -> None:
        async with guarding() as guarded:
            guarded.upstreams.set_state("quote_service.quotes", BreakerState.FORCED_OPEN)
            assert (await guarded.refused()).retry_after_s == 60.0

    fake_event_loop.run(work())


def test_calls_beyond_the_limit_are_refused_in_time_and_count_against_nobody() -> None:
    async def work() -> None:
        async with guarding(calls_max=2) as guarded:
            guarded.twin.faults["*"] = None
            hanging = [asyncio.create_task(guarded.client.quotes("bitcoin")) for _ in range(2)]
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            refused = await guarded.refused()
            assert refused.detail == "quote_service is away (too many calls under way)"
            assert asyncio.get_running_loop().time() - began == pytest.approx(1.0)
            assert guarded.shown("quotes").window.failures == 0
            await asyncio.gather(*hanging, return_exceptions=True)

    fake_event_loop.run(work())


@pytest.mark.parametrize(("attempts", "is_answered"), [(1, False), (2, True)])
def test_a_failed_call_is_retried_as_configured_from_a_budget_that_successes_fill(
    attempts: int, is_answered: bool
) -> None:
    async def work() -> None:
        async with guarding(attempts=attempts) as guarded:
            for _ in range(10):
                await guarded.client.quotes("bitcoin")
            asked, answer = 0, guarded.twin.__call__

            async def fails_first(scope: Any, receive: Any, send: Any) -> None:
                nonlocal asked
                asked += 1
                if asked == 1:
                    raise httpx2.ConnectError("refused")
                await answer(scope, receive, send)

            http = HttpClient(60.0, 100_000, transport=httpx2.ASGITransport(fails_first))
            async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
                guarded.client._client = client
                if is_answered:
                    assert (await guarded.client.quotes("bitcoin"))["coin"] == "bitcoin"
                else:
                    await guarded.refused()
            assert asked == attempts

    fake_event_loop.run(work())
