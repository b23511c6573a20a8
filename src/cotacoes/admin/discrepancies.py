"""`cotacoes ledger`: list, export and accept the discrepancies of one coin or of all."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cotacoes.adapters.postgres.discrepancies import Discrepancy, Orphan, PostgresDiscrepancies
from cotacoes.admin import directory
from cotacoes.config import Settings
from cotacoes.errors import FenceClosedError, ShardUnavailableError
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.shard import Unaccepted

PAGE_ORPHANS = 1_000


async def found(settings: Settings, coin: str | None) -> list[Discrepancy]:
    """The discrepancies of one coin or of all, oldest first. ShardUnavailableError if a shard is away."""
    known = await directory.read(settings)
    if coin is not None:
        require_coin(coin, known.homes)
    every: list[Discrepancy] = []
    for shard, dsn in directory.dsns(settings, known).items():
        async with PostgresDiscrepancies(shard, dsn) as one:
            every += await one.found(coin)
    return sorted(every, key=lambda one: (one.noted_at, one.coin, one.last))


async def orphans(settings: Settings, coin: str) -> AsyncIterator[Orphan]:
    """The orphans of a coin, ascending."""
    shard, dsn = await _home(settings, coin)
    async with PostgresDiscrepancies(shard, dsn) as one:
        after = Position(0, 0)
        while page := await one.orphans(coin, after, PAGE_ORPHANS):
            for orphan in page:
                yield orphan
            after = page[-1].quote.position


async def accept(settings: Settings, coin: str) -> Unaccepted:
    """Accept the discrepancies of a coin; returns how many."""
    shard, dsn = await _home(settings, coin)
    async with PostgresDiscrepancies(shard, dsn) as one:
        try:
            return await one.accept(coin)
        except FenceClosedError as error:
            raise ShardUnavailableError(f"a move of {coin} is about to end: try again in a moment") from error


async def _home(settings: Settings, coin: str) -> tuple[str, str]:
    known = await directory.read(settings)
    shard = known.homes[require_coin(coin, known.homes)].shard
    return shard, directory.dsns(settings, known)[shard]
