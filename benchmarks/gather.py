"""`gather`: what `scatter_gather` needs for branches that return at once, beside `asyncio.gather`.

Both make a task for each branch; what ours adds is the plan, the deadline and how each branch ended. In alternation, so
that noise meets both alike.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figure import Aim, Effort, Row
from cotacoes.patterns.scatter_gather.gather import scatter_gather

AIM = Aim(3.0)
BRANCHES = 16
DEADLINE_S = 2.0
BLOCK = 50  # calls in a row, so that the clock does not count


def measure(effort: Effort) -> list[Row]:
    runs = [asyncio.run(_run(effort.seconds)) for _ in range(effort.runs)]
    return [
        Row("gather", "of asyncio.gather's", [ours / theirs for ours, theirs in runs], AIM),
        Row("gather ours", "µs", [ours for ours, _ in runs]),
        Row("gather asyncio.gather", "µs", [theirs for _, theirs in runs]),
    ]


async def _run(seconds: float) -> tuple[float, float]:
    """Microseconds of one call: ours, theirs."""
    clock = asyncio.get_running_loop().time
    plan = {f"branch {number}": _at_once for number in range(BRANCHES)}
    due = clock() + seconds
    ours = theirs = calls = 0
    while calls == 0 or clock() < due:
        began = time.perf_counter_ns()
        for _ in range(BLOCK):
            await scatter_gather(plan, deadline=DEADLINE_S, clock=clock)
        between = time.perf_counter_ns()
        for _ in range(BLOCK):
            await asyncio.gather(*(_at_once() for _ in range(BRANCHES)))
        ours += between - began
        theirs += time.perf_counter_ns() - between
        calls += BLOCK
    return ours / calls / 1000, theirs / calls / 1000


async def _at_once() -> int:
    return 1
