"""Real services and a real receiver of OTLP: one report is one trace over processes; a bad collector costs nobody."""

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.contract.conftest import Placed
from tests.system.conftest import free_port_block, wait_until

from cotacoes.config import PORT_OFFSETS
from cotacoes.up.supervision import die_with_parent

LIMIT_S = 60.0  # of what only a bug keeps from happening
LIBRARY_STOP_S = 30.0  # is what OpenTelemetry's own end waits for
STARTED = ("tracing.started", "service.started")
COINS = "bitcoin:shard1,ethereum:shard2"


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]


@dataclass
class Receiver:
    """Takes spans over OTLP/HTTP, on a port of its own."""

    url: str
    spans: list[ReceivedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                said = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                self.spans.append(ReceivedSpan(service, span.name, *ids, said))

    def children(self, parent: ReceivedSpan) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.parent == parent.id]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            received.take(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Running:
    """One service as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=LIMIT_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def is_alive(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            return self.get("/livez")[0] == 200
        return False

    def shows(self, metric: bytes) -> bool:
        return metric in self.get("/metrics")[1]

    def stop(self, within_s: float = LIMIT_S) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def said(self) -> list[dict[str, Any]]:
        """Its log; whatever is not a line of ours in it fails."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a service; all share ports and folder, as those of one system do."""
    port_base = free_port_block()
    running: list[Running] = []

    def begin(name: str, **variables: str) -> Running:
        unwanted = re.compile("OTEL_|COTACOES_|.*_proxy$", re.IGNORECASE)
        environment = {name: text for name, text in os.environ.items() if not unwanted.match(name)}
        environment |= {"COTACOES_PORT_BASE": str(port_base), "COTACOES_DATA": str(tmp_path / "data"), **variables}
        log = tmp_path / f"{name}.log"
        launcher = die_with_parent.launcher(signal.SIGKILL)
        command = [*launcher, sys.executable, "-P", "-m", "cotacoes", name.replace("_", "-")]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, env=environment, stderr=stderr, stdout=subprocess.DEVNULL)
        one = Running(process, f"http://127.0.0.1:{port_base + PORT_OFFSETS[name]}", log)
        running.append(one)
        wait_until(f"{name} lives", one.is_alive, LIMIT_S)
        return one

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()


def test_a_report_is_one_trace_over_services_and_shards(start: Start, receiver: Receiver, placed: Placed) -> None:
    first, second = placed(COINS)
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "COTACOES_SHARD1_DSN": first,
        "COTACOES_SHARD2_DSN": second,
        "COTACOES_COINS": COINS,
        "COTACOES_FAILURE_RATE": "0",
        "COTACOES_REPORT_DEADLINE_S": "10",
        "COTACOES_REQUEST_DEADLINE_S": "20",
    }
    start("external_service", **settings)
    quote_service = start("quote_service", **settings)
    aggregator = start("aggregator_service", **settings)
    wait_until("a price", lambda: quote_service.get("/cotacao_atual/bitcoin")[0] == 200, LIMIT_S)

    status, body = aggregator.get("/report/full?coins=bitcoin&note=hunter2")
    assert status == 200
    report = json.loads(body)
    assert report["complete"], report["missing"]

    def arrived() -> list[ReceivedSpan]:
        return [span for span in receiver.spans if span.name == "GET /report/full"]

    (root,) = wait_until("the report's span", arrived, LIMIT_S)
    wait_until("the spans of those who were asked", lambda: len(trace_of(receiver, root)) >= 6, LIMIT_S)
    assert (root.service, root.parent) == ("aggregator_service", "")
    branches = {span.name: span for span in receiver.children(root)}
    assert set(branches) == {f"branch {name}" for name in ("quote_service", "shard1")}
    asking = branches["branch quote_service"]
    (call,) = receiver.children(asking)
    (served,) = receiver.children(call)
    assert (asking.service, call.service) == ("aggregator_service", "aggregator_service")
    assert (served.service, served.name) == ("quote_service", "GET /v1/overview")
    (query,) = receiver.children(branches["branch shard1"])
    assert (query.name, query.attributes["db.system.name"]) == ("newest shard1", "postgresql")

    (polled, *_) = [span for span in receiver.spans if span.service == "external_service"]
    assert polled.name == "GET /quote"
    assert [span.service for span in receiver.spans if span.id == polled.parent] == ["quote_service"]

    everything = b"".join(receiver.bodies)
    coin = report["coins"]["bitcoin"]
    prices = {log["price"] for log in (coin["current"], *coin["last_logs"])}
    secrets = {"hunter2", "postgresql://", "password", "SELECT", *prices}
    assert {secret for secret in secrets if secret.encode() in everything} == set()
    assert aggregator.stop() == quote_service.stop() == 0


def trace_of(receiver: Receiver, root: ReceivedSpan) -> list[ReceivedSpan]:
    return [span for span in receiver.spans if span.trace == root.trace]


def test_a_frozen_collector_delays_neither_a_request_nor_a_stop(start: Start) -> None:
    """Its answer is waited for two minutes, in a thread: code that waited for that thread would be noticed."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        frozen.settimeout(LIMIT_S)
        service = start(
            "external_service",
            COTACOES_FAILURE_RATE="0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{frozen.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_TIMEOUT="120",
            OTEL_BSP_SCHEDULE_DELAY="1",
            OTEL_BSP_MAX_QUEUE_SIZE="4",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
        )
        assert service.get("/quote")[0] == 200
        held, _ = frozen.accept()
        with held:
            assert {service.get("/quote")[0] for _ in range(50)} == {200}
            assert b'cotacoes_spans_total{outcome="dropped"} 46.0' in service.get("/metrics")[1]
            assert service.stop(LIBRARY_STOP_S - 10.0) == 0
    assert [line["event"] for line in service.said()] == [*STARTED, "service.stopped", "collector.abandoned"]


def test_an_unreachable_collector_is_logged_once_however_many_batches_are_lost(start: Start) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        service = start(
            "external_service",
            COTACOES_FAILURE_RATE="0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{nobody.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_TIMEOUT="0.1",
            OTEL_BSP_SCHEDULE_DELAY="1",
        )
        for lost in (1, 2, 3):
            assert service.get("/quote")[0] == 200
            failed = f'cotacoes_spans_total{{outcome="failed"}} {lost}.0'.encode()
            wait_until("a batch is lost", functools.partial(service.shows, failed), LIMIT_S)
        assert service.stop() == 0
    assert [line["event"] for line in service.said()] == [*STARTED, "collector.away", "service.stopped"]
