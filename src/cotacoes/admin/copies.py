"""The copies of a coin on all shards: found, claimed by one administrator at a time, compared by content, removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TypeVar

from cotacoes.adapters.postgres.moving_shard import PostgresMovingShard
from cotacoes.admin import directory
from cotacoes.config import Settings
from cotacoes.errors import CopyDiffersError, SettingError, ShardUnavailableError
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.moving import Copy, MovingShard

DIRECTORY_SHARD = directory.DIRECTORY_SHARD
CLAIM_TRIES_MAX = 15
CLAIM_WAIT_S = 0.2  # a server needs a moment to notice that whoever held the claim was killed
PURGE_QUOTES = 10_000  # deleted in one statement: some 20 ms under the lock of a coin that nobody asks for here

A = TypeVar("A")
B = TypeVar("B")


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[dict[str, MovingShard], set[str]]]:
    """Every shard that answers, by name, and the names of those that do not."""
    dsns = directory.dsns(settings, await directory.read(settings))
    shards: dict[str, MovingShard] = {}
    async with contextlib.AsyncExitStack() as stack:

        async def enter(name: str, dsn: str) -> None:
            with contextlib.suppress(ShardUnavailableError):
                shards[name] = await stack.enter_async_context(PostgresMovingShard(name, dsn))

        await asyncio.gather(*(enter(name, dsn) for name, dsn in dsns.items()))
        yield shards, set(dsns) - set(shards)


async def copies_of(coin: str, shards: Mapping[str, MovingShard]) -> tuple[dict[str, Copy], set[str]]:
    """Every copy of the coin, by shard, and the shards that do not answer."""
    copies: dict[str, Copy] = {}
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


async def claim(coin: str, coin_id: int, shard: MovingShard) -> None:
    """Be the only one who moves or removes this coin's copy here; SettingError where another one is at it."""
    for _ in range(CLAIM_TRIES_MAX):
        if await shard.claim(coin_id):
            return
        await asyncio.sleep(CLAIM_WAIT_S)
    raise SettingError(f"{coin} is being moved or purged on {shard.name} already: let that end first")


async def both(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """What two shards answer at once. Each call is ended before the first error is raised."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other


async def compare_left(coin_id: int, left: MovingShard, home: MovingShard) -> None:
    """CopyDiffersError unless the home holds all that a copy left behind does, days aside that either has dropped.

    A copy that was purged in part is compared from the first quote that it still has.
    """
    at_home = {day.day: day for day in await home.days(coin_id)}
    for day in await left.days(coin_id):
        other = at_home.get(day.day)
        if other is not None and (day.dropped_at or other.dropped_at):
            continue
        before = Position(day.first.epoch, day.first.seq - 1)
        here, there = await both(left.content(coin_id, before, day.last), home.content(coin_id, before, day.last))
        if here.get(day.day) != there.get(day.day):
            raise CopyDiffersError(
                f"{home.name} does not hold what {left.name} does of {day.day}: nothing is deleted on {left.name}"
            )


async def remove(coin: str, copy: Copy, shards: Mapping[str, MovingShard], left: str, home: tuple[str, int]) -> None:
    """Delete a copy that is nobody's home, in steps that hold no lock for long. `home` is the shard and the placement.

    The directory is brought up to date first: one that still named this shard would let a new fence be made here, and
    the coin would have two homes. ShardUnavailableError where it is away.
    """
    if DIRECTORY_SHARD not in shards:
        raise ShardUnavailableError(f"{DIRECTORY_SHARD}, with the directory, does not answer: nothing is deleted")
    await shards[DIRECTORY_SHARD].place(coin, *home)
    while await shards[left].purge(copy.coin_id, copy.placement, PURGE_QUOTES):
        pass
