"""`hostile`: what one client, or the source, can take from everybody else by sending without measure.

For each: how many quotes of a coin are recorded in 15 s while one a second is due, the p99 of an ordinary client of the
same service, that against the p99 of a quiet time just before, and how much the service grew. The ordinary client asks
50 times a second for the current quote; it and the attackers are processes of this machine, and share its cores.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.helper_process import helper_process
from benchmarks.live import read_metrics
from benchmarks.system import System, running
from cotacoes.up import control

P99_AIM = Aim(50.0)
TO_QUIET_AIM = Aim(10.0)
GROWTH_AIM = Aim(16.0)
QUIET_S_MAX = 5.0
ASK_INTERVAL_S = 0.02
ANSWER_DEADLINE_S = 20.0
SOURCE = "source"
PATHS = {"quote_service": "/cotacao_atual/bitcoin", "gateway_service": "/v1/quotes/bitcoin/current"}


@dataclass(frozen=True)
class Case:
    """What is done, and to whom."""

    name: str
    kind: str
    service: str


CASES = (
    Case("one pipelining", "pipelining", "quote_service"),
    Case("four pipelining", "pipelining-four", "quote_service"),
    Case("empty continuations", "continuations", "gateway_service"),
    Case("pongs", "pongs", "gateway_service"),
    Case("a burst of frames", "burst", "gateway_service"),
    Case("unknown coins asked for", "unknown-coins", "gateway_service"),
    Case("unknown coins of the source", SOURCE, "quote_service"),
)


@dataclass(frozen=True)
class Outcome:
    """Of one run."""

    quotes: float
    quiet_ms: float
    p99_ms: float
    growth_mb: float


def measure(effort: Effort) -> list[Row]:
    rows: list[Row] = []
    with running(FAILURE_RATE="0") as system:
        for case in CASES:
            runs = [_attacked(system, case, effort.seconds) for _ in range(effort.runs)]
            rows += rows_of(case.name, runs, effort.seconds)
    return rows


def rows_of(name: str, runs: Sequence[Outcome], seconds: float) -> list[Row]:
    """The rows of one case."""
    return [
        Row(f"hostile {name}: quotes", f"of {seconds:g}", [run.quotes for run in runs], Aim(seconds, is_floor=True)),
        Row(f"hostile {name}: p99", "ms", [run.p99_ms for run in runs], P99_AIM),
        Row(f"hostile {name}: p99", "of quiet", [run.p99_ms / run.quiet_ms for run in runs], TO_QUIET_AIM),
        Row(f"hostile {name}: growth", "MB RSS", [run.growth_mb for run in runs], GROWTH_AIM),
    ]


def _attacked(system: System, case: Case, seconds: float) -> Outcome:
    quiet_ms = percentile(_latencies_ms(system, case.service, min(QUIET_S_MAX, seconds)), 99)
    process = psutil.Process(system.pids()[case.service])
    rss = process.memory_info().rss
    with _attack(system, case, seconds):
        recorded = _wait_for_a_quote(system)
        answers = _latencies_ms(system, case.service, seconds + 0.5)  # and half the time between two quotes
        recorded = _recorded(system) - recorded
        grown = process.memory_info().rss - rss
    return Outcome(recorded, quiet_ms, percentile(answers, 99), grown / 1_000_000)


@contextlib.contextmanager
def _attack(system: System, case: Case, seconds: float) -> Iterator[None]:
    if case.kind != SOURCE:
        port = str(system.port(case.service))  # it ends by itself too, soon after the measure
        with helper_process("benchmarks.hostile_clients", case.kind, port, f"{seconds + ANSWER_DEADLINE_S}"):
            yield
        return
    control.ask(system.data, "stop", "external_service")
    try:
        with helper_process("benchmarks.hostile_source", str(system.port("external_service"))):
            yield
    finally:
        control.ask(system.data, "start", "external_service")


def _latencies_ms(system: System, service: str, seconds: float) -> list[float]:
    """How long each answer took an ordinary client, in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", system.port(service), timeout=ANSWER_DEADLINE_S)
    found: list[float] = []
    ends = time.monotonic() + seconds
    with contextlib.closing(connection):
        while (asked := time.monotonic()) < ends:
            connection.request("GET", PATHS[service])
            connection.getresponse().read()
            found.append(1000 * (time.monotonic() - asked))
            time.sleep(ASK_INTERVAL_S)
    return found


def _wait_for_a_quote(system: System) -> float:
    """Return right after one was recorded: how many there are by now."""
    before, due = _recorded(system), time.monotonic() + ANSWER_DEADLINE_S
    while (now := _recorded(system)) == before:
        if time.monotonic() > due:
            raise MeasureError(f"nothing was recorded for {ANSWER_DEADLINE_S:g} s")
        time.sleep(ASK_INTERVAL_S)
    return now


def _recorded(system: System) -> float:
    """The quotes of each coin, the fewer of the two."""
    connection = http.client.HTTPConnection("127.0.0.1", system.port("quote_service"), timeout=ANSWER_DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return min(read_metrics(connection.getresponse().read().decode(), "cotacoes_quotes_recorded_total"))
