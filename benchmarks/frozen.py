"""`frozen`: what subscribers notice while a shard stands still: how old a quote is when it reaches one of them.

As in the `live` figure, at 50 quotes a second of each coin, but for ten seconds in which every process of shard1 is
stopped by `cotacoes freeze shard1`, so that it neither answers nor refuses. Only the coins of that shard are looked at:
they are published 50 ms after their commit for as long as it takes to find out, and straight after the commit then.
"""

from __future__ import annotations

import json
import subprocess
import time

from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.helper_process import helper_process
from benchmarks.live import LISTENER_MARGIN_S, RATE, RATE_SHARE_MIN, SETTLE_S, ages_ms, rate_of
from benchmarks.system import System, running
from cotacoes.up import control

AIM = Aim(60.0)
COIN, SHARD = "bitcoin", "shard1"
LISTENER_START_S = 1.0  # until it hears; the shard is frozen then
_SETTINGS = {"POLL_INTERVAL_S": str(1 / RATE), "TICK_MS": "1", "SPEED": "1000", "FAILURE_RATE": "0"}  # as `live` has it


def measure(effort: Effort) -> list[Row]:
    quiet, frozen = [], []
    with running(**_SETTINGS) as system:
        for _ in range(effort.runs):
            time.sleep(min(SETTLE_S, effort.seconds))
            quiet.append(_run(system, effort.seconds, is_frozen=False))
            time.sleep(min(SETTLE_S, effort.seconds))
            frozen.append(_run(system, effort.seconds, is_frozen=True))
    return [
        Row("shard frozen, p99", "ms", [percentile(ages, 99) for ages in frozen], AIM),
        Row("shard not frozen, p99", "ms", [percentile(ages, 99) for ages in quiet]),
        Row("shard frozen, p50", "ms", [percentile(ages, 50) for ages in frozen]),
        Row("shard not frozen, p50", "ms", [percentile(ages, 50) for ages in quiet]),
        Row("shard frozen, at most", "ms", [max(ages) for ages in frozen]),
    ]


def _run(system: System, seconds: float, *, is_frozen: bool) -> list[float]:
    """Ages in ms of the quotes that were observed in so many seconds, from the freezing on."""
    url = system.redis_url()
    with helper_process("benchmarks.live_listener", url, str(seconds + LISTENER_START_S), COIN) as listener:
        time.sleep(LISTENER_START_S)
        since_us = time.time_ns() // 1000
        try:
            if is_frozen:
                control.ask(system.data, "freeze", SHARD)
            output, _ = listener.communicate(timeout=seconds + LISTENER_START_S + LISTENER_MARGIN_S)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"the listener did not end within {LISTENER_MARGIN_S:g} s of its time") from error
        finally:
            if is_frozen:
                control.ask(system.data, "start", SHARD)
    heard = json.loads(output or "{}").get(COIN, [])
    pairs = [(observed, arrived) for observed, arrived in heard if observed >= since_us]
    if len(pairs) < 2 or rate_of(pairs) < RATE_SHARE_MIN * RATE:
        raise MeasureError(f"{len(pairs)} quotes were heard in {seconds:g} s, {RATE:g} a second are meant")
    return ages_ms({COIN: pairs})
