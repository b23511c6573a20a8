"""The discrepancies of one shard, for administrators: listed, exported, accepted."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.schema import check_shard
from cotacoes.adapters.postgres.shard import position_of
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.shard import Unaccepted

CONNECT_DEADLINE_S = 10.0
STATEMENT_DEADLINE_S = 60.0
QUERIES = named_queries.read(__package__, "discrepancies.sql")


@dataclass(frozen=True)
class Discrepancy:
    """A hole, which lies between `first` (None: nothing was there) and `last`; or orphans, from `first` to `last`.

    `count` is of orphans. `accepted_at` is None until somebody has accepted it.
    """

    coin: str
    kind: Literal["hole", "orphan"]
    first: Position | None
    last: Position
    count: int | None
    reason: str
    noted_at: datetime
    accepted_at: datetime | None


@dataclass(frozen=True)
class Orphan:
    """One quote that was recorded and is not in the history."""

    position: Position
    at: datetime
    observed_at: datetime
    price: str
    currency: str
    origin: str
    reason: str
    noted_at: datetime
    accepted_at: datetime | None


class PostgresDiscrepancies:
    """One connection to one shard; an async context manager. ShardUnavailableError, SettingError at its opening."""

    def __init__(self, shard: str, dsn: str) -> None:
        self.shard = shard
        self._session = Session(shard, dsn, connect_s=CONNECT_DEADLINE_S, deadline_s=STATEMENT_DEADLINE_S)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._session)
            await check_shard(self.shard, self._session.fetch)
            stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.__aexit__(*error)

    async def found(self, coin: str | None) -> list[Discrepancy]:
        """What was noted of a coin, or of all that live here, oldest first."""
        return [_discrepancy(row) for row in await self._fetch("list", coin)]

    async def orphans(self, coin: str, after: Position, limit: int) -> list[Orphan]:
        """The orphans at the first positions after one; CoinMovedError if the coin does not live here."""
        return [_orphan(row) for row in await self._fetch("orphans", coin, *after, limit)]

    async def accept(self, coin: str) -> Unaccepted:
        """Accept what was noted of a coin so far; how much that was. ShardRefusedError by its fence."""
        (row,) = await self._fetch("accept", coin)
        return Unaccepted(row["holes"], row["orphans"])

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        return await self._session.fetch(QUERIES[query], *arguments)


def _discrepancy(row: Any) -> Discrepancy:
    return Discrepancy(
        coin=row["coin"],
        kind=row["kind"],
        first=position_of(row["first_epoch"], row["first_seq"]),
        last=Position(row["last_epoch"], row["last_seq"]),
        count=row["count"],
        reason=row["reason"],
        noted_at=row["noted_at"],
        accepted_at=row["accepted_at"],
    )


def _orphan(row: Any) -> Orphan:
    return Orphan(
        position=Position(row["epoch"], row["seq"]),
        at=row["at"],
        observed_at=row["observed_at"],
        price=row["price"],
        currency=row["currency"],
        origin=row["origin"],
        reason=row["reason"],
        noted_at=row["noted_at"],
        accepted_at=row["accepted_at"],
    )
