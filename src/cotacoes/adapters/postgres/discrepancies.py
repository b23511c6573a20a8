"""The discrepancies of one shard, as administrators list, export and accept them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.rows import QUOTE_COLUMNS, quote_of
from cotacoes.adapters.postgres.shard_session import ShardSession
from cotacoes.model.quote import Position, Quote, position_of
from cotacoes.patterns.sharding.shard import Unaccepted


@dataclass(frozen=True)
class Discrepancy:
    """A hole between `first` (None: before the coin's first quote) and `last`, or orphans from `first` to `last`.

    `count` is the number of orphans. `accepted_at` is None until it is accepted.
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

    quote: Quote
    reason: str
    noted_at: datetime
    accepted_at: datetime | None


class PostgresDiscrepancies(ShardSession):
    """The discrepancies of the coins that live on one shard."""

    queries = named_queries.read(__package__, "discrepancies.sql", quote_columns=QUOTE_COLUMNS)
    connect_s = 10.0
    statement_s = 60.0

    async def found(self, coin: str | None) -> list[Discrepancy]:
        """The discrepancies of a coin, or of all that live here, oldest first."""
        return [_discrepancy(row) for row in await self._fetch("list", coin)]

    async def orphans(self, coin: str, after: Position, limit: int) -> list[Orphan]:
        """The orphans at the first positions after one; CoinMovedError if the coin does not live here."""
        rows = await self._fetch("orphans", coin, *after, limit)
        return [Orphan(quote_of(coin, row), row["reason"], row["noted_at"], row["accepted_at"]) for row in rows]

    async def accept(self, coin: str) -> Unaccepted:
        """Accept the discrepancies of a coin; returns how many. ShardRefusedError if the fence refuses it."""
        (row,) = await self._fetch("accept", coin)
        return Unaccepted(row["holes"], row["orphans"])


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
