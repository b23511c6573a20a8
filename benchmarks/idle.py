"""`idle`: processor time of the whole system while it does its everyday work, one quote a second of each coin.

Counted over the whole family of `up`: user and system time of every process, and of those that ended and were waited
for meanwhile. The source does not fail on purpose, so that the rate is what it is called; the rate reached is a row.
The kernel tells times in ticks of 10 ms: over 30 s the sum is good to a tenth of a percent, a part's row is rougher.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import psutil

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.system import System, running
from cotacoes.up.supervision import processes

AIM = Aim(5.0)
UNIT = "% of a core"
SETTLE_S = 10.0  # the servers' own work after a first start is over by then; a smoke run waits as long as it measures


def measure(effort: Effort) -> list[Row]:
    with running(FAILURE_RATE="0") as system:
        time.sleep(min(SETTLE_S, effort.seconds))
        runs = [_run(system, effort.seconds) for _ in range(effort.runs)]
    shares = [share for share, _ in runs]
    parts = [Row(f"idle {part}", UNIT, [share[part] for share in shares]) for part in shares[0]]
    rate = Row("idle rate of each coin", "quotes/s", [rate for _, rate in runs])
    return [Row("idle", UNIT, [sum(share.values()) for share in shares], AIM), *parts, rate]


def _run(system: System, seconds: float) -> tuple[dict[str, float], float]:
    pids = system.pids()
    quotes_before, started = system.quotes.copy(), time.monotonic()
    before = cpu_seconds(pids)
    time.sleep(seconds)
    after = cpu_seconds(pids)
    elapsed_s, new = time.monotonic() - started, system.quotes - quotes_before
    if system.pids() != pids:
        raise MeasureError("a part was restarted meanwhile")
    return cpu_shares(before, after, elapsed_s), new.total() / len(system.quotes) / elapsed_s


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds so far, by part; of `up` its own process only, as the parts are its children."""
    return {
        name: sum(map(_seconds_of, [psutil.Process(pid)] if name == "up" else processes.family(pid)))
        for name, pid in pids.items()
    }


def _seconds_of(process: psutil.Process) -> float:
    """With the time of its ended children, so that nothing is lost when one ends between two readings."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def cpu_shares(before: Mapping[str, float], after: Mapping[str, float], elapsed_s: float) -> dict[str, float]:
    """Percent of one core, by part."""
    return {part: 100 * (after[part] - before[part]) / elapsed_s for part in before}
