"""The days of a shard on PostgreSQL: made ahead, sealed, dropped and erased, packed.

Each call is whole or nothing on the server and can be made again, so whoever makes them may be killed between any two.
Only packing takes several transactions, the last of which sets the mark that it is done. What a day is due for is
decided in `schema/0004_days.sql`, where it is checked once more under the locks that it takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.schema import check_shard
from cotacoes.model.quote import Position

QUERIES = named_queries.read(__package__, "days.sql")
CONNECT_DEADLINE_S = 5.0
STATEMENT_DEADLINE_S = 600.0  # a day of 100 million quotes is read and hashed in less
SERVER_STATEMENT_DEADLINE_S = 590.0  # sooner, so that no statement goes on at the server when its connection is cut
assert SERVER_STATEMENT_DEADLINE_S < STATEMENT_DEADLINE_S


class CoinDay(NamedTuple):
    """A UTC day of a coin."""

    coin: str
    day: date


@dataclass(frozen=True)
class Sealing:
    """What came of sealing: `expected` quotes were counted as they came, `held` when the day was read."""

    is_sealed: bool
    expected: int
    held: int


@dataclass(frozen=True)
class Dropped:
    """A day that is no longer read: so many quotes. The history begins at `floor` now."""

    count: int
    floor: Position


@dataclass(frozen=True)
class Erased:
    """What was given back of a day: rows of coins that dropped it, or the whole partition."""

    count: int
    is_gone: bool


class PostgresDays:
    """The days of one shard over one connection; an async context manager. All raise ShardUnavailableError."""

    def __init__(self, shard: str, dsn: str) -> None:
        self._shard = shard
        self._session = Session(shard, dsn, connect_s=CONNECT_DEADLINE_S, deadline_s=STATEMENT_DEADLINE_S)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._session)
            await check_shard(self._shard, self._session.fetch)
            await self._fetch("limit_statements", f"{SERVER_STATEMENT_DEADLINE_S:.0f}s")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def prepare(self, first: date, last: date) -> None:
        """Make the partitions of a range of days, both ends included."""
        await self._fetch("prepare", first, last)

    async def take_charge(self) -> bool:
        """Be the only one who keeps this shard's days, until the connection ends; False where another one does."""
        ((is_taken,),) = await self._fetch("take_charge")
        return bool(is_taken)

    async def closed(self) -> list[CoinDay]:
        """The days that are to be sealed, oldest first."""
        return [CoinDay(row["coin"], row["day"]) for row in await self._fetch("closed")]

    async def seal(self, closed: CoinDay) -> Sealing | None:
        """Write the day's manifest; None where the day is not due any more. CoinMovedError."""
        (row,) = await self._fetch("seal", *closed)
        return None if row["is_sealed"] is None else Sealing(row["is_sealed"], row["expected"], row["held"])

    async def expired(self, retention_days: Mapping[str, int]) -> list[CoinDay]:
        """The sealed days beyond their coin's retention, in the order in which they are to be dropped."""
        rows = await self._fetch("expired", list(retention_days), list(retention_days.values()))
        return [CoinDay(row["coin"], row["day"]) for row in rows]

    async def drop(self, expired: CoinDay, retention_days: int) -> Dropped | None:
        """Take a day out of what is read; None where it has to stay. CoinMovedError."""
        (row,) = await self._fetch("drop", *expired, retention_days)
        return None if row["count"] is None else Dropped(row["count"], Position(row["epoch"], row["seq"]))

    async def dropped(self, before: datetime) -> list[date]:
        """The days that a coin dropped before this and that still have a partition, oldest first."""
        return [row["day"] for row in await self._fetch("dropped", before)]

    async def erase(self, day: date, before: datetime) -> Erased:
        """Give back what was dropped before this; nothing where it is in use just now."""
        (row,) = await self._fetch("erase", day, before)
        return Erased(row["count"], row["is_gone"])

    async def loose(self, over_before: datetime) -> list[date]:
        """The days over before this that are sealed for every coin and not packed, oldest first."""
        return [row["day"] for row in await self._fetch("loose", over_before)]

    async def pack(self, day: date) -> None:
        """Rebuild the day's key without room for more, and freeze its rows; readers and writers go on."""
        for row in await self._fetch("packing", day):
            await self._execute(row["sql"])

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        return await self._session.fetch(QUERIES[query], *arguments)

    async def _execute(self, sql: str) -> None:
        await self._session.execute(sql)
