"""The states of a coin's fence on one shard, from a shard in memory: every step of a move is tried in every state.

The shard in memory passes the contract tests that the SQL functions pass, so what it refuses they refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from cotacoes.errors import CopyRefusedError
from cotacoes.patterns.sharding.ledger_facts import CoinCopy
from cotacoes.testing.memory_move import MemoryMovingShard
from cotacoes.testing.memory_shard import MemoryShard

COIN, COIN_ID, PLACEMENT, NOON = "bitcoin", 1, 5, datetime(2026, 11, 24, 12, tzinfo=UTC)
NONE, GIVEN_UP = "none", "given_up"
Step = Callable[[MemoryMovingShard], Awaitable[object]]


async def _open(shard: MemoryMovingShard) -> None:
    source = await shard.copy(COIN) or CoinCopy(COIN_ID, "closed", PLACEMENT)
    await shard.open(COIN_ID, PLACEMENT, source, 0)


async def _purge(shard: MemoryMovingShard) -> None:
    copy = await shard.copy(COIN)
    await shard.purge(COIN_ID, copy.placement if copy else PLACEMENT, 1)


STEPS: dict[str, Step] = {
    "begin": lambda shard: shard.begin(COIN_ID, COIN, PLACEMENT),
    "open": _open,
    "close": lambda shard: shard.close(COIN_ID, PLACEMENT),
    "reopen": lambda shard: shard.reopen(COIN_ID, PLACEMENT),
    "leave": lambda shard: shard.leave(COIN_ID, PLACEMENT, "shard2"),
    "give_up": lambda shard: shard.give_up(COIN_ID, PLACEMENT),
    "purge": _purge,
}


def diagram() -> str:
    """An arrow for each step that changes the state; steps that are refused or change nothing have none."""
    arrows: dict[tuple[str, str], list[str]] = {}
    paths: dict[str, tuple[str, ...]] = {NONE: ()}
    for state in (unexplored := [NONE]):
        for step in STEPS:
            after = asyncio.run(_state_after((*paths[state], step)))
            if after in (None, state):
                continue
            arrows.setdefault((state, after), []).append(step)
            if after not in paths:
                paths[after] = (*paths[state], step)
                unexplored.append(after)
    lines = ["stateDiagram-v2", "    [*] --> none"]
    lines += [f"    {before} --> {after}: {', '.join(steps)}" for (before, after), steps in arrows.items()]
    return "\n".join(lines) + "\n"


async def _state_after(steps: tuple[str, ...]) -> str | None:
    """The state after these steps on an empty shard; None if the last one is refused."""
    shard = MemoryMovingShard(MemoryShard("shard1", []), COIN, now=lambda: NOON)
    for number, step in enumerate(steps, start=1):
        try:
            await STEPS[step](shard)
        except CopyRefusedError:
            assert number == len(steps), f"{steps} leads nowhere"
            return None
    copy = await shard.copy(COIN)
    if copy is None:
        return NONE
    return GIVEN_UP if copy.placement < PLACEMENT else copy.state
