"""An answer comes as it was given; whatever else comes is the error that says who is to blame."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from fastapi import Response
from tests.unit.quote_service_twin import Twin

from cotacoes import config
from cotacoes.client import Addresses, Client, Progress
from cotacoes.errors import (
    HttpUnavailableError,
    NoQuoteError,
    PositionGoneError,
    ProblemError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnknownCoinError,
    problem_types,
)
from cotacoes.quote import Quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTES = {"bitcoin": [Quote("bitcoin", "USD", Decimal("67012.3400"), 5, seq, NOON, NOON, "sim") for seq in (1, 2, 3)]}


def ask(twin: Twin, call: Callable[[Client], Awaitable[Any]]) -> Any:
    async def scenario() -> Any:
        async with twin.client() as client:
            return await call(client)

    return asyncio.run(scenario())


def test_prices_stay_the_strings_that_they_are() -> None:
    answer = ask(Twin(QUOTES), lambda client: client.current("bitcoin"))
    assert answer["price"] == "67012.3400"


def test_a_page_is_asked_for_by_what_was_given_and_nothing_else() -> None:
    twin = Twin(QUOTES)
    assert [quote["seq"] for quote in ask(twin, lambda c: c.quotes("bitcoin", last=2))["quotes"]] == [2, 3]
    assert ask(twin, lambda c: c.quotes("bitcoin", after="5-1", limit=7))["asked"] == ["5-1", None, 7, None, None]
    start, end = "2026-11-24T12:00:00+02:00", "2026-11-24T13:00:00.5Z"
    asked = ask(twin, lambda c: c.quotes("bitcoin", start=start, end=end))["asked"]
    assert asked == [None, None, None, start, end]


def test_candles_are_asked_for_by_what_was_given_and_nothing_else() -> None:
    twin = Twin(QUOTES)
    assert ask(twin, lambda client: client.candles("bitcoin", "5m"))["asked"] == {"interval": "5m"}
    told = ask(
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
    assert told["asked"] == {
        "interval": "1h",
        "from": "2026-11-24T00:00:00+01:00",
        "to": "2026-11-25T00:00:00Z",
        "limit": "7",
        "empty": "true",
        "origin": "replay:a b&c",
        "currency": "USD",
    }
    assert told["candles"][0]["open"] == "67012.3400"


def test_progress_is_typed_and_a_wrong_shape_is_the_services_fault() -> None:
    twin = Twin(QUOTES)
    assert ask(twin, lambda client: client.positions()) == {"bitcoin": Progress("5-3", None, 3, "shard1")}
    twin.faults["/v1/positions"] = b'{"coins":{"bitcoin":{"pending":"three"}}}'
    with pytest.raises(ServiceUnavailableError):
        ask(twin, lambda client: client.positions())


def test_a_refusal_is_raised_as_the_service_raised_it() -> None:
    twin = Twin(QUOTES)
    with pytest.raises(UnknownCoinError) as unknown:
        ask(twin, lambda client: client.current("bitcon"))
    assert unknown.value.extra == {"did_you_mean": ["bitcoin"]}
    twin.faults["*"] = NoQuoteError("the newest is 400 s old", retry_after_s=7, reason="too_old", age_ms=400_000)
    with pytest.raises(NoQuoteError) as old:
        ask(twin, lambda client: client.current("bitcoin"))
    assert (old.value.detail, old.value.retry_after_s) == ("the newest is 400 s old", 7)
    assert old.value.extra == {"reason": "too_old", "age_ms": 400_000}


@pytest.mark.parametrize("kind", list(problem_types()), ids=lambda kind: kind.slug)
def test_every_problem_type_comes_through_as_itself(kind: type[ProblemError]) -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = kind("as told")
    with pytest.raises(ProblemError) as caught:
        ask(twin, lambda client: client.mean("bitcoin"))
    assert (type(caught.value), caught.value.detail) == (kind, "as told")


def test_extra_fields_that_collide_with_our_own_names_do_no_harm() -> None:
    twin = Twin(QUOTES)
    told = b'{"type":"/docs#position-gone","detail":"gone","floor":"5-2","self":"x","kind":"y","retry_after_s":"z"}'
    twin.faults["*"] = Response(told, 410, media_type="application/problem+json")
    with pytest.raises(PositionGoneError) as gone:
        ask(twin, lambda client: client.quotes("bitcoin", after="5-1"))
    assert gone.value.extra == {"floor": "5-2", "kind": "y"}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'"\xff"', b"[" * 100_000, b"null"])
def test_an_answer_that_is_none_is_the_services_fault(body: bytes) -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = body
    with pytest.raises(ServiceUnavailableError, match="quote_service answered 200, not as it should"):
        ask(twin, lambda client: client.current("bitcoin"))


def test_a_service_that_is_away_is_named_and_its_address_is_not() -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = HttpUnavailableError()
    with pytest.raises(ServiceUnavailableError, match="quote_service is away") as away:
        ask(twin, lambda client: client.current("bitcoin"))
    assert "10.1.2.3" not in away.value.detail


def test_a_service_that_hangs_is_given_up_by_the_deadline() -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = None

    async def scenario() -> None:
        async with twin.client(deadline_s=0.05) as client:
            with pytest.raises(ServiceUnavailableError, match="within"):
                await client.current("bitcoin")

    asyncio.run(scenario())


def test_setting_faults_without_the_right_token_is_unauthorized() -> None:
    twin = Twin(QUOTES)
    twin.faults["*"] = UnauthorizedError("send the token")
    with pytest.raises(ProblemError):
        ask(twin, lambda client: client.set_faults({"error_rate": 1}))


def test_addresses_are_those_of_the_settings() -> None:
    settings = config.load({"COTACOES_PORT_BASE": "9000", "COTACOES_QUOTE_URL": "https://quotes.example"})
    assert Addresses.of(settings) == Addresses(
        "http://127.0.0.1:9000", "https://quotes.example", "http://127.0.0.1:9003", "http://127.0.0.1:9001"
    )
