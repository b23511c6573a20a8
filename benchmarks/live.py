"""`live`: how old a quote is when it reaches a subscriber, at 50 quotes a second of each coin.

What is wanted begins when quote_service has the source's answer, but no message carries that moment. It carries
`observed_at`, the source's. So the simulated market is set to a tick of a microsecond (1 ms at 1,000 times the speed),
and then `observed_at` is the wall clock at the moment the source begins its answer: all that is measured is what is
wanted plus the making, sending and reading of that answer. The figure is thus an upper bound, held against the aim as
it stands. How large the part too much is, the row `source's answer` tells: the same client reads the same route and
looks at the clock when it has the prices. All processes read the one wall clock of this machine.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.helper_process import helper_process
from benchmarks.system import System, running
from cotacoes.adapters.http_client import HttpClient
from cotacoes.quote_service.source import HttpSource

P50_AIM = Aim(3.0)
P99_AIM = Aim(10.0)
PUSHED_P50_AIM = Aim(4.0)
PUSHED_P99_AIM = Aim(12.0)
RATE = 50.0  # quotes/s of each coin
RATE_SHARE_MIN = 0.9  # below that the figure is one of another load
SETTLE_S = 3.0
LISTENER_MARGIN_S = 15.0  # its start and its decoding
ANSWERS = 200
ANSWERS_INTERVAL_S = 0.005
FETCH_DEADLINE_S = 1.0
BODY_BYTES_MAX = 65_536

_SETTINGS = {"POLL_INTERVAL_S": str(1 / RATE), "TICK_MS": "1", "SPEED": "1000", "FAILURE_RATE": "0"}


def measure(effort: Effort) -> list[Row]:
    with running(**_SETTINGS) as system:
        time.sleep(min(SETTLE_S, effort.seconds))
        runs = [_run(system, effort.seconds) for _ in range(effort.runs)]
        gateway = f"ws://127.0.0.1:{system.port('gateway_service')}/v1/ws"
        pushed = [ages_ms(_times(system, gateway, effort.seconds)) for _ in range(effort.runs)]
        answers = [asyncio.run(_answers_ms(system)) for _ in range(effort.runs)]
    rates = [rate for _, rate, _ in runs]
    if min(rates) < RATE_SHARE_MIN * RATE:
        raise MeasureError(f"only {min(rates):.1f} quotes/s of each coin were reached, {RATE:g} are meant")
    return [
        Row("live p50", "ms", [percentile(ages, 50) for ages, _, _ in runs], P50_AIM),
        Row("live p99", "ms", [percentile(ages, 99) for ages, _, _ in runs], P99_AIM),
        Row("live at a WebSocket client p50", "ms", [percentile(ages, 50) for ages in pushed], PUSHED_P50_AIM),
        Row("live at a WebSocket client p99", "ms", [percentile(ages, 99) for ages in pushed], PUSHED_P99_AIM),
        Row("live source's answer p50", "ms", [percentile(found, 50) for found in answers]),
        Row("live source's answer p99", "ms", [percentile(found, 99) for found in answers]),
        Row("live to the commit, mean", "ms", [committed for _, _, committed in runs]),
        Row("live rate of each coin", "quotes/s", rates),
    ]


def _run(system: System, seconds: float) -> tuple[list[float], float, float]:
    """Ages in ms, quotes/s of each coin, and the mean time in ms from the source's answer to the commit in the log."""
    before = _record_seconds(system)
    times = _times(system, system.redis_url(), seconds)
    spent_s, count = (now - then for now, then in zip(_record_seconds(system), before, strict=True))
    return ages_ms(times), min(map(rate_of, times.values())), 1000 * spent_s / count


def _times(system: System, url: str, seconds: float) -> dict[str, list[tuple[int, int]]]:
    """By coin, when each quote that came over `url` was observed and when it arrived."""
    with helper_process("benchmarks.live_listener", url, str(seconds), *system.quotes) as listener:
        try:
            output, _ = listener.communicate(timeout=seconds + LISTENER_MARGIN_S)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"the listener did not end within {LISTENER_MARGIN_S:g} s of its time") from error
    times: dict[str, list[tuple[int, int]]] = json.loads(output or "{}")
    if len(times) < len(system.quotes):
        raise MeasureError("the listener did not hear every coin")
    return times


def ages_ms(times: Mapping[str, Sequence[tuple[int, int]]]) -> list[float]:
    """Of all coins' quotes, from (observed, arrived) in microseconds."""
    return [(arrived - observed) / 1000 for pairs in times.values() for observed, arrived in pairs]


def rate_of(pairs: Sequence[tuple[int, int]]) -> float:
    """Quotes a second, by the times at which they were observed; 0 where there are not two."""
    elapsed_us = pairs[-1][0] - pairs[0][0]
    return 1_000_000 * (len(pairs) - 1) / elapsed_us if elapsed_us else 0.0


def _record_seconds(system: System) -> tuple[float, float]:
    """Sum and count of quote_service's own histogram, from the source's answer to the commit."""
    with urllib.request.urlopen(f"{system.url('quote_service')}/metrics", timeout=FETCH_DEADLINE_S) as answer:
        text = answer.read().decode()
    name = "cotacoes_record_duration_seconds"
    return read_metric(text, f"{name}_sum"), read_metric(text, f"{name}_count")


def read_metric(text: str, name: str) -> float:
    """The value of a metric without labels in Prometheus' text format."""
    found = read_metrics(text, name)
    if len(found) != 1:
        raise MeasureError(f"quote_service has no metric {name}")
    return found[0]


def read_metrics(text: str, name: str) -> list[float]:
    """The values of a metric, one for each set of labels."""
    lines = (line.rpartition(" ") for line in text.splitlines())
    return [float(value) for found, _, value in lines if found.partition("{")[0] == name]


async def _answers_ms(system: System) -> list[float]:
    """From `observed_at` to the prices read, with the client of quote_service itself."""
    found: list[float] = []
    async with HttpClient(deadline_s=FETCH_DEADLINE_S, bytes_max=BODY_BYTES_MAX) as client:
        source = HttpSource(client, system.url("external_service"), {"bitcoin", "ethereum"})
        for _ in range(ANSWERS):
            fetched = await source.fetch()
            now = datetime.now(UTC)
            found += [1000 * (now - observation.observed_at).total_seconds() for observation in fetched.observations]
            await asyncio.sleep(ANSWERS_INTERVAL_S)
    return found
