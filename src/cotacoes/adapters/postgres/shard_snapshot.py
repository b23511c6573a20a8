"""What the audit reads of one shard: one connection that can not write, one snapshot from the first to the last row.

Nothing is read that grows with the number of quotes: the server counts, sums and compares, day by day, and what comes
over the wire is what a day comes to, and where it does not fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.schema import check_version
from cotacoes.adapters.postgres.shard import position_of
from cotacoes.model.quote import Position, format_time
from cotacoes.patterns.sharding.ledger_facts import (
    Breach,
    CandleTotal,
    Content,
    Discontinuity,
    Ends,
    Manifest,
    Piece,
    StoredDay,
)

CONNECT_DEADLINE_S = 10.0
STATEMENT_DEADLINE_S = 600.0  # a day of many millions of quotes is sorted within it
STEPS_MAX = 20  # of one day: where more is missing, the count says how much
QUERIES = named_queries.read(__package__, "audit.sql")
_CANDLE_FIELDS = ("open", "high", "low", "close", "count", "sum", "first", "last")


@dataclass(frozen=True)
class FenceRow:
    """One fence as it is stored."""

    coin: str
    coin_id: int
    placement: int
    state: str
    moved_to: str | None
    ends: Ends


class OrphanCount(NamedTuple):
    """How many orphans of a coin there are, and how many of them are accepted."""

    orphans: int
    accepted: int


@dataclass(frozen=True)
class HoleRow:
    """One hole as it was noted: it lies after a position, None: before the coin's first quote, and before another."""

    after: Position | None
    behind: Position
    noted_at: datetime
    is_accepted: bool


class PostgresSnapshot:
    """One shard as it stands at one moment; an async context manager.

    Everything raises ShardUnavailableError where the shard does not answer or is of another schema version.
    """

    def __init__(self, shard: str, dsn: str) -> None:
        self.shard = shard
        self.identity: str | None = None  # the name that this database bears as a shard
        self._session = Session(
            shard, dsn, connect_s=CONNECT_DEADLINE_S, deadline_s=STATEMENT_DEADLINE_S, is_read_only=True
        )

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._session)
            await self._session.execute(QUERIES["begin"])
            self.identity = await check_version(self.shard, self._session.fetch)
            stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._session.__aexit__(*error)

    async def fences(self) -> dict[str, FenceRow]:
        """Every fence, by coin."""
        return {row["coin"]: _fence(row) for row in await self._fetch("fences")}

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
        """By name, the day of every partition, and whether it is named and bounded as the partition of that day."""
        return {row["name"]: (row["day"], row["is_of_day"]) for row in await self._fetch("partitions")}

    async def coins_of_day(self, day: date) -> list[int]:
        """The ids of the coins of which there are quotes in a day."""
        async with self._within_day():
            return [row["coin_id"] for row in await self._fetch("coins_of_day", *_bounds(day))]

    async def coins_beside(self) -> set[int]:
        """The ids of the coins of which there is anything else than quotes."""
        return {row["coin_id"] for row in await self._fetch("coins_beside")}

    async def eras(self, coin_id: int) -> dict[int, Position]:
        """What each era says stood before it."""
        return {
            row["epoch"]: Position(row["prev_epoch"], row["prev_seq"]) for row in await self._fetch("eras", coin_id)
        }

    async def manifests(self, coin_id: int) -> dict[date, Manifest]:
        """The day rows."""
        return {row["day"]: _manifest(row) for row in await self._fetch("days", coin_id)}

    async def candle_days(self, coin_id: int) -> set[date]:
        """The days in which there is a candle."""
        return {row["day"] for row in await self._fetch("candle_days", coin_id)}

    async def day(
        self, coin_id: int, day: date, manifest: Manifest | None, candle_breaches_max: int
    ) -> tuple[StoredDay, list[CandleTotal], list[Breach], int]:
        """What is stored of a day: rows, candles, and where these are wrong: the first ones, and how many in all."""
        bounds = _bounds(day)
        is_dropped = manifest is not None and manifest.is_dropped
        async with self._within_day():
            pieces = [_piece(row) for row in await self._fetch("pieces", coin_id, *bounds)]
            steps = [_step(row) for row in await self._fetch("steps", coin_id, *bounds, STEPS_MAX)]
            is_sealed = manifest is not None and manifest.content is not None and not is_dropped
            content = await self._content(coin_id, day, pieces) if is_sealed and pieces else None
            totals = [_total(row) for row in await self._fetch("candle_totals", coin_id, *bounds)]
            wrong = await self._fetch("candle_differences", coin_id, *bounds, is_dropped, max(1, candle_breaches_max))
        breaches = [_candle_breach(row) for row in wrong[:candle_breaches_max]]
        return StoredDay(day, manifest, pieces, steps, content), totals, breaches, wrong[0]["total"] if wrong else 0

    async def pieces(self, coin_id: int, day: date) -> list[Piece]:
        """What a day holds of each era."""
        async with self._within_day():
            return [_piece(row) for row in await self._fetch("pieces", coin_id, *_bounds(day))]

    async def content(self, coin_id: int, day: date, pieces: list[Piece]) -> Content | None:
        """What the quotes of a day come to, from the first to the last position of these pieces."""
        async with self._within_day():
            return await self._content(coin_id, day, pieces)

    async def _content(self, coin_id: int, day: date, pieces: list[Piece]) -> Content | None:
        first, last = pieces[0].first, pieces[-1].last
        rows = await self._fetch("content", coin_id, first.epoch, first.seq - 1, *last, day)
        return _content_of(rows[0]) if rows else None

    @contextlib.asynccontextmanager
    async def _within_day(self) -> AsyncIterator[None]:
        await self._session.execute(QUERIES["begin_day"])
        yield
        await self._session.execute(QUERIES["end_day"])

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        return await self._session.fetch(QUERIES[query], *arguments)


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def _fence(row: Any) -> FenceRow:
    ends = Ends(
        position_of(row["floor_epoch"], row["floor_seq"]),
        position_of(row["last_epoch"], row["last_seq"]),
        row["last_at"],
    )
    return FenceRow(row["coin"], row["coin_id"], row["placement"], row["state"], row["moved_to"], ends)


def _hole(row: Any) -> HoleRow:
    after = position_of(row["after_epoch"], row["after_seq"])
    return HoleRow(after, Position(row["next_epoch"], row["next_seq"]), row["noted_at"], row["is_accepted"])


def _manifest(row: Any) -> Manifest:
    return Manifest(
        first=Position(row["first_epoch"], row["first_seq"]),
        last=Position(row["last_epoch"], row["last_seq"]),
        count=row["count"],
        content=None if row["digest"] is None else _content_of(row),
        is_dropped=row["is_dropped"],
    )


def _content_of(row: Any) -> Content:
    return Content(row["count"], Decimal(row["sum"]), Decimal(row["digest"]))


def _total(row: Any) -> CandleTotal:
    return CandleTotal(row["minutes"], row["candles"], row["count"], Decimal(row["sum"]))


def _piece(row: Any) -> Piece:
    first, last = Position(row["epoch"], row["first_seq"]), Position(row["epoch"], row["last_seq"])
    return Piece(first, last, row["count"], row["last_at"], row["nameless"])


def _step(row: Any) -> Discontinuity:
    before = Position(row["before_epoch"], row["before_seq"])
    return Discontinuity(before, row["before_at"], Position(row["epoch"], row["seq"]), row["at"])


def _candle_breach(row: Any) -> Breach:
    origin = f"{row['origin']} {row['currency']}" if row["origin"] else f"origin {row['origin_id']}"
    place = f"{format_time(row['at'])[:16]}Z"
    found, wanted = _candle_words(row, "found", "wanted"), _candle_words(row, "wanted", "found")
    return Breach(place, f"candle of {row['minutes']} min, {origin}", found, wanted)


def _candle_words(row: Mapping[str, Any], side: str, other: str) -> str:
    """What one side says, in those fields in which the other says something else."""
    if row[f"{side}_count"] is None:
        return "none"
    told = {field: (row[f"{side}_{field}"], row[f"{other}_{field}"]) for field in _CANDLE_FIELDS}
    if row[f"{other}_count"] is None:
        return f"one of {told['count'][0]} quotes"
    return " ".join(f"{field} {mine}" for field, (mine, theirs) in told.items() if mine != theirs)
