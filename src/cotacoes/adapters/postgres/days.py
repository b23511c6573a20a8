"""The days of a shard on PostgreSQL: created ahead, sealed, dropped, erased and packed.

Each call is all or nothing on the server and can be repeated, so the caller may be killed between any two. Only packing
takes several transactions, the last of which marks it as done. `schema/0004_days.sql` decides what a day is due for,
and checks it again under the locks that it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.shard_session import ShardSession
from cotacoes.model.quote import Position

STATEMENT_DEADLINE_S = 600.0  # a day of 100 million quotes is read and hashed in less
SERVER_STATEMENT_DEADLINE_S = 590.0  # earlier, so that no statement continues at the server after its connection is cut
assert SERVER_STATEMENT_DEADLINE_S < STATEMENT_DEADLINE_S


class CoinDay(NamedTuple):
    """A UTC day of a coin."""

    coin: str
    day: date


@dataclass(frozen=True)
class Sealing:
    """The result of sealing: `expected` quotes were counted as they arrived, `held` when the day was read."""

    is_sealed: bool
    expected: int
    held: int


@dataclass(frozen=True)
class Dropped:
    """A dropped day of `count` quotes, after which the history begins at `floor`."""

    count: int
    floor: Position


@dataclass(frozen=True)
class Erased:
    """What was erased of a day: `count` rows of coins that dropped it, or the whole partition if `is_gone`."""

    count: int
    is_gone: bool


class PostgresDays(ShardSession):
    """The days of one shard."""

    queries = named_queries.read(__package__, "days.sql")
    connect_s = 5.0
    statement_s = STATEMENT_DEADLINE_S

    async def _begin(self) -> None:
        await super()._begin()
        await self._fetch("limit_statements", f"{SERVER_STATEMENT_DEADLINE_S:.0f}s")

    async def prepare(self, first: date, last: date) -> None:
        """Create the partitions of a range of days, both ends included."""
        await self._fetch("prepare", first, last)

    async def acquire(self) -> bool:
        """Become the only process that maintains this shard's days, while connected; False if another one does."""
        ((is_acquired,),) = await self._fetch("acquire")
        return bool(is_acquired)

    async def closed(self) -> list[CoinDay]:
        """The days that are due to be sealed, oldest first."""
        return [CoinDay(row["coin"], row["day"]) for row in await self._fetch("closed")]

    async def seal(self, closed: CoinDay) -> Sealing | None:
        """Write the day's manifest; None if the day is no longer due. CoinMovedError."""
        (row,) = await self._fetch("seal", *closed)
        return None if row["is_sealed"] is None else Sealing(row["is_sealed"], row["expected"], row["held"])

    async def expired(self, retention_days: Mapping[str, int]) -> list[CoinDay]:
        """The sealed days beyond their coin's retention, in the order in which to drop them."""
        rows = await self._fetch("expired", list(retention_days), list(retention_days.values()))
        return [CoinDay(row["coin"], row["day"]) for row in rows]

    async def drop(self, expired: CoinDay, retention_days: int) -> Dropped | None:
        """Drop a day from the history; None if it has to stay. CoinMovedError."""
        (row,) = await self._fetch("drop", *expired, retention_days)
        return None if row["count"] is None else Dropped(row["count"], Position(row["epoch"], row["seq"]))

    async def dropped(self, before: datetime) -> list[date]:
        """The days that a coin dropped before a time and that still have a partition, oldest first."""
        return [row["day"] for row in await self._fetch("dropped", before)]

    async def erase(self, day: date, before: datetime) -> Erased:
        """Erase what was dropped before a time; nothing if it is in use at the moment."""
        (row,) = await self._fetch("erase", day, before)
        return Erased(row["count"], row["is_gone"])

    async def loose(self, over_before: datetime) -> list[date]:
        """The days that ended before a time, are sealed for every coin and are not packed, oldest first."""
        return [row["day"] for row in await self._fetch("loose", over_before)]

    async def pack(self, day: date) -> None:
        """Rebuild the day's index without spare room and freeze its rows, while readers and writers continue."""
        for row in await self._fetch("packing", day):
            await self._execute(row["sql"])
