"""Tracing: one question is one trace, nothing secret leaves, and a collector that fails costs nobody anything."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.test_aggregator_service import FrozenShard, ask, new_twin

from cotacoes import config
from cotacoes.adapters import otlp
from cotacoes.adapters.http_client import HttpClient
from cotacoes.adapters.otlp import OtlpTracer
from cotacoes.aggregator_service.branch_spans import traced_gather
from cotacoes.errors import HttpUnavailableError, NoQuoteError, SettingError
from cotacoes.observability import tracing
from cotacoes.observability.metrics import Metrics
from cotacoes.observability.tracing import SpanOutcome
from cotacoes.patterns.scatter_gather.gather_result import IncompleteError
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.app import build_app
from cotacoes.web.process import tracing_to_collector
from cotacoes.web.request_limits import RequestLimits
from cotacoes.web.request_spans import TracedRequests

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-2] + "00"
WAIT_S = 30.0  # for what happens in another thread; only a bug takes so long
Spans = Sequence[ReadableSpan]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


class Kept:
    """What was exported, once the tracer is closed."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @contextlib.contextmanager
    def reported(self, service: str = "test_service") -> Iterator[OtlpTracer]:
        with otlp.opened(service, lambda: self.exporter) as tracer, tracing.reporting_to(tracer):
            yield tracer

    @property
    def spans(self) -> Spans:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def children(self, parent: ReadableSpan) -> Spans:
        return [span for span in self.spans if span.parent and span.parent.span_id == parent.context.span_id]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def traced_report(
    kept: Kept, twin: QuoteServiceTwin | None = None, shard1: MemoryShard | None = None, **options: Any
) -> Any:
    with kept.reported():
        return asyncio.run(ask(twin or new_twin(), shard1, **options)).json()


# -- one question, one trace


def test_a_report_is_one_trace_from_the_request_through_its_branches_to_the_called_service(kept: Kept) -> None:
    assert traced_report(kept)["complete"]
    root = kept.named("GET /report/full")
    assert root.parent is None
    assert root.kind is SpanKind.SERVER
    assert {span.context.trace_id for span in kept.spans} == {root.context.trace_id}
    branches = {span.name.removeprefix("branch "): span for span in kept.children(root)}
    asked = ("quote_service",)
    assert set(branches) == {*asked, "shard1", "shard2"}
    for name in asked:
        (call,) = kept.children(branches[name])
        assert call.kind is SpanKind.CLIENT
        (served,) = kept.children(call)
        assert served.kind is SpanKind.SERVER
        assert served.parent is not None
        assert served.parent.is_remote  # it came by the header
        assert attributes_of(call)["url.full"] == "http://quote_service:80" + attributes_of(served)["url.path"]


def test_each_branch_has_its_name_status_attempts_and_reason(kept: Kept) -> None:
    traced_report(kept, shard1=MemoryShard("shard1", ["bitcoin"]))  # which is away
    assert attributes_of(kept.named("branch quote_service")) == {
        "cotacoes.branch.name": "quote_service",
        "cotacoes.branch.status": "ok",
        "cotacoes.branch.attempts": 1,
    }
    failed = kept.named("branch shard1")
    assert attributes_of(failed) == {
        "cotacoes.branch.name": "shard1",
        "cotacoes.branch.status": "failed",
        "cotacoes.branch.attempts": 1,
        "cotacoes.branch.reason": "shard1 is not reachable",
        "error.type": "failed",
    }
    assert failed.status.status_code is StatusCode.ERROR
    assert kept.named("branch quote_service").status.status_code is StatusCode.UNSET


def test_a_hanging_branch_has_a_span_until_the_deadline(kept: Kept) -> None:
    traced_report(kept, shard1=FrozenShard("shard1", ["bitcoin"]), deadline_s=0.5)
    assert attributes_of(kept.named("branch shard1"))["cotacoes.branch.status"] == "timed_out"


def test_a_branch_that_had_not_begun_and_one_that_does_not_stop_have_spans_too(kept: Kept) -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    async def gather() -> None:
        branches = {"stubborn": stubborn, "waiting": stubborn}
        terms = {"deadline": 0.05, "clock": time.monotonic, "max_concurrency": 1}
        await traced_gather(branches, **terms)
        with pytest.raises(IncompleteError):
            await traced_gather(branches, partial="forbid", **terms)
        released.set()
        await asyncio.sleep(0)

    with kept.reported():
        asyncio.run(gather())
    ended = [(span.name, attributes_of(span)["cotacoes.branch.status"]) for span in kept.spans]
    assert sorted(ended) == 2 * [("branch stubborn", "abandoned")] + 2 * [("branch waiting", "skipped")]


def test_a_cancelled_report_leaves_no_span_open(kept: Kept) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def give_up() -> None:
        asking = asyncio.create_task(traced_gather({"one": hang, "two": hang}, deadline=60.0, clock=time.monotonic))
        for _ in range(3):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    with kept.reported():
        asyncio.run(give_up())
    assert sorted((span.name, attributes_of(span)["error.type"]) for span in kept.spans) == [
        ("branch one", "cancelled"),
        ("branch two", "cancelled"),
    ]


# -- a request


def new_app() -> Any:
    router = APIRouter()

    @router.get("/coins/{coin}")
    async def coin(coin: str) -> str:
        return coin

    @router.get("/none")
    async def none() -> None:
        raise NoQuoteError("no quote of bitcoin, which was 66636.92", retry_after_s=1.0, reason="none_yet")

    @router.get("/hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    settings = config.load({}, request_deadline_s=0.2)
    lean = {"/lean": lambda coin: coin.encode()}
    return build_app("test_service", settings, Metrics(), router, lean=lean, streams={"/v1/stream": stream})


def serve(kept: Kept, *paths: str, headers: Any = None) -> list[httpx2.Response]:
    async def get() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(new_app())
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.get(path, headers=headers) for path in paths]

    with kept.reported():
        return asyncio.run(get())


def test_the_query_string_is_not_in_a_span(kept: Kept) -> None:
    serve(kept, "/coins/bitcoin?token=hunter2", "/lean/bitcoin?token=hunter2", "/none")
    everything = "".join(span.to_json() for span in kept.spans)
    assert "/coins/bitcoin" in everything
    assert "hunter2" not in everything
    assert "66636.92" not in everything


def test_an_incomplete_answer_has_a_failed_span(kept: Kept) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})

    async def received() -> Any: ...

    async def sent(message: Any) -> None: ...

    with kept.reported() as tracer:
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": []}
        asyncio.run(TracedRequests(broken, tracer, (), ())(scope, received, sent))
    (span,) = kept.spans
    assert (attributes_of(span)["http.response.status_code"], attributes_of(span)["error.type"]) == (200, "incomplete")


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [
        ("/coins/bitcoin", "GET /coins/{coin}", 200),
        ("/lean/bitcoin", "GET /lean/{coin}", 200),
        ("/none", "GET /none", 503),
        ("/hang", "GET /hang", 504),
        ("/nowhere", "GET", 404),
    ],
)
def test_the_span_of_a_request_is_named_after_its_route(kept: Kept, path: str, name: str, status: int) -> None:
    serve(kept, path)
    (span,) = kept.spans
    assert (span.name, attributes_of(span)["http.response.status_code"]) == (name, status)
    assert attributes_of(span).get("http.route", "") == name.removeprefix("GET").strip()
    is_error = span.status.status_code is StatusCode.ERROR
    assert (is_error, attributes_of(span).get("error.type")) == (
        (True, str(status)) if status >= 500 else (False, None)
    )


def test_streams_and_routes_for_operators_have_no_span(kept: Kept) -> None:
    answers = serve(kept, "/v1/stream", "/livez", "/readyz", "/metrics")
    assert [answer.status_code for answer in answers] == [200] * 4
    assert kept.spans == ()


def test_the_callers_span_is_the_parent(kept: Kept) -> None:
    serve(kept, "/lean/bitcoin", headers={"traceparent": CALLER, "tracestate": "vendor=1"})
    (span,) = kept.spans
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}-{span.parent.span_id:016x}" == CALLER[3:52]
    assert span.context.trace_state.to_header() == "vendor=1"


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "00-abc-def-01")],
        [("traceparent", "x" * 5_000)],
        [("traceparent", CALLER.replace("0af7", "0" * 4).replace(CALLER[7:35], "0" * 28))],
        [("traceparent", CALLER), ("traceparent", UNSAMPLED)],
        [("traceparent", "\u00ff")],
    ],
    ids=["malformed", "long", "zero", "twice", "no text"],
)
def test_invalid_trace_headers_do_no_harm(kept: Kept, headers: Any) -> None:
    (answer,) = serve(kept, "/lean/bitcoin", headers=[(name, text.encode("latin-1")) for name, text in headers])
    assert answer.status_code == 200
    (span,) = kept.spans
    assert span.parent is None


def test_a_trace_that_the_caller_does_not_sample_is_not_sampled_here_either(kept: Kept) -> None:
    serve(kept, "/lean/bitcoin", headers={"traceparent": UNSAMPLED})
    assert kept.spans == ()


def test_a_long_path_is_shortened(kept: Kept) -> None:
    serve(kept, "/nowhere/" + "x" * 10_000)
    (span,) = kept.spans
    assert len(attributes_of(span)["url.path"]) == otlp.VALUE_CHARS_MAX
    assert span.name == "GET"


# -- a call, a query


def called(url: str, answer: Any) -> list[httpx2.Request]:
    """The requests that were made of it."""
    asked: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer, content=b"{}")

    async def get() -> None:
        async with HttpClient(1.0, 1_000, transport=httpx2.MockTransport(respond)) as client:
            with contextlib.suppress(HttpUnavailableError):
                await client.get(url)

    asyncio.run(get())
    return asked


def test_a_call_passes_its_span_on_and_names_the_address_without_user_and_query(kept: Kept) -> None:
    with kept.reported():
        (request,) = called("http://user:hunter2@far:81/v1/quotes/bitcoin?token=hunter2#hunter2", 200)
    (span,) = kept.spans
    context = span.context
    assert request.headers["traceparent"][:-2] == f"00-{context.trace_id:032x}-{context.span_id:016x}-"
    assert int(request.headers["traceparent"][-2:], 16) & 1  # it is followed
    assert attributes_of(span) == {
        "http.request.method": "GET",
        "server.address": "far",
        "server.port": 81,
        "url.full": "http://far:81/v1/quotes/bitcoin",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(503, "503"), (404, "404"), (httpx2.ConnectError("hunter2 at 10.1.2.3 refused"), "unreachable")],
)
def test_a_failed_call_has_the_kind_of_its_error_and_not_its_message(kept: Kept, answer: Any, kind: str) -> None:
    with kept.reported():
        called("http://[::1]/quote", answer)
    (span,) = kept.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert (attributes_of(span)["error.type"], attributes_of(span)["url.full"]) == (kind, "http://[::1]:80/quote")
    assert (span.events, "hunter2" in str(attributes_of(span))) == ((), False)


@pytest.mark.parametrize("url", ["http://far/livez", "http://far:99999/quote", "far/quote"])
def test_a_liveness_check_and_an_invalid_address_have_no_span(kept: Kept, url: str) -> None:
    with kept.reported():
        called(url, 200)
    assert kept.spans == ()


def test_a_query_has_a_span_only_as_part_of_another_span(kept: Kept) -> None:
    with kept.reported() as tracer:
        with tracing.query_span("append", "shard1"):
            pass
        branch_span = tracer.begin("internal", "branch shard1", {})
        with tracing.around(branch_span), contextlib.suppress(OSError), tracing.query_span("newest", "shard1"):
            raise ConnectionError("postgresql://user:hunter2@far/db is not reachable")
    query, branch = kept.spans
    assert (query.name, query.kind, query.parent) == ("newest shard1", SpanKind.CLIENT, branch.context)
    assert attributes_of(query) == {
        "db.system.name": "postgresql",
        "db.query.summary": "newest",
        "cotacoes.shard": "shard1",
        "error.type": "ConnectionError",
    }
    assert query.status.description is None


def test_no_price_is_in_any_span(kept: Kept) -> None:
    report = traced_report(kept)
    assert report["coins"]["bitcoin"]["current"]["price"] == "12.10"
    assert "12.10" not in "".join(span.to_json() for span in kept.spans)


# -- the collector


class Gate(SpanExporter):
    """A collector that takes nothing until it is opened, as one that is frozen."""

    def __init__(self) -> None:
        self.is_held = threading.Event()
        self.opened = threading.Event()
        self.results = [SpanExportResult.SUCCESS]
        self.taken: list[str] = []
        self.shutdowns = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_held.set()
        assert self.opened.wait(WAIT_S)
        self.taken += [span.name for span in spans]
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]

    def shutdown(self) -> None:
        self.shutdowns += 1


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()  # else its thread would be left behind


def begin_and_end(tracer: OtlpTracer, count: int) -> None:
    for number in range(count):
        tracer.begin("internal", f"span {number}", {}).end()


def test_spans_beyond_the_queue_are_dropped_and_counted(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    counted = {"sent": 0, "dropped": 0, "failed": 0}

    def count(outcome: SpanOutcome, count: int) -> None:
        counted[outcome] += count

    with capture_logs() as logged, otlp.opened("test_service", lambda: gate) as tracer:
        tracer.listener = count
        begin_and_end(tracer, 1)
        assert gate.is_held.wait(WAIT_S)  # with that one
        begin_and_end(tracer, 20)  # of which those find room that come first
        assert counted == {"sent": 0, "dropped": 12, "failed": 0}
        gate.opened.set()
    assert counted == {"sent": 9, "dropped": 12, "failed": 0}
    assert gate.taken == ["span 0", *(f"span {number}" for number in range(8))]
    assert logged == []


def test_a_frozen_collector_delays_neither_a_request_nor_the_stop(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the library itself comes after half a minute, and only then it ends the exporter."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    with capture_logs() as logged:
        frozen = otlp.opened("test_service", lambda: gate, stop_s=0.05)
        with frozen as tracer, tracing.reporting_to(tracer):
            begin_and_end(tracer, 1)
            assert gate.is_held.wait(WAIT_S)
            assert asyncio.run(ask(new_twin())).json()["complete"]
        assert (gate.taken, gate.shutdowns) == ([], 0)
    assert [line["event"] for line in logged] == ["collector.abandoned"]


class Retrying(SpanExporter):
    """An exporter without a collector, as the library's: it logs that, and tries again until it is shut down."""

    def __init__(self, *, is_lost: bool) -> None:
        self.is_retrying = threading.Event()
        self.ended = threading.Event()
        self.is_lost = is_lost
        self.shutdowns = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        log = logging.getLogger("opentelemetry.exporter.otlp")
        log.warning("Transient error %s encountered while exporting", ConnectionRefusedError("hunter2 at far"))
        self.is_retrying.set()
        self.ended.wait(0 if self.is_lost else WAIT_S)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.shutdowns += 1
        self.ended.set()


@pytest.mark.parametrize("is_lost", [False, True], ids=["is being tried again", "was lost before"])
def test_a_collector_known_to_be_away_is_not_waited_for(is_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter is shut down first, and tries no more."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    exporter = Retrying(is_lost=is_lost)
    with capture_logs() as logged, otlp.opened("test_service", lambda: exporter, stop_s=WAIT_S / 2) as tracer:
        begin_and_end(tracer, 1)
        assert exporter.is_retrying.wait(WAIT_S)
        while is_lost and not logged:
            time.sleep(0.001)
        exporter.is_lost = False
        begin_and_end(tracer, 1)
    assert [(line["event"], line["reason"]) for line in logged] == [("collector.away", "ConnectionRefusedError")]
    assert exporter.shutdowns == 1  # the library complains of a second one


def test_a_collector_that_goes_away_is_logged_once_and_so_is_its_return(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    away, back = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    gate.results = [back, away, away, away, back, back, away]
    gate.opened.set()
    with capture_logs() as logged, otlp.opened("test_service", lambda: gate) as tracer:
        begin_and_end(tracer, 7)
    events = [line["event"] for line in logged]
    assert events == ["collector.away", "collector.back", "collector.away"]


def test_each_warning_of_the_library_is_logged_once_without_its_values(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    library = logging.getLogger("opentelemetry.exporter.otlp")  # which sends nothing meanwhile
    with capture_logs() as logged:
        serve(kept, "/lean/a", "/lean/b", headers={"traceparent": "0" * 1_000})  # longer than it may be
        with kept.reported():
            library.warning("found %s", "hunter2")
            library.warning("found %s", "hunter3")
    assert [line["event"] for line in logged] == ["tracing.warned"] * 2
    assert [line["message"].partition(" exceeded")[0] for line in logged] == ["traceparent header", "found %s"]
    assert caplog.records == []


# -- the settings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far:4318"}


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_SERVICE_NAME": "mine"}, None),
        (ENDPOINT, "http://far:4318"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://u:hunter2@far/v1/traces?key=hunter2"}, "https://far:443"),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, None),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, "http://far:4318"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http://far:4318"),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense"}, None),
    ],
)
def test_spans_are_collected_if_opentelemetrys_own_variables_say_so(
    variables: dict[str, str], address: str | None
) -> None:
    assert tracing.collector(variables) == address


@pytest.mark.parametrize(
    ("variables", "fix"),
    [
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "hunter2:4318"}, "http://HOST:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://:4318"}, "http://HOST:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far:hunter2"}, "http://HOST:4318"),
    ],
)
def test_an_invalid_variable_is_refused_with_the_fix_and_not_repeated(variables: dict[str, str], fix: str) -> None:
    with pytest.raises(SettingError, match=fix) as refused:
        tracing.collector(variables)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size must be a positive integer"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8", "max_export_batch_size must be less than or equal"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1", "OTEL_SPAN_EVENT_COUNT_LIMIT"),
    ],
)
def test_an_invalid_setting_of_the_library_is_refused(
    name: str, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingError, match=said), Kept().reported():
        pass


@pytest.mark.parametrize(("variable", "name"), [("", "quote_service"), ("mine", "mine")])
def test_a_service_has_its_own_name_unless_a_variable_gives_another(
    kept: Kept, variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", variable)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "")  # empty is as good as none
    with capture_logs() as logged, kept.reported("quote_service") as tracer:
        begin_and_end(tracer, 1)
    (span,) = kept.spans
    assert span.resource.attributes["service.name"] == name
    assert logged == []


OFF = """
import importlib, sys
from cotacoes.web.process import run_process
for name in ("external", "quote", "aggregator", "gateway"):
    importlib.import_module(f"cotacoes.{name}_service.app")
async def main(settings, stop):
    sys.modules["cotacoes.external_service.app"].build(settings, stop.event)
assert run_process("external_service", main) == 0
print(*sys.modules)
"""
WITHOUT_FASTAPI = (
    "import sys, cotacoes.client, cotacoes.web.upstreams, cotacoes.adapters.postgres.shard; print(*sys.modules)"
)


def modules(code: str, folder: Path) -> list[str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("COTACOES_")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment, timeout=60)
    return done.stdout.split()


@pytest.mark.slow
def test_without_a_collector_no_tracing_library_is_imported(tmp_path: Path) -> None:
    """FastAPI imports OpenTelemetry's interface for itself, and redis-py its metrics; of ours nobody imports any."""
    behind = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf", "requests")
    found = modules(OFF, tmp_path)
    assert "cotacoes.web.request_spans" in found
    assert [name for name in found if name.startswith((*behind, "cotacoes.adapters.tracing"))] == []
    assert [name for name in modules(WITHOUT_FASTAPI, tmp_path) if name.startswith("opentelemetry")] == []


def test_without_a_collector_no_tracing_code_is_in_the_way() -> None:
    assert isinstance(new_app(), RequestLimits)
    assert tracing.call_span("GET", "http://far/") is tracing.query_span("newest", "shard1")


def test_without_a_collector_no_traceparent_is_sent() -> None:
    assert "traceparent" not in called("http://far/quote", 200)[0].headers


def test_an_invalid_setting_ends_a_service_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "far:4318")
    with (
        pytest.raises(SettingError, match="OTEL_EXPORTER_OTLP_ENDPOINT is invalid"),
        tracing_to_collector("quote_service"),
    ):
        raise AssertionError("it was started")
