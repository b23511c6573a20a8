"""`tape`: quotes a second from the tape to the shards and to Redis, all on this machine, and that memory is flat.

A recorded market is played in a loop, as fast as it is taken. Counted are the quotes that the shards have answered for
and those that were published, over the same seconds; memory is that of the two services which all prices go through.
"""

from __future__ import annotations

import time
import urllib.request

import psutil

from benchmarks import recorded
from benchmarks.figure import Aim, Effort, Row
from benchmarks.live import read_metrics
from benchmarks.system import System, data_folder, started

RATE_AIM = Aim(20_000.0, is_floor=True)
GROWTH_AIM = Aim(5.0)
SETTLE_S = 5.0
ASK_DEADLINE_S = 5.0
_MB = 1_000_000
_SETTINGS = {"SOURCE_MODE": "tape", "SPEED": "max", "LOOP": "1", "FAILURE_RATE": "0"}
_CARRIERS = ("external_service", "quote_service")


def measure(effort: Effort) -> list[Row]:
    with data_folder() as data:
        source = f"replay:{recorded.frames(data.parent)}"
        with started(data, SOURCE=source, COINS="bitcoin:shard1", **_SETTINGS) as system:
            system.wait_running()
            time.sleep(min(SETTLE_S, effort.seconds))
            runs = [_run(system, effort.seconds) for _ in range(effort.runs)]
    return [
        Row("tape to the shards", "quotes/s", [stored for stored, _, _ in runs], RATE_AIM),
        Row("tape to Redis", "quotes/s", [published for _, published, _ in runs], RATE_AIM),
        Row("tape memory growth a run", "MB RSS", [growth for _, _, growth in runs], GROWTH_AIM),
    ]


def _run(system: System, seconds: float) -> tuple[float, float, float]:
    memory_before, before, started_at = _memory(system), _counts(system), time.monotonic()
    time.sleep(seconds)
    after, elapsed_s = _counts(system), time.monotonic() - started_at
    stored, published = ((now - then) / elapsed_s for now, then in zip(after, before, strict=True))
    return stored, published, _memory(system) - memory_before


def _counts(system: System) -> tuple[float, float]:
    """How many quotes the shards have answered for, and how many were published."""
    with urllib.request.urlopen(f"{system.url('quote_service')}/metrics", timeout=ASK_DEADLINE_S) as answer:
        text = answer.read().decode()
    delivered = sum(read_metrics(text, "cotacoes_quotes_delivered_total"))
    return delivered, sum(read_metrics(text, "cotacoes_quotes_published_total"))


def _memory(system: System) -> float:
    pids = system.pids()
    return sum(psutil.Process(pids[name]).memory_info().rss for name in _CARRIERS) / _MB
