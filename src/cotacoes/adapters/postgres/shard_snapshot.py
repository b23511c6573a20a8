"""What the audit reads of one shard: one read-only connection, and one snapshot from the first row to the last.

Nothing that is read grows with the number of quotes: the server counts, sums and compares day by day, and only each
day's results and differences come over the wire.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.rows import content_of, copy_of, day_of
from cotacoes.adapters.postgres.schema import check_version
from cotacoes.adapters.postgres.shard_session import ShardSession
from cotacoes.model.quote import Position, format_time, position_of
from cotacoes.patterns.sharding.ledger_facts import (
    NONE,
    Breach,
    CandleTotal,
    CoinCopy,
    Content,
    DayRow,
    Discontinuity,
    Piece,
    StoredDay,
)

DISCONTINUITIES_MAX = 20  # of one day: if more is missing, the count shows how much
_CANDLE_FIELDS = ("open", "high", "low", "close", "count", "sum", "first", "last")


class OrphanCount(NamedTuple):
    """How many orphans of a coin there are, and how many of them are accepted."""

    orphans: int
    accepted: int


@dataclass(frozen=True)
class HoleRow:
    """A hole as it was noted, between two positions; `after` is None if it lies before the coin's first quote."""

    after: Position | None
    behind: Position
    noted_at: datetime
    is_accepted: bool


class PostgresSnapshot(ShardSession):
    """One shard as it is at one moment. `identity` is the name that the database bears as a shard."""

    queries = named_queries.read(__package__, "audit.sql")
    connect_s = 10.0
    statement_s = 600.0  # long enough to sort a day of many millions of quotes
    is_read_only = True
    identity: str | None = None

    async def _begin(self) -> None:
        await self._execute(self.queries["begin"])
        self.identity = await check_version(self.name, self._session.fetch)

    async def copies(self) -> dict[str, CoinCopy]:
        """The copy of every coin that has a fence here."""
        return {row["coin"]: copy_of(row) for row in await self._fetch("copies")}

    async def conflicts(self) -> dict[int, int]:
        """How many conflicts are kept, by the coin's id."""
        return {row["coin_id"]: row["conflicts"] for row in await self._fetch("conflicts")}

    async def orphans(self) -> dict[int, OrphanCount]:
        """How many orphans are kept, by the coin's id."""
        return {row["coin_id"]: OrphanCount(row["orphans"], row["accepted"]) for row in await self._fetch("orphans")}

    async def holes(self, coin_id: int) -> list[HoleRow]:
        """The holes of a coin, ascending."""
        return [_hole(row) for row in await self._fetch("holes", coin_id)]

    async def partitions(self) -> dict[str, tuple[date, bool]]:
        """The day of every partition, by name, and whether it has the name and the bounds of that day's partition."""
        return {row["name"]: (row["day"], row["is_of_day"]) for row in await self._fetch("partitions")}

    async def coins_of_day(self, day: date) -> list[int]:
        """The ids of the coins that have quotes in a day."""
        async with self._within_day():
            return [row["coin_id"] for row in await self._fetch("coins_of_day", *_bounds(day))]

    async def coins_beside(self) -> set[int]:
        """The ids of the coins that have anything but quotes."""
        return {row["coin_id"] for row in await self._fetch("coins_beside")}

    async def predecessors(self, coin_id: int) -> dict[int, Position]:
        """The position that each epoch of a coin names before its first one."""
        rows = await self._fetch("predecessors", coin_id)
        return {row["epoch"]: Position(row["prev_epoch"], row["prev_seq"]) for row in rows}

    async def day_rows(self, coin_id: int) -> dict[date, DayRow]:
        """The day rows of a coin."""
        return {row["day"]: day_of(row) for row in await self._fetch("days", coin_id)}

    async def candle_days(self, coin_id: int) -> set[date]:
        """The days in which a coin has a candle."""
        return {row["day"] for row in await self._fetch("candle_days", coin_id)}

    async def day(self, coin_id: int, day: date, row: DayRow | None, candle_breaches_max: int) -> StoredDay:
        """All that is stored of a day, with at most `candle_breaches_max` differences of candles."""
        bounds = _bounds(day)
        is_dropped = row is not None and row.is_dropped
        is_sealed = row is not None and row.manifest is not None and not is_dropped
        async with self._within_day():
            pieces = await self._pieces(coin_id, day)
            steps = await self._fetch("discontinuities", coin_id, *bounds, DISCONTINUITIES_MAX)
            content = await self._content(coin_id, day, pieces) if is_sealed and pieces else None
            totals = await self._fetch("candle_totals", coin_id, *bounds)
            wrong = await self._fetch("candle_differences", coin_id, *bounds, is_dropped, max(1, candle_breaches_max))
        return StoredDay(
            day=day,
            row=row,
            pieces=pieces,
            discontinuities=[_discontinuity(step) for step in steps],
            content=content,
            candle_totals=[CandleTotal(**total) for total in totals],
            candle_breaches=[_candle_breach(difference) for difference in wrong[:candle_breaches_max]],
            candle_breach_count=wrong[0]["total"] if wrong else 0,
        )

    async def pieces(self, coin_id: int, day: date) -> list[Piece]:
        """What a day holds of each epoch."""
        async with self._within_day():
            return await self._pieces(coin_id, day)

    async def content(self, coin_id: int, day: date, pieces: list[Piece]) -> Content | None:
        """The content of a day's quotes, from the first to the last position of these pieces."""
        async with self._within_day():
            return await self._content(coin_id, day, pieces)

    async def _pieces(self, coin_id: int, day: date) -> list[Piece]:
        return [_piece(row) for row in await self._fetch("pieces", coin_id, *_bounds(day))]

    async def _content(self, coin_id: int, day: date, pieces: list[Piece]) -> Content | None:
        first, last = pieces[0].first, pieces[-1].last
        rows = await self._fetch("content", coin_id, first.epoch, first.seq - 1, *last, day)
        return content_of(rows[0]) if rows else None

    @contextlib.asynccontextmanager
    async def _within_day(self) -> AsyncIterator[None]:
        await self._execute(self.queries["begin_day"])
        yield
        await self._execute(self.queries["end_day"])


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def _hole(row: Any) -> HoleRow:
    after = position_of(row["after_epoch"], row["after_seq"])
    return HoleRow(after, Position(row["next_epoch"], row["next_seq"]), row["noted_at"], row["is_accepted"])


def _piece(row: Any) -> Piece:
    first, last = Position(row["epoch"], row["first_seq"]), Position(row["epoch"], row["last_seq"])
    return Piece(first, last, row["count"], row["last_at"], row["nameless"])


def _discontinuity(row: Any) -> Discontinuity:
    before = Position(row["before_epoch"], row["before_seq"])
    return Discontinuity(before, row["before_at"], Position(row["epoch"], row["seq"]), row["at"])


def _candle_breach(row: Any) -> Breach:
    origin = f"{row['origin']} {row['currency']}" if row["origin"] else f"origin {row['origin_id']}"
    place = f"{format_time(row['at'])[:16]}Z"
    found, wanted = _candle_text(row, "found", "wanted"), _candle_text(row, "wanted", "found")
    return Breach(place, f"candle of {row['minutes']} min, {origin}", found, wanted)


def _candle_text(row: Mapping[str, Any], side: str, other: str) -> str:
    """The fields of one side that differ from the other side."""
    if row[f"{side}_count"] is None:
        return NONE
    if row[f"{other}_count"] is None:
        return f"one of {row[f'{side}_count']} quotes"
    pairs = [(field, row[f"{side}_{field}"], row[f"{other}_{field}"]) for field in _CANDLE_FIELDS]
    return " ".join(f"{field} {ours}" for field, ours, theirs in pairs if ours != theirs)
