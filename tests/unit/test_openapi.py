"""What `/openapi.json` says of a service is what the service does: each answer fits what is said of its route."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.harness_directory import directory_over
from tests.unit.harness_openapi import (
    QUOTES,
    SERVICES,
    SETTINGS,
    Contract,
    aggregator,
    contract,
    external,
    gateway,
    quote,
)
from tests.unit.harness_quote_service import COIN

from cotacoes.aggregator_service import app as aggregator_service
from cotacoes.errors import HistoryUnavailableError, PositionGoneError
from cotacoes.testing.memory_shard import MemoryShard

TOKEN = {"authorization": "Bearer sesame"}
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
        ("GET", "/venues", 200),
        ("GET", "/venues/kraken/faults", 200),
        ("GET", "/venues/nasdaq/faults", 404),
        ("PUT", "/venues/kraken/faults", 200),
        ("PUT", "/venues/market", 200),
    ],
    "feed": [
        *OPERATION,
        ("GET", "/readyz", 200),
        *BREAKERS,
        ("PUT", "/v1/breakers/kraken.connect", 200),
        ("GET", "/quote", 200),
        ("GET", "/quotes?limit=2", 200),
        ("GET", "/quotes?limit=x", 422),
        ("GET", "/quotes?after=5", 422),
        ("GET", "/quotes?after=feed.2-1", 410),
        ("GET", "/v1/venues", 200),
        ("GET", f"/v1/venues/{COIN}", 200),
        ("GET", "/v1/venues/dogecoin", 404),
        ("GET", "/coins", 200),
        ("GET", "/coins/solana", 200),
        ("PUT", "/coins/solana", 200),
        ("PUT", "/coins/A B", 422),
        ("PUT", "/coins/nobody-lists-it", 422),
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
        ("GET", "/v1/ws", 426),
        ("GET", "/v1/status", 200),
        ("GET", "/v1/coins", 200),
        ("PUT", "/v1/faults", 404),  # the twin is quote_service alone
        ("PUT", "/v1/venues/kraken/faults", 404),
        ("PUT", "/v1/breakers/quote_service/nobody", 404),
    ],
}
# streams have no end, and what is passed on has no service here
ELSEWHERE = {
    ("GET", "/v1/stream"),
    ("GET", "/v1/ws"),
    ("PUT", "/v1/faults"),
    ("PUT", "/v1/venues/{venue}/faults"),
    ("PUT", "/v1/breakers/{service}/{name}"),
}
BODIES: dict[str, dict[str, Any]] = {
    "/faults": {"kinds": {"nan": 0.5}},
    "/v1/breakers": {"state": "forced_open"},
    "/venues/kraken": {"lie": "0.10", "half": "bid"},
    "/venues/market": {"shock": "0.7", "peg": {"USDT": "0.90"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
async def test_the_document_describes_every_answer(service: str, tmp_path: Path) -> None:
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
        assert set(asking.unseen()) <= ELSEWHERE


@pytest.mark.parametrize("rate", ["error_rate", "too_many_requests"])
async def test_the_document_describes_injected_failures(rate: str, tmp_path: Path) -> None:
    async with external(tmp_path) as asking:
        setting = {"error_rate": 1} if rate == "error_rate" else {"kinds": {rate: 1}}
        await asking.ask("PUT", "/faults", json=setting, headers=TOKEN)
        for path in ("/quote", "/quotes"):
            assert (await asking.ask("GET", path)).status_code in {429, 500, 503}


async def test_without_a_quote_each_route_answers_as_the_document_says(tmp_path: Path) -> None:
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
    twin = QuoteServiceTwin({COIN: QUOTES})
    twin.faults["*"] = fault
    async with gateway(tmp_path, twin) as asking:
        for path in (f"/v1/quotes/{COIN}", f"/v1/candles/{COIN}"):
            assert (await asking.ask("GET", path)).status_code == status


async def test_the_document_describes_unchanged_and_incomplete_reports(tmp_path: Path) -> None:
    async with aggregator(tmp_path) as asking:
        tag = (await asking.ask("GET", "/report/full")).headers["etag"]
        assert (await asking.ask("GET", "/report/full", headers={"if-none-match": tag})).status_code == 304
    twin = QuoteServiceTwin({COIN: QUOTES})
    twin.faults["*"] = b"<html>"
    shard = MemoryShard("shard1", [COIN])
    async with twin.client() as client:
        directory = directory_over({"shard1": shard, "shard2": MemoryShard("shard2", [])}, {COIN: "shard1"})
        async with contract(aggregator_service.wire(SETTINGS, client, directory).app) as asking:
            assert not (await asking.ask("GET", "/report/full")).json()["complete"]
            assert (await asking.ask("GET", "/report/full?strict=1")).status_code == 503


@pytest.mark.parametrize("service", SERVICES)
async def test_the_document_declares_every_type(service: str, tmp_path: Path) -> None:
    async with SERVICES[service](tmp_path) as asking:
        document = asking.document
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert "x-problems" not in text
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    for method, path in Contract(None, document).operations():  # type: ignore[arg-type]
        operation = document["paths"][path][method.lower()]
        assert operation["summary"]
        assert operation["responses"].keys() & {"200", "101"}, path
        assert {"400", "421", "422", "431", "500", "503", "504"} <= operation["responses"].keys(), path
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                is_data = media_type.endswith("json")
                assert bool(content.get("schema")) == is_data, (path, status, media_type)
            if status.isdigit() and status not in ("101", "304"):
                assert response["content"], (path, status)
        assert (method == "PUT") == ("security" in operation) == ("401" in operation["responses"]), path
    metrics = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert list(metrics) == ["text/plain"]


async def test_the_docs_page_links_each_route_to_its_problems(tmp_path: Path) -> None:
    async with quote(tmp_path) as asking:
        page = (await asking.page()).text
    assert '<a href="#position-gone">410 position-gone</a>' in page
    assert set(re.findall('href="#([a-z-]+)"', page)) <= set(re.findall("<h3 id=([a-z-]+)>", page))
