"""Upstreams are counted, their changes logged and remembered for a while, and an operator can set their breakers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs
from tests.unit import fake_event_loop

from cotacoes import config
from cotacoes.aggregator_service import app as aggregator_service
from cotacoes.errors import (
    HttpUnavailableError,
    ServiceUnavailableError,
    SourceMalformedError,
    SourceUnavailableError,
)
from cotacoes.gateway_service import app as gateway_service
from cotacoes.model.breakers import BreakerErrorJson, TransitionJson
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience import (
    BreakerState,
    CallVerdict,
    CircuitBreakerConfig,
    CircuitOpenError,
    Classification,
    LastGood,
    ResilienceConfig,
    ResiliencePolicy,
    RetryBudget,
    RetryConfig,
)
from cotacoes.patterns.resilience.first_answer import FirstAnswer
from cotacoes.quote_service import app as quote_service
from cotacoes.web.app import build_app
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.upstreams import WAITING_S, Upstreams

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NAME = "external_service.quote"


class UpstreamsRig:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.upstreams = Upstreams(
            self.metrics,
            random=random.Random(1),
            clock=loop.time,
            now=lambda: NOON + timedelta(seconds=loop.time()),
        )
        self.policy = self.add(NAME)

    def add(self, name: str, **companions: Any) -> ResiliencePolicy:
        breaker = CircuitBreakerConfig(
            failure_rate_threshold=None,
            consecutive_failures_threshold=3,
            slow_call_duration_threshold=0.5,
            wait_duration_in_open=3.0,
            wait_duration_jitter=0.0,
            permitted_calls_in_half_open=1,
        )
        return self.upstreams.add(name, breaker, ResilienceConfig(retry=RetryConfig(max_attempts=2)), **companions)

    async def call(self, error: Exception | None = None, policy: ResiliencePolicy | None = None, **given: Any) -> Any:
        async def upstream() -> int:
            if error is not None:
                raise error
            return 1

        return await (policy or self.policy).call(upstream, idempotent=True, **given)

    async def open(self) -> None:
        for _ in range(3):
            with pytest.raises(SourceUnavailableError):
                await self.call(SourceUnavailableError("no connection: 10.1.2.3 refused", outcome="unreachable"))

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"cotacoes_{name}", {"upstream": NAME, **labels})


def run(work: Callable[[UpstreamsRig], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work(UpstreamsRig())

    fake_event_loop.run(whole())


def test_calls_are_counted_by_outcome_and_changes_of_state_by_reason() -> None:
    async def work(rig: UpstreamsRig) -> None:
        await rig.call()
        await rig.open()
        with pytest.raises(CircuitOpenError):
            await rig.call()
        assert rig.counted("outbound_calls_total", outcome="ok") == 1
        assert rig.counted("outbound_calls_total", outcome="unreachable") == 3
        assert rig.counted("outbound_calls_total", outcome="not_permitted") == 1
        assert rig.counted("retries_stopped_total", reason="budget") == 2
        assert rig.counted("retries_stopped_total", reason="circuit") == 2
        assert rig.counted("breaker_state", state="open") == 1
        assert rig.counted("breaker_state", state="closed") == 0
        assert rig.counted("breaker_transitions_total", to_state="open", reason="consecutive_failures") == 1
        assert rig.counted("retry_budget") == pytest.approx(0.1)

    run(work)


def test_retries_slow_calls_and_fallbacks_are_counted_with_their_age() -> None:
    async def work(rig: UpstreamsRig) -> None:
        clock = asyncio.get_running_loop().time
        policy = rig.add(NAME, budget=RetryBudget(saved=5.0), fallback=LastGood[int](max_age=60.0, clock=clock))
        await rig.call(policy=policy, key=1)
        await asyncio.sleep(2.0)
        result = await rig.call(SourceUnavailableError("503"), policy=policy, key=1)
        assert (result.served_from, result.reason, result.attempts) == ("cache", "attempts", 2)
        assert rig.counted("retries_total") == 1
        assert rig.counted("fallbacks_total", reason="attempts") == 1
        assert result.age >= 2.0
        assert rig.counted("fallback_age_seconds_sum") == pytest.approx(result.age)

        async def slow() -> int:
            await asyncio.sleep(0.6)
            return 1

        await policy.call(slow, idempotent=True)
        assert rig.counted("slow_calls_total") == 1

    run(work)


def test_a_breaker_shows_its_state_its_window_and_its_last_events_with_times() -> None:
    async def work(rig: UpstreamsRig) -> None:
        await rig.call()
        await asyncio.sleep(10.0)
        await rig.open()
        await asyncio.sleep(1.0)
        shown = rig.upstreams.described()[0]
        assert (shown.name, shown.state, shown.generation, shown.retry_after_s) == (NAME, "open", 1, 2.0)
        assert (shown.window.calls, shown.window.failures, shown.consecutive_failures) == (4, 3, 3)
        at = "2026-11-24T12:00:10.000000Z"
        assert shown.last_errors[0] == BreakerErrorJson(at, "SourceUnavailableError: no connection")
        assert shown.transitions == [TransitionJson(at, "closed", "open", "consecutive_failures")]
        rig.upstreams.set_state(NAME, BreakerState.FORCED_OPEN)
        assert rig.upstreams.described()[0].retry_after_s is None
        for _ in range(50):
            rig.upstreams.set_state(NAME, BreakerState.CLOSED)
        assert len(rig.upstreams.described()[0].transitions) == 20

    run(work)


def test_an_open_circuit_that_nobody_calls_says_that_the_next_call_is_a_probe() -> None:
    async def work(rig: UpstreamsRig) -> None:
        def shown() -> tuple[str, str]:
            breaker = rig.upstreams.describe(NAME)
            return breaker.state, breaker.next_call

        await rig.call()
        assert shown() == ("closed", "made")
        await rig.open()
        assert shown() == ("open", "refused")
        await asyncio.sleep(3.0)
        assert shown() == ("open", "probe")
        rig.upstreams.set_state(NAME, BreakerState.FORCED_OPEN)
        assert shown() == ("forced_open", "refused")

    run(work)


AWAY = SourceUnavailableError("no connection: 10.1.2.3 refused", outcome="unreachable")


def test_an_upstream_that_never_answered_is_awaited_quietly_and_then_missing() -> None:
    async def work(rig: UpstreamsRig) -> None:
        with capture_logs() as logged:
            while asyncio.get_running_loop().time() < WAITING_S - 1:
                with pytest.raises(SourceUnavailableError):
                    await rig.call(AWAY)
                await asyncio.sleep(1.0)
            assert logged == []
            shown = rig.upstreams.describe(NAME)
            assert (shown.state, shown.is_awaited, shown.window.failures) == ("closed", True, 0)
            await asyncio.sleep(2.0)
            await rig.open()
        assert [line["event"] for line in logged] == ["service.missing", "breaker.opened"]
        assert not rig.upstreams.describe(NAME).is_awaited

    run(work)


def test_after_an_answer_on_any_route_an_absence_is_a_failure() -> None:
    async def work(rig: UpstreamsRig) -> None:
        other = rig.add("external_service.quotes")
        with pytest.raises(SourceUnavailableError):
            await rig.call(AWAY)
        await rig.call(policy=other)
        await rig.open()
        assert rig.upstreams.describe(NAME).state == "open"

    run(work)


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailableError("503", outcome="unavailable"),
        SourceUnavailableError("timed out", outcome="timed_out"),
        SourceMalformedError("not JSON", outcome="malformed"),
    ],
    ids=["503", "hangs", "malformed"],
)
def test_an_error_from_the_upstream_is_an_answer_and_counts(error: Exception) -> None:
    async def work(rig: UpstreamsRig) -> None:
        for _ in range(3):
            with pytest.raises(type(error)):
                await rig.call(error)
        assert rig.upstreams.describe(NAME).window.failures >= 1

    run(work)


def test_an_error_of_ours_caused_by_an_absence_is_an_absence() -> None:
    waiting = FirstAnswer(10.0, clock=lambda: 0.0)
    away = ServiceUnavailableError("quote_service is away (no connection)")
    away.__cause__ = HttpUnavailableError("no connection", outcome="unreachable")
    failure = Classification(CallVerdict.FAILURE, retryable=True)
    assert waiting.classified(away, failure).verdict is CallVerdict.IGNORED
    assert waiting.classified(ConnectionRefusedError(), failure).retryable, "it may be asked again all the same"
    assert waiting.is_awaited
    waiting.note_answer()
    assert waiting.classified(away, failure) is failure


def test_changes_of_state_are_logged_and_calls_are_not() -> None:
    async def work(rig: UpstreamsRig) -> None:
        with capture_logs() as logged:
            await rig.call()
            await rig.open()
            await asyncio.sleep(3.0)
            await rig.call()
        assert [(line["event"], line["reason"]) for line in logged] == [
            ("breaker.opened", "consecutive_failures"),
            ("breaker.half_opened", "wait_over"),
            ("breaker.closed", "probes_succeeded"),
        ]
        assert (logged[0]["failures"], logged[0]["retry_after_s"]) == (3, 3.0)

    run(work)


def test_refused_questions_are_logged_once_until_one_is_answered() -> None:
    async def work(rig: UpstreamsRig) -> None:
        refused = SourceMalformedError("the source answered 404", outcome="refused")
        with capture_logs() as logged:
            for _ in range(3):
                with pytest.raises(SourceMalformedError):
                    await rig.call(refused)
            await rig.call()
            with pytest.raises(SourceMalformedError):
                await rig.call(refused)
        assert [line["event"] for line in logged] == ["call.refused", "call.refused"]

    run(work)


# the routes


def ask(method: str, path: str, *, token: str = "sesame", **given: Any) -> tuple[httpx2.Response, UpstreamsRig]:
    async def scenario() -> tuple[httpx2.Response, UpstreamsRig]:
        rig = UpstreamsRig()
        settings = config.load({}, admin_token="sesame")
        served = build_app("some_service", settings, Metrics(), breaker_routes("some_service", settings, rig.upstreams))
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://some") as client:
            return await client.request(method, path, headers=headers, **given), rig

    return asyncio.run(scenario())


def test_the_breakers_are_shown_to_everyone() -> None:
    answer, _ = ask("GET", "/v1/breakers", token="")
    assert answer.status_code == 200
    assert answer.json()["service"] == "some_service"
    assert [shown["name"] for shown in answer.json()["breakers"]] == [NAME]


@pytest.mark.parametrize("service", [quote_service, aggregator_service, gateway_service], ids=lambda one: one.NAME)
def test_every_service_that_calls_another_has_the_breaker_routes(service: Any) -> None:
    dsns = {f"{name}_dsn": f"postgresql://cotacoes@127.0.0.1:1/{name}" for name in config.SHARDS}
    settings = config.load({}, **dsns)

    async def scenario() -> None:
        built = service.build(settings, *([lambda _: None] if service is quote_service else []))
        answer = await _get(built.app, "/openapi.json")
        assert set(answer.json()["paths"]["/v1/breakers/{name}"]) == {"put"}
        assert (await _get(built.app, "/v1/breakers")).json()["service"] == service.NAME

    asyncio.run(scenario())


async def _get(served: Any, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://some") as client:
        return await client.get(path)


@pytest.mark.parametrize("state", ["forced_open", "disabled", "metrics_only", "closed"])
def test_an_administrator_sets_a_breaker_and_it_is_logged(state: str) -> None:
    with capture_logs() as logged:
        answer, rig = ask("PUT", f"/v1/breakers/{NAME}", json={"state": state})
    assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert rig.policy.breaker is not None
    assert rig.policy.breaker.state.value == state
    assert {"event": "breaker.set", "upstream": NAME, "state": state, "log_level": "warning"} in logged


@pytest.mark.parametrize(
    ("path", "body", "token", "status", "said"),
    [
        (NAME, {"state": "closed"}, "", 401, "admin token"),
        (NAME, {"state": "closed"}, "guess", 401, "admin token"),
        ("external_service.quot", {"state": "closed"}, "sesame", 404, "external_service.quote"),
        (NAME, {"state": "open"}, "sesame", 422, "forced_open"),
        (NAME, {"state": "closed", "for": 3}, "sesame", 422, "for"),
        (NAME, {}, "sesame", 422, "state"),
    ],
)
def test_a_stranger_and_an_unknown_breaker_are_refused(
    path: str, body: dict[str, Any], token: str, status: int, said: str
) -> None:
    answer, rig = ask("PUT", f"/v1/breakers/{path}", token=token, json=body)
    assert answer.status_code == status
    assert said in answer.text
    assert rig.policy.breaker is not None
    assert rig.policy.breaker.state is BreakerState.CLOSED
