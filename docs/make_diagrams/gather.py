"""How branches end, from a scatter/gather that asks branches of every kind, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit.fake_event_loop import run

from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.resilience import BreakerState, CallResult, CircuitOpenError, ServedFrom
from cotacoes.patterns.scatter_gather.gather import scatter_gather
from cotacoes.patterns.scatter_gather.gather_result import Branch, BranchStatus

DEADLINE_S, RESERVE_S, GRACE_S, PLACES = 2.0, 0.2, 0.1, 4
LOOKS = {BranchStatus.OK: "done", BranchStatus.STALE: "done", BranchStatus.SKIPPED: "active"}


async def _quick() -> str:
    await asyncio.sleep(0.3)
    return "67012.34"


async def _cached() -> CallResult[str]:
    await asyncio.sleep(0.5)
    return CallResult("67011.90", ServedFrom.CACHE, 4.0, 2, BreakerState.OPEN, "circuit")


async def _failing() -> str:
    await asyncio.sleep(0.4)
    raise ShardUnavailableError("shard1 is not reachable")


async def _refused() -> str:
    await asyncio.sleep(0.02)
    raise CircuitOpenError("shard2", BreakerState.OPEN, 1.0)


async def _slow() -> str:
    await asyncio.sleep(60)
    return "too late"


async def _stubborn() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(1)
    return "too late"


BRANCHES: dict[str, Callable[[], Awaitable[Any]]] = {
    "quick": _quick,
    "cached": _cached,
    "slow": _slow,
    "stubborn": _stubborn,
    "refused": _refused,
    "failing": _failing,
    "slow too": _slow,
    "last": _slow,
    "never": _quick,
}


def diagram() -> str:
    """A bar for each branch of the plan, from its beginning to its end, in milliseconds."""
    branches = run(_gathered())
    lines = ["gantt", "    dateFormat x", "    axisFormat %S.%L s", "    todayMarker off"]
    for branch in branches:
        start, end = round(branch.started_s * 1000), round((branch.started_s + branch.elapsed_s) * 1000)
        look = LOOKS.get(branch.status, "crit")
        lines += [f"    section {branch.name}", f"    {branch.status.value} :{look}, {start}, {max(end, start + 1)}"]
    return "\n".join(lines) + "\n"


async def _gathered() -> list[Branch[Any]]:
    result = await scatter_gather(
        BRANCHES,
        deadline=DEADLINE_S,
        reserve=RESERVE_S,
        grace=GRACE_S,
        max_concurrency=PLACES,
        clock=asyncio.get_running_loop().time,
    )
    await asyncio.sleep(2)  # until the stubborn one has ended
    return list(result.branches.values())
