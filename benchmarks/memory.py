"""`memory`: what our own Python processes, `up` and the five services, hold together.

PSS where the kernel tells it: a page that several processes share counts in each by its part, so the sum is what the
machine gives. RSS counts such a page in full in each process; it is the row beside it, and stands in where there is no
PSS. The databases and Redis are not in it.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from benchmarks.figure import Aim, Effort, Row
from benchmarks.system import python_parts, running

AIM = Aim(450.0)
_MB = 1_000_000


def measure(effort: Effort) -> list[Row]:
    runs = [_run(effort.seconds) for _ in range(effort.runs)]
    rss = [sum(rss for _, rss in run.values()) for run in runs]
    pss = [[pss for pss, _ in run.values() if pss is not None] for run in runs]
    if any(len(found) < len(run) for found, run in zip(pss, runs, strict=True)):
        return [Row("memory", "MB RSS", rss, AIM)]
    total = Row("memory", "MB PSS", [sum(found) for found in pss], AIM)
    parts = [Row(f"memory {part}", "MB PSS", [run[part][0] or 0.0 for run in runs]) for part in runs[0]]
    return [total, *parts, Row("memory as RSS", "MB RSS", rss)]


def _run(settle_s: float) -> dict[str, tuple[float | None, float]]:
    with running() as system:
        time.sleep(settle_s)
        return {name: _megabytes(process) for name, process in python_parts(system.pids()).items()}


def _megabytes(process: psutil.Process) -> tuple[float | None, float]:
    """PSS, None where it is not to be read, and RSS."""
    try:
        pss = read_pss(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
    except OSError:
        pss = None
    return None if pss is None else pss / _MB, process.memory_info().rss / _MB


def read_pss(rollup: str) -> int | None:
    """Bytes, from the text of `smaps_rollup`; None where it has no such line."""
    for line in rollup.splitlines():
        name, _, amount = line.partition(":")
        if name == "Pss":
            return 1024 * int(amount.split()[0])
    return None
