"""`cotacoes breakers`: one row for each breaker of every service that answers."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.cli import breakers, main
from cotacoes.errors import DeadlineExceededError, InternalError, NotFoundError, OverloadedError, ProblemError
from cotacoes.model.breakers import BreakerErrorJson, BreakerJson, BreakerWindowJson, TransitionJson
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience import BreakerState, CircuitBreakerConfig, ResilienceConfig
from cotacoes.web.app import build_app
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.service_client import Addresses, ServiceClient
from cotacoes.web.upstreams import SETTABLE, Upstreams

NAME = "external_service.quote"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def upstreams(*names: str) -> Upstreams:
    found = Upstreams(Metrics(), random=random.Random(1), clock=lambda: 0.0, now=lambda: NOON)
    for name in names:
        found.add(name, CircuitBreakerConfig(), ResilienceConfig())
    return found


class Network:
    """The three services by the host of their address; one that is not in `services` is away."""

    def __init__(self, services: dict[str, Upstreams]) -> None:
        settings = config.load({}, admin_token="sesame")
        self.apps: dict[str, Any] = {
            name: build_app(name, settings, Metrics(), breaker_routes(name, settings, found))
            for name, found in services.items()
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"])[b"host"].decode()
        if host not in self.apps:
            raise httpx2.ConnectError("refused")
        await self.apps[host](scope, receive, send)

    def run(self, command: Any) -> Any:
        async def whole() -> Any:
            async with self.client("sesame") as client:
                return await command(client)

        return asyncio.run(whole())

    def client(self, admin_token: str) -> ServiceClient:
        addresses = Addresses(**{name: f"http://{name}" for name in breakers.SERVICES})
        http = HttpClient(1.0, 100_000, transport=httpx2.ASGITransport(self))
        return ServiceClient(addresses, admin_token=admin_token, http=http)


def test_the_breakers_of_all_services_are_a_table_and_a_service_away_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service_upstreams = upstreams(NAME)
    service_upstreams.set_state(NAME, BreakerState.FORCED_OPEN)
    capsys.readouterr()  # the log of that
    network = Network({"quote_service": service_upstreams, "gateway_service": upstreams("quote_service.current")})
    assert network.run(lambda client: breakers.show(client, "", "", as_json=False)) == 0
    printed = capsys.readouterr()
    rows = printed.out.splitlines()
    assert rows[0].split()[:2] == ["breaker", "state"]
    assert rows[1].split()[:2] == [f"quote_service/{NAME}", "forced_open"]
    assert "forced, " in rows[1]
    assert rows[2].split()[:2] == ["gateway_service/quote_service.current", "closed"]
    assert printed.err.startswith("aggregator_service: aggregator_service is away")


@pytest.mark.parametrize(
    "fault",
    [
        *(kind("as asked") for kind in (OverloadedError, DeadlineExceededError, InternalError, NotFoundError)),
        b'{"breakers":[{"name":"of another version"}]}',
    ],
    ids=["overloaded", "out of time", "crashed", "without the route", "of another version"],
)
def test_a_service_with_an_invalid_answer_is_named_and_the_others_are_shown(
    fault: ProblemError | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network({service: upstreams(NAME) for service in breakers.SERVICES})
    twin = QuoteServiceTwin({})
    twin.faults["*"] = fault
    network.apps["aggregator_service"] = twin
    assert network.run(lambda client: breakers.show(client, "", "", as_json=False)) == 0
    printed = capsys.readouterr()
    named = [row.split()[0].partition("/")[0] for row in printed.out.splitlines()[1:]]
    assert named == ["quote_service", "gateway_service"]
    assert printed.err.startswith("aggregator_service: ")
    assert network.run(lambda client: breakers.show(client, "aggregator_service", "", as_json=False)) == 4


def test_as_json_each_breaker_is_a_line_as_it_was_received(capsys: pytest.CaptureFixture[str]) -> None:
    network = Network({"quote_service": upstreams(NAME, "external_service.quotes")})
    assert network.run(lambda client: breakers.show(client, "quote_service", "", as_json=True)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["service"], line["name"]) for line in lines] == [
        ("quote_service", NAME),
        ("quote_service", "external_service.quotes"),
    ]
    assert lines[0]["window"]["size"] == 100


def test_a_breaker_can_be_set_and_an_unknown_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    service_upstreams = upstreams(NAME)
    network = Network({"quote_service": service_upstreams})
    shown = network.run(lambda client: client.set_breaker("quote_service", NAME, "disabled"))
    assert (shown["state"], service_upstreams.described()[0].state) == ("disabled", "disabled")
    assert network.run(lambda client: breakers.show(client, "quote_service", "other", as_json=False)) == 1
    assert "no breaker other" in capsys.readouterr().err
    assert network.run(lambda client: breakers.show(client, "gateway_service", "x", as_json=False)) == 4


@pytest.mark.parametrize(
    "arguments",
    [["breakers", "external_service.quote"], ["breakers", "nowhere/x"], ["breakers", f"quote_service/{NAME}", "ajar"]],
)
def test_an_invalid_argument_is_refused_before_any_service_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "give " in capsys.readouterr().err


def test_a_row_shows_ages_and_not_times() -> None:
    breaker = BreakerJson(
        name=NAME,
        state="open",
        generation=7,
        retry_after_s=1.25,
        is_awaited=False,
        next_call="refused",
        window=BreakerWindowJson("count", 100, 10, 6, 2, 0, 0.6, 0.2),
        consecutive_failures=6,
        not_permitted=42,
        retry_budget=0.25,
        last_errors=[BreakerErrorJson("2026-11-24T11:59:50.000000Z", "SourceUnavailableError: 503")],
        transitions=[TransitionJson("2026-11-24T11:59:55.000000Z", "closed", "open", "failure_rate")],
    )
    assert breakers.row("quote_service", breaker, NOON + timedelta(seconds=0.4)) == (
        f"quote_service/{NAME}",
        "open",
        6,
        10,
        "60%",
        6,
        2,
        42,
        7,
        "1.2 s",
        "0.2",
        "failure_rate, 5 s ago",
        "SourceUnavailableError: 503, 10 s ago",
    )


def test_the_help_names_the_states_that_a_service_can_set() -> None:
    assert tuple(state.value for state in SETTABLE) == breakers.STATES
