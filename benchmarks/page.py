"""`page`: what many open pages cost the gateway: ten coins at ten quotes a second each, and the state of the system.

A viewer is a WebSocket that subscribes as the page does. A page counts as late if nothing came to it for a second; the
page itself says so after 11. With ten times as many pages the services are asked no more often: the reports that were
made for them are counted at the aggregator.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request

import psutil

from benchmarks.feed import FETCH_DEADLINE_S, cpu_s
from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.helper_process import helper_process
from benchmarks.live import read_metrics
from benchmarks.system import System, running

COINS = [f"coin-{number}" for number in range(10)]
TICK_MS = 100
PAGES, CROWD = 50, 500
CPU_AIM = Aim(50.0)
SILENT_AIM = Aim(1.0)
REPORTS_AIM = Aim(1.2)  # in 5 s; one at most, and what the edges of the time add
REPORT_EVERY_S = 5.0
SETTLE_S = 5.0
VIEWERS_MARGIN_S = 60.0


def measure(effort: Effort) -> list[Row]:
    settings = {
        "COINS": ",".join(f"{coin}:shard{number % 2 + 1}" for number, coin in enumerate(COINS)),
        "TICK_MS": str(TICK_MS),
        "FAILURE_RATE": "0",
        "SOURCE_MODE": "tape",
    }
    with running(**settings) as system:
        time.sleep(min(SETTLE_S, effort.seconds))
        runs = [_run(system, PAGES, effort.seconds) for _ in range(effort.runs)]
        crowd = _run(system, CROWD, effort.seconds)
    cpu, quotes, silent, delays, reports = (list(found) for found in zip(*runs, strict=True))
    return [
        Row(f"page, {PAGES} open", "% of a core", cpu, CPU_AIM),
        Row(f"page, {PAGES} open: longest silence", "s", silent, SILENT_AIM),
        Row(f"page, {PAGES} open: quotes to each", "quotes/s", [count / PAGES for count in quotes]),
        Row(f"page, {PAGES} open: record to arrival p50", "ms", [percentile(found, 50) for found in delays]),
        Row(f"page, {PAGES} open: record to arrival p99", "ms", [percentile(found, 99) for found in delays]),
        Row(f"page, {PAGES} open: reports", "in 5 s", reports, REPORTS_AIM),
        Row(f"page, {CROWD} open: reports", "in 5 s", [crowd[4]], REPORTS_AIM),
        Row(f"page, {CROWD} open", "% of a core", [crowd[0]]),
        Row(f"page, {CROWD} open: quotes to each", "quotes/s", [crowd[1] / CROWD]),
        Row(f"page, {CROWD} open: longest silence", "s", [crowd[2]]),
    ]


def _run(system: System, pages: int, seconds: float) -> tuple[float, float, float, list[float], float]:
    """Percent of a core, quotes a second to all, the longest silence, the delays at one page, and reports in 5 s."""
    process = psutil.Process(system.pids()["gateway_service"])
    url = f"ws://127.0.0.1:{system.port('gateway_service')}/v1/ws"
    with helper_process("benchmarks.page_viewers", url, str(pages), str(seconds), *COINS) as viewers:
        began_s, spent_s, made = time.monotonic(), cpu_s(process), _reports(system)
        try:
            output, _ = viewers.communicate(timeout=seconds + VIEWERS_MARGIN_S)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"{pages} pages did not end within {VIEWERS_MARGIN_S:g} s of their time") from error
        elapsed_s = time.monotonic() - began_s
        share = 100 * (cpu_s(process) - spent_s) / elapsed_s
        reports = (_reports(system) - made) / elapsed_s * REPORT_EVERY_S
    found = json.loads(output or "{}")
    if not found.get("delays_ms"):
        raise MeasureError("no quote came to the pages")
    return share, found["quotes"] / seconds, found["silent_s"], found["delays_ms"], reports


def _reports(system: System) -> float:
    address = f"{system.url('aggregator_service')}/metrics"
    with urllib.request.urlopen(address, timeout=FETCH_DEADLINE_S) as answer:
        return sum(read_metrics(answer.read().decode(), "cotacoes_reports_total"))
