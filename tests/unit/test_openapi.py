"""What `/openapi.json` says of a service is what the service does: each answer fits what is said of its route."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from tests.unit.core import COIN, Core
from tests.unit.directories import directory_over
from tests.unit.quote_service_twin import Twin

from cotacoes import config
from cotacoes.adapters.http_exchange import ASGIApp
from cotacoes.aggregator_service import app as aggregator_service
from cotacoes.breaker_routes import breaker_routes
from cotacoes.endpoints import BREAKER_INSIDE, inside, new_endpoints
from cotacoes.errors import HistoryUnavailableError, PositionGoneError
from cotacoes.external_service import app as external_service
from cotacoes.gateway_service import app as gateway_service
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import Quote
from cotacoes.observability.telemetry import Metrics
from cotacoes.quote_service.routes import routes
from cotacoes.service.app import Check, build_app
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.testing.memory_shard import MemoryShard

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = {"authorization": "Bearer sesame"}
SETTINGS = config.load({}, admin_token="sesame", coins=f"{COIN}:shard1", failure_rate=0)
QUOTES = [Quote(COIN, "USD", Decimal("67012.30"), 5, seq, NOON, NOON, "sim") for seq in range(1, 13)]


class Contract:
    """A service that answers in memory, and its document, against which each answer is held."""

    def __init__(self, asking: httpx2.AsyncClient, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, int]] = set()
        self._asking = asking

    async def ask(self, method: str, url: str, **given: Any) -> httpx2.Response:
        """The answer; AssertionError unless its status, media type and body are those of the document."""
        answer = await self._asking.request(method, url, **given)
        template, operation = self._operation(method, answer.url.path)
        response = operation["responses"].get(str(answer.status_code)) or operation["responses"].get(
            f"{answer.status_code // 100}XX"
        )
        assert response is not None, f"{method} {template} does not say that it may answer {answer.status_code}"
        self.seen.add((method, template, answer.status_code))
        if "content" not in response:
            return answer
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in response["content"], f"{method} {template} {answer.status_code} is {media_type}"
        schema = response["content"][media_type].get("schema")
        if schema is not None:
            whole = {**schema, "components": self.document["components"]}
            jsonschema_rs.validator_for(whole).validate(answer.json())
        return answer

    async def page(self) -> httpx2.Response:
        """The same for people."""
        return await self._asking.get("/docs")

    def _operation(self, method: str, path: str) -> tuple[str, Mapping[str, Any]]:
        for template in sorted(self.document["paths"], key=lambda one: one.count("{")):
            if re.fullmatch(re.sub("{[a-z]+}", "[^/]+", template), path):
                return template, self.document["paths"][template][method.lower()]
        raise AssertionError(f"the document has no {path}")

    def unseen(self) -> list[tuple[str, str]]:
        """The operations that gave no good answer to anything that was asked."""
        good = {(method, template) for method, template, status in self.seen if status == 200}
        return [one for one in self.operations() if one not in good]

    def operations(self) -> list[tuple[str, str]]:
        """All of them."""
        return [(method.upper(), path) for path, its in self.document["paths"].items() for method in its]


@contextlib.asynccontextmanager
async def contract(app: ASGIApp) -> AsyncIterator[Contract]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking:
        yield Contract(asking, (await asking.get("/openapi.json")).json())


@contextlib.asynccontextmanager
async def external(folder: Path) -> AsyncIterator[Contract]:
    settings = SETTINGS.model_copy(update={"data": folder})
    async with contract(external_service.build(settings, asyncio.Event()).app) as asking:
        yield asking


@contextlib.asynccontextmanager
async def quote(folder: Path, *, recorded: int = 12) -> AsyncIterator[Contract]:
    core = Core(folder)
    await core.recorder.start()
    endpoints = new_endpoints(Metrics())
    endpoints.add("external_service.quote", BREAKER_INSIDE, inside(1.0))
    if recorded:
        await core.record(*["67012.30"] * recorded)
    router = routes(core.answers, {COIN: core.history})
    router.include_router(breaker_routes("quote_service", SETTINGS, endpoints))

    async def log_is_full() -> str | None:
        return "the log is full"

    lean = {"/cotacao_atual": lambda coin: core.answers.current(require_coin(coin, [COIN]))}
    checks = {"log": Check(log_is_full, required=not recorded)}
    async with contract(build_app("quote_service", SETTINGS, Metrics(), router, checks=checks, lean=lean)) as asking:
        yield asking
    await core.recorder.close()


@contextlib.asynccontextmanager
async def aggregator(_: Path) -> AsyncIterator[Contract]:
    shard = MemoryShard("shard1", [COIN])
    shard.copies[COIN].store(QUOTES)
    async with Twin({COIN: QUOTES}).client() as client:
        directory = directory_over({"shard1": shard, "shard2": MemoryShard("shard2", [])}, {COIN: "shard1"})
        async with contract(aggregator_service.wire(SETTINGS, client, directory).app) as asking:
            yield asking


@contextlib.asynccontextmanager
async def gateway(_: Path, twin: Twin | None = None) -> AsyncIterator[Contract]:
    async with (
        (twin or Twin({COIN: QUOTES})).client() as client,
        contract(gateway_service.wire(SETTINGS, client, MemoryBus()).app) as asking,
    ):
        yield asking


SERVICES = {"external": external, "quote": quote, "aggregator": aggregator, "gateway": gateway}
HISTORY = [
    ("GET", f"/v1/quotes/{COIN}", 200),
    ("GET", f"/v1/quotes/{COIN}?last=3", 200),
    ("GET", "/v1/quotes/dogecoin", 404),
    ("GET", f"/v1/candles/{COIN}", 200),
    ("GET", f"/v1/candles/{COIN}?empty=1&limit=3", 200),
    ("GET", "/v1/candles/dogecoin", 404),
]
OPERATION = [("GET", "/livez", 200), ("GET", "/metrics", 200)]
BREAKERS = [("GET", "/v1/breakers", 200), ("PUT", "/v1/breakers/nobody", 404)]
ASKED = {
    "external": [
        *OPERATION,
        ("GET", "/readyz", 200),
        ("GET", "/quote", 200),
        ("GET", "/quotes?limit=2", 200),
        ("GET", "/quotes?limit=x", 422),
        ("GET", "/quotes?after=5-5", 422),
        ("GET", f"/quotes?after={'0' * 12}.1-1", 410),
        ("GET", "/faults", 200),
        ("PUT", "/faults", 200),
        ("GET", "/coins", 200),
        ("PUT", "/coins/solana", 200),
        ("PUT", "/coins/A B", 422),
    ],
    "quote": [
        *OPERATION,
        ("GET", "/readyz", 200),
        *HISTORY,
        *BREAKERS,
        ("PUT", "/v1/breakers/external_service.quote", 200),
        ("GET", f"/cotacao_atual/{COIN}", 200),
        ("GET", "/cotacao_atual/dogecoin", 404),
        ("GET", f"/media_ultimos_10_logs/{COIN}", 200),
        ("GET", "/v1/positions", 200),
        ("GET", f"/v1/overview?coins={COIN},dogecoin", 200),
        ("GET", "/v1/overview?parts=position", 200),
        ("GET", f"/v1/quotes/{COIN}?limit=x", 422),
        ("GET", f"/v1/quotes/{COIN}?after=9999999999999-1", 409),
    ],
    "aggregator": [
        *OPERATION,
        ("GET", "/readyz", 200),
        *BREAKERS,
        ("PUT", "/v1/breakers/quote_service.overview", 200),
        *(
            ("GET", f"{path}{query}", 200)
            for path in ("/report/full", "/v1/report")
            for query in ("", "?trace=1", "?parts=current", "?window=7d&last=2")
        ),
        ("GET", "/report/full?coins=dogecoin", 404),
        ("GET", "/report/full?last=0", 422),
    ],
    "gateway": [
        *OPERATION,
        ("GET", "/readyz", 200),
        *HISTORY,
        *BREAKERS,
        ("PUT", "/v1/breakers/quote_service.quotes", 200),
        ("GET", "/", 200),
        ("GET", f"/v1/quotes/{COIN}/current", 200),
        ("GET", "/v1/quotes/dogecoin/current", 404),
        ("GET", "/v1/stream", 422),
    ],
}
BODIES = {"/faults": {"kinds": {"nan": 0.5}}, "/v1/breakers": {"state": "forced_open"}}


@pytest.mark.parametrize("service", SERVICES)
async def test_every_answer_is_one_that_the_document_tells_of(service: str, tmp_path: Path) -> None:
    async with SERVICES[service](tmp_path) as asking:
        for method, path, status in ASKED[service]:
            body = next((its for prefix, its in BODIES.items() if path.startswith(prefix)), None)
            given = {"json": body, "headers": TOKEN} if method == "PUT" else {}
            answer = await asking.ask(method, path, **given)
            assert answer.status_code == status, (method, path, answer.text)
        for method, path in asking.operations():
            if method == "PUT":
                assert (await asking.ask(method, re.sub("{.*}", "x", path), json={})).status_code == 401
        assert (await asking.ask("GET", "/livez", headers={"x-deadline-ms": "soon"})).status_code == 422
        assert set(asking.unseen()) <= {("GET", "/v1/stream")}  # which has no end


@pytest.mark.parametrize("rate", ["error_rate", "too_many_requests"])
async def test_failures_on_purpose_are_told_of(rate: str, tmp_path: Path) -> None:
    async with external(tmp_path) as asking:
        setting = {"error_rate": 1} if rate == "error_rate" else {"kinds": {rate: 1}}
        await asking.ask("PUT", "/faults", json=setting, headers=TOKEN)
        for path in ("/quote", "/quotes"):
            assert (await asking.ask("GET", path)).status_code in {429, 500, 503}


async def test_without_a_quote_each_route_says_so_as_the_document_does(tmp_path: Path) -> None:
    async with quote(tmp_path, recorded=0) as asking:
        for path in ("/cotacao_atual", "/media_ultimos_10_logs", "/v1/candles"):
            assert (await asking.ask("GET", f"{path}/{COIN}")).status_code == 503
        assert (await asking.ask("GET", "/v1/overview")).status_code == 200
        assert (await asking.ask("GET", "/readyz")).status_code == 503


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (HistoryUnavailableError("shard1 is away"), 503),
        (PositionGoneError("no longer held", floor="5-1"), 410),
        (b"<html>", 503),
    ],
    ids=["away", "gone", "babbling"],
)
async def test_what_quote_service_refuses_is_refused_as_the_gateways_document_says(
    fault: Any, status: int, tmp_path: Path
) -> None:
    twin = Twin({COIN: QUOTES})
    twin.faults["*"] = fault
    async with gateway(tmp_path, twin) as asking:
        for path in (f"/v1/quotes/{COIN}", f"/v1/candles/{COIN}"):
            assert (await asking.ask("GET", path)).status_code == status


async def test_a_report_that_is_known_or_not_complete_is_told_of(tmp_path: Path) -> None:
    async with aggregator(tmp_path) as asking:
        tag = (await asking.ask("GET", "/report/full")).headers["etag"]
        assert (await asking.ask("GET", "/report/full", headers={"if-none-match": tag})).status_code == 304
    twin = Twin({COIN: QUOTES})
    twin.faults["*"] = b"<html>"
    shard = MemoryShard("shard1", [COIN])
    async with twin.client() as client:
        directory = directory_over({"shard1": shard, "shard2": MemoryShard("shard2", [])}, {COIN: "shard1"})
        async with contract(aggregator_service.wire(SETTINGS, client, directory).app) as asking:
            assert not (await asking.ask("GET", "/report/full")).json()["complete"]
            assert (await asking.ask("GET", "/report/full?strict=1")).status_code == 503


@pytest.mark.parametrize("service", SERVICES)
async def test_a_document_leaves_nothing_to_guess(service: str, tmp_path: Path) -> None:
    async with SERVICES[service](tmp_path) as asking:
        document = asking.document
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert "x-problems" not in text
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), name
    for method, path in Contract(None, document).operations():  # type: ignore[arg-type]
        operation = document["paths"][path][method.lower()]
        assert operation["summary"]
        assert {"200", "400", "421", "422", "431", "500", "503", "504"} <= operation["responses"].keys(), path
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                is_data = media_type.endswith("json")
                assert bool(content.get("schema")) == is_data, (path, status, media_type)
            if status.isdigit() and status != "304":
                assert response["content"], (path, status)
        assert (method == "PUT") == ("security" in operation) == ("401" in operation["responses"]), path
    metrics = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert list(metrics) == ["text/plain"]


async def test_the_page_of_routes_leads_from_each_route_to_its_problems(tmp_path: Path) -> None:
    async with quote(tmp_path) as asking:
        page = (await asking.page()).text
    assert '<a href="#position-gone">410 position-gone</a>' in page
    assert set(re.findall('href="#([a-z-]+)"', page)) <= set(re.findall("<h3 id=([a-z-]+)>", page))
