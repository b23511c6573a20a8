"""The copies of a coin on all shards: found, claimed by one administrator at a time, compared by content, removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cotacoes.adapters.postgres.moving_shard import PostgresMovingShard
from cotacoes.adapters.postgres.shard_session import open_answering
from cotacoes.admin import directory
from cotacoes.config import Settings
from cotacoes.errors import CopyDiffersError, SettingError, ShardUnavailableError
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.ledger_facts import CoinCopy
from cotacoes.patterns.sharding.moving import MovingShard

DIRECTORY_SHARD = directory.DIRECTORY_SHARD

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class MoveLimits:
    """How much a move or purge does at once, and how long it waits for another administrator."""

    page_quotes: int = 5_000  # copied in one statement of some 50 ms on the target
    sample_quotes: int = 100  # compared row by row
    rest_quotes: int = 500  # the fence is closed for so few: one page, a few milliseconds
    rounds: int = 20  # a writer as fast as the mover leaves as much after each; closing the fence then ends it
    claim_tries: int = 15
    claim_wait_s: float = 0.2  # a server needs a moment to notice that the holder of the claim was killed
    purge_quotes: int = 10_000  # deleted in one statement: some 20 ms under the lock of a coin that is not read here


LIMITS = MoveLimits()


@contextlib.asynccontextmanager
async def open_shards(settings: Settings) -> AsyncIterator[tuple[dict[str, MovingShard], set[str]]]:
    """Every shard that answers, by name, and the names of those that do not."""
    dsns = directory.dsns(settings, await directory.read(settings))
    shards = {name: PostgresMovingShard(name, dsn) for name, dsn in dsns.items()}
    async with contextlib.AsyncExitStack() as stack:
        away = await open_answering(stack, shards.values())
        yield {name: shard for name, shard in shards.items() if name not in away}, set(away)


async def copies_of(coin: str, shards: Mapping[str, MovingShard]) -> tuple[dict[str, CoinCopy], set[str]]:
    """Every copy of the coin, by shard, and the shards that do not answer."""
    copies: dict[str, CoinCopy] = {}
    away: set[str] = set()
    for name, shard in shards.items():
        try:
            copy = await shard.copy(coin)
        except ShardUnavailableError:
            away.add(name)
        else:
            if copy is not None:
                copies[name] = copy
    return copies, away


async def claim(coin: str, coin_id: int, shard: MovingShard, *, limits: MoveLimits) -> None:
    """Acquire the right to move or remove this coin's copy here; SettingError if another administrator has it."""
    for _ in range(limits.claim_tries):
        if await shard.claim(coin_id):
            return
        await asyncio.sleep(limits.claim_wait_s)
    raise SettingError(f"{coin} is being moved or purged on {shard.name} already: wait for that to end")


async def both(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Call two shards at the same time. Both calls have ended before the first error is raised."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other


async def compare_left(coin_id: int, left: MovingShard, home: MovingShard) -> None:
    """CopyDiffersError unless the home holds all that a copy left behind holds, except days that either has dropped.

    A copy that was partly purged is compared from the first quote that it still has.
    """
    at_home = {day.day: day for day in await home.days(coin_id)}
    for day in await left.days(coin_id):
        other = at_home.get(day.day)
        if other is not None and (day.is_dropped or other.is_dropped):
            continue
        before = Position(day.first.epoch, day.first.seq - 1)
        here, there = await both(left.content(coin_id, before, day.last), home.content(coin_id, before, day.last))
        if here.get(day.day) != there.get(day.day):
            raise CopyDiffersError(
                f"{home.name} does not hold the same of {day.day} as {left.name}: nothing is deleted on {left.name}"
            )


async def remove(
    coin: str,
    copy: CoinCopy,
    shards: Mapping[str, MovingShard],
    left: str,
    home: tuple[str, int],
    *,
    limits: MoveLimits,
) -> None:
    """Delete a copy that is not the coin's home, in steps that hold no lock for long. `home` is shard and placement.

    The directory is updated first: if it still named this shard, a new fence could be made here, and the coin would
    have two homes. ShardUnavailableError if the directory is away.
    """
    if DIRECTORY_SHARD not in shards:
        raise ShardUnavailableError(f"{DIRECTORY_SHARD}, with the directory, does not answer: nothing is deleted")
    await shards[DIRECTORY_SHARD].place(coin, *home)
    while await shards[left].purge(copy.coin_id, copy.placement, limits.purge_quotes):
        pass
