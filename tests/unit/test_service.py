"""What every service has: operator routes, problem+json for every error, bounds around every request."""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import structlog
from fastapi import APIRouter, Request

from cotacoes import config
from cotacoes.adapters.http_server import connection
from cotacoes.errors import NoQuoteError, ShardUnavailableError
from cotacoes.model.coins import COMPARED_MAX, nearest, require_coin
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience import current_deadline
from cotacoes.web import docs_page
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import background
from cotacoes.web.request_limits import BODY_BYTES_MAX, REQUESTS_MAX
from cotacoes.web.requests import require_admin

SETTINGS = config.load({}, request_deadline_s=0.2, admin_token="secret")


def new_app(checks: dict[str, Check] | None = None, settings: config.Settings = SETTINGS) -> Any:
    router = APIRouter()

    @router.get("/coins/{coin}")
    async def coin(coin: str) -> str:
        return require_coin(coin, ["bitcoin", "ethereum"])

    @router.get("/none")
    async def none() -> None:
        raise NoQuoteError("no quote of bitcoin yet", retry_after_s=2.5, reason="none_yet")

    @router.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret detail")

    @router.get("/hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    @router.get("/left")
    async def left() -> float:
        deadline = current_deadline()
        assert deadline is not None
        return deadline.remaining()

    @router.put("/put")
    async def put(request: Request) -> int:
        require_admin(request, SETTINGS)
        return len(await request.body())

    def lean(coin: str) -> bytes:
        return json.dumps({"coin": require_coin(coin, ["bitcoin"])}).encode()

    return build_app("test_service", settings, Metrics(), router, checks=checks, lean={"/lean": lean})


async def ask(method: str, path: str, app: Any = None, **options: Any) -> httpx2.Response:
    transport = httpx2.ASGITransport(app or new_app(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.request(method, path, **options)


def get(path: str, app: Any = None, **options: Any) -> httpx2.Response:
    return asyncio.run(ask("GET", path, app, **options))


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("/coins/bitcoinn", 404, "unknown-coin"),
        ("/coins/%00", 404, "unknown-coin"),
        ("/coins/btc%0d%0aX", 404, "unknown-coin"),
        ("/lean/bitcoinn", 404, "unknown-coin"),
        ("/nowhere", 404, "not-found"),
        ("/none", 503, "no-quote"),
        ("/bug", 500, "internal"),
        ("/hang", 504, "deadline-exceeded"),
        ("/put", 405, "method-not-allowed"),
    ],
)
def test_every_error_is_a_problem_whose_type_the_docs_explain(path: str, status: int, slug: str) -> None:
    answer = get(path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"/docs#{slug}"
    assert f"id={slug}>" in get("/docs").text


def test_an_unknown_coin_is_answered_with_the_nearest_names() -> None:
    assert get("/coins/bitcon").json()["did_you_mean"] == ["bitcoin"]
    assert get("/coins/BITCOIN").json()["did_you_mean"] == ["bitcoin"]


def test_retry_after_is_in_whole_seconds() -> None:
    assert get("/none").headers["retry-after"] == "3"


def test_an_internal_error_reveals_only_an_id_to_look_up() -> None:
    answer = get("/bug")
    assert "secret" not in answer.text
    assert len(answer.json()["request_id"]) == 32


def test_an_administrative_route_requires_the_token() -> None:
    assert asyncio.run(ask("PUT", "/put")).status_code == 401
    assert asyncio.run(ask("PUT", "/put", headers={"authorization": "Bearer wrong"})).status_code == 401
    right = {"authorization": "Bearer secret"}
    assert asyncio.run(ask("PUT", "/put", headers=right, content=b"x" * 10)).json() == 10


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_the_token_is_case_insensitive_and_the_token_is_not(scheme: str) -> None:
    assert asyncio.run(ask("PUT", "/put", headers={"authorization": f"{scheme} secret"})).status_code == 200
    for wrong in ("SECRET", "secret x", "", "secre\xe9"):
        given = f"{scheme} {wrong}".encode("latin-1")
        assert asyncio.run(ask("PUT", "/put", headers={b"authorization": given})).status_code == 401
    assert asyncio.run(ask("PUT", "/put", headers={"authorization": "Basic secret"})).status_code == 401


def test_requests_without_the_token_are_counted_and_logged_with_one_line_for_many() -> None:
    app = new_app()
    with structlog.testing.capture_logs() as logs:
        for _ in range(50):
            asyncio.run(ask("PUT", "/put", app, headers={"authorization": "Bearer wrong"}))
    assert 'cotacoes_http_refusals_total{reason="unauthorized"} 50.0' in get("/metrics", app).text
    assert len(logs) == 1
    assert {name: logs[0][name] for name in ("event", "route", "method", "address")} == {
        "event": "admin.refused",
        "route": "/put",
        "method": "PUT",
        "address": "127.0.0.1",
    }


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_refused_whether_its_length_was_announced_or_not(announced: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 1000 + 2):
            yield b"x" * 1000

    body = b"x" * (BODY_BYTES_MAX + 1) if announced else chunks()
    answer = asyncio.run(ask("PUT", "/put", headers={"authorization": "Bearer secret"}, content=body))
    assert (answer.status_code, answer.json()["type"]) == (413, "/docs#too-large")


def test_the_docs_page_works_offline() -> None:
    page = get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "/coins/{coin}" in page.text


def test_the_docs_page_shows_markdown_as_people_read_it_and_no_markup_of_its_own() -> None:
    document = {
        "info": {"title": "one"},
        "paths": {
            "/": {"get": {"summary": "the `page`", "description": "First.\n\n* an item\n\n<b>x</b>", "responses": {}}},
        },
    }
    shown = docs_page.render(document)
    assert "the <code>page</code>" in shown
    assert "<li>an item</li>" in shown
    assert "&lt;b&gt;x" in shown
    assert "<a href=/>" in shown
    assert "<a href=/>" not in get("/docs").text  # this service has no page


def test_liveness_checks_no_dependency_and_readiness_names_each() -> None:
    async def fine() -> None:
        return None

    async def away() -> str:
        raise ShardUnavailableError("shard1 is not reachable")

    app = new_app({"log": Check(fine, required=True), "shard1": Check(away)})
    assert get("/livez", app).json() == {"status": "alive"}
    answer = get("/readyz", app)
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "checks": {
            "log": {"ok": True, "required": True, "reason": None},
            "shard1": {"ok": False, "required": False, "reason": "shard1 is not reachable"},
        },
    }
    assert get("/readyz", new_app({"shard1": Check(away, required=True)})).status_code == 503


def test_a_hanging_check_is_reported_as_hanging() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    reason = get("/readyz", new_app({"redis": Check(hang, deadline_s=0.01)})).json()["checks"]["redis"]["reason"]
    assert reason == "no answer within 0.01 s"


def test_requests_are_counted_by_route_and_status() -> None:
    app = new_app()
    for path in ("/coins/bitcoin", "/coins/ethereum", "/lean/bitcoin", "/none"):
        get(path, app)
    metrics = get("/metrics", app).text
    assert 'cotacoes_http_requests_total{route="/coins/{coin}",status="200"} 2.0' in metrics
    assert 'cotacoes_http_requests_total{route="/lean/{coin}",status="200"} 1.0' in metrics
    assert 'cotacoes_http_requests_total{route="/none",status="503"} 1.0' in metrics


@pytest.mark.slow
def test_requests_beyond_the_limit_are_refused() -> None:
    app = new_app()

    async def crowd() -> list[int]:
        answers = await asyncio.gather(*(ask("GET", "/hang", app) for _ in range(REQUESTS_MAX + 2)))
        return sorted(answer.status_code for answer in answers)

    assert asyncio.run(crowd()) == [503] * 2 + [504] * REQUESTS_MAX


def test_a_request_ends_by_its_callers_deadline_if_that_is_earlier() -> None:
    patient = new_app(settings=config.load({}, request_deadline_s=60.0))
    started = time.monotonic()
    answer = get("/hang", patient, headers={"X-Deadline-Ms": "20"})
    assert (answer.status_code, answer.json()["type"]) == (504, "/docs#deadline-exceeded")
    assert time.monotonic() - started < 30.0


@pytest.mark.parametrize(("header", "most_s"), [("7000", 7.0), ("60000", 20.0), (None, 20.0)])
def test_the_time_left_for_a_request_is_the_current_deadline(header: str | None, most_s: float) -> None:
    app = new_app(settings=config.load({}, request_deadline_s=20.0))
    left_s = get("/left", app, headers={} if header is None else {"X-Deadline-Ms": header}).json()
    assert most_s - 5.0 < left_s <= most_s


@pytest.mark.parametrize("header", ["soon", "-5", "1.5", "1" * 10, "", "\u0661"])
def test_an_invalid_deadline_is_refused_by_name(header: str) -> None:
    answer = get("/left", headers={"X-Deadline-Ms": header.encode()})
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#bad-request")
    assert "X-Deadline-Ms" in answer.json()["detail"]


def test_no_work_is_done_for_a_caller_whose_deadline_has_passed() -> None:
    app = new_app()
    assert get("/bug", app, headers={"X-Deadline-Ms": "0"}).status_code == 504


def test_background_work_ends_with_its_scope_and_its_failure_ends_the_scope() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async def fail() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with background(work()):
            await asyncio.sleep(0)
        assert ended == ["work"]
        with pytest.raises(ExceptionGroup):
            async with background(work(), fail()):
                await asyncio.Event().wait()

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(run())
    assert ended == ["work", "work"]


def test_a_client_that_disconnected_before_anybody_listened_is_noticed() -> None:
    heard: list[bool] = []
    for is_gone in (True, False):
        extension: dict[str, Any] = {"heard_by": set(), "is_gone": functools.partial(bool, is_gone)}
        with connection.hanging_up(
            {"extensions": {"cotacoes.hanging_up": extension}}, functools.partial(heard.append, is_gone)
        ):
            assert len(extension["heard_by"]) == 1
        assert not extension["heard_by"]
    assert heard == [True]


def test_an_unknown_name_is_compared_with_a_bounded_number_of_coins() -> None:
    coins = [f"coin-{number}" for number in range(COMPARED_MAX)]
    assert nearest("coin-77x", [*coins, "coin-77x"]) != nearest("coin-77x", ["coin-77x", *coins])
    assert "coin-77" in nearest("coin-77x", [*coins, "coin-77x"])


async def test_background_work_begins_even_if_the_scope_ends_at_once() -> None:
    begun = []

    async def work() -> None:
        begun.append(True)
        await asyncio.Event().wait()

    async with background(work()):
        pass
    assert begun
