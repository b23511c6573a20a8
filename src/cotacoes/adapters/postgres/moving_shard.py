"""A shard on PostgreSQL as the mover of a coin sees it; see `patterns.moving.MovingShard`.

Rows go from one server to the other as the text of arrays, a column at a time: nothing is read on the way, so no digit
can change, and a move takes next to nothing of the machine on which quotes are taken.
"""

from __future__ import annotations

import contextlib
from datetime import date
from decimal import Decimal
from typing import Any, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.schema import check_shard
from cotacoes.adapters.postgres.shard import position_of, quote_of
from cotacoes.errors import CopyRefusedError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.sharding.moving import AsideCount, Content, Copy, CopyPage, Day

CONNECT_DEADLINE_S = 10.0
STATEMENT_DEADLINE_S = 120.0  # the longest compares one coin's day: some 5 s for a million quotes
QUERIES = named_queries.read(__package__, "moves.sql")
_COLUMNS = (
    "epoch", "seq", "at", "observed_at", "price", "origin", "origins", "currencies", "era", "prev_epoch", "prev_seq",
)  # fmt: skip


class PostgresMovingShard:
    """One connection to one shard; an async context manager. ShardUnavailableError, SettingError at its opening."""

    def __init__(self, name: str, dsn: str) -> None:
        self.name = name
        self._session = Session(name, dsn, connect_s=CONNECT_DEADLINE_S, deadline_s=STATEMENT_DEADLINE_S)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._session)
            await check_shard(self.name, self._session.fetch)
            await self._fetch("plain_dates")
            stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.__aexit__(*error)

    async def claim(self, coin_id: int) -> bool:
        (row,) = await self._fetch("claim", coin_id)
        return bool(row["claimed"])

    async def copy(self, coin: str) -> Copy | None:
        rows = await self._fetch("copy", coin)
        return _copy(rows[0]) if rows else None

    async def days(self, coin_id: int) -> list[Day]:
        return [_day(row) for row in await self._fetch("days", coin_id)]

    async def content(self, coin_id: int, after: Position, through: Position) -> dict[date, Content]:
        rows = await self._fetch("content", coin_id, *after, *through)
        return {row["day"]: Content(row["count"], row["sum"], row["digest"]) for row in rows}

    async def candle_content(self, coin_id: int, day: date) -> Content:
        (row,) = await self._fetch("candle_content", coin_id, day)
        return Content(row["count"], row["sum"] or Decimal(0), row["digest"] or Decimal(0))

    async def quote(self, coin: str, coin_id: int, after: Position) -> Quote | None:
        rows = await self._fetch("quote", coin_id, *after)
        return quote_of(coin, rows[0]) if rows else None

    async def page(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        (row,) = await self._fetch("page", coin_id, *after, limit)
        return _page(row)

    async def dropped(self, coin_id: int, day: date) -> object | None:
        rows = await self._fetch("dropped", coin_id, day)
        return rows[0] if rows else None

    async def eras(self, coin_id: int) -> object:
        (row,) = await self._fetch("eras", coin_id)
        return row["eras"]

    async def asides(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        (row,) = await self._fetch("asides", coin_id, *after, limit)
        return _page(row)

    async def aside_count(self, coin_id: int) -> AsideCount:
        (row,) = await self._fetch("aside_count", coin_id)
        return AsideCount(row["conflicts"], row["orphans"], row["holes"], row["accepted"])

    async def begin(self, coin_id: int, coin: str, placement: int) -> None:
        await self._change("begin", coin_id, coin, placement)

    async def receive(self, coin_id: int, placement: int, after: Position, page: CopyPage) -> None:
        row: Any = page.rows
        await self._fetch("prepare_days", row["first_day"], row["last_day"])
        await self._change("receive", coin_id, placement, *after, *(row[column] for column in _COLUMNS))

    async def receive_dropped(self, coin_id: int, placement: int, dropped: object) -> None:
        row: Any = dropped
        await self._change("receive_dropped", coin_id, placement, row["day"], row["candles"])

    async def receive_eras(self, coin_id: int, placement: int, eras: object) -> None:
        await self._change("receive_eras", coin_id, placement, eras)

    async def receive_asides(self, coin_id: int, placement: int, page: CopyPage) -> None:
        row: Any = page.rows
        await self._change("receive_asides", coin_id, placement, row["conflicts"], row["orphans"], row["holes"])

    async def receive_manifest(self, coin_id: int, placement: int, day: Day) -> None:
        sealed = day.manifest
        assert sealed is not None
        await self._change(
            "receive_manifest", coin_id, placement, day.day, sealed.count, sealed.sum, sealed.digest, day.sealed_at
        )

    async def close(self, coin_id: int, placement: int) -> None:
        await self._change("close", coin_id, placement)

    async def reopen(self, coin_id: int, placement: int) -> None:
        await self._change("reopen", coin_id, placement)

    async def open(self, coin_id: int, placement: int, source: Copy, count: int) -> None:
        last, floor = source.last or (None, None), source.floor or (None, None)
        await self._change(
            "open", coin_id, placement, *last, count, source.writer_epoch, source.writer, *floor, source.last_at
        )

    async def leave(self, coin_id: int, placement: int, to: str) -> None:
        await self._change("leave", coin_id, placement, to)

    async def give_up(self, coin_id: int, placement: int) -> None:
        await self._change("give_up", coin_id, placement)

    async def purge(self, coin_id: int, placement: int, limit: int) -> bool:
        return bool((await self._change("purge", coin_id, placement, limit))["more"])

    async def place(self, coin: str, shard: str, placement: int) -> None:
        await self._fetch("place", coin, shard, placement)

    async def _change(self, query: str, *arguments: Any) -> Any:
        (row,) = await self._fetch(query, *arguments)
        if row["why"] is not None:
            raise CopyRefusedError(f"{self.name}: {row['why']}")
        return row

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        return await self._session.fetch(QUERIES[query], *arguments)


def _copy(row: Any) -> Copy:
    return Copy(
        coin_id=row["coin_id"],
        state=row["state"],
        placement=row["placement"],
        last=position_of(row["last_epoch"], row["last_seq"]),
        last_at=row["last_at"],
        floor=position_of(row["floor_epoch"], row["floor_seq"]),
        writer_epoch=row["writer_epoch"],
        writer=row["writer"],
        moved_to=row["moved_to"],
        age=row["age"],
    )


def _day(row: Any) -> Day:
    return Day(
        day=row["day"],
        first=Position(row["first_epoch"], row["first_seq"]),
        last=Position(row["last_epoch"], row["last_seq"]),
        count=row["count"],
        manifest=None if row["sealed_at"] is None else Content(row["count"], row["sum"], row["digest"]),
        sealed_at=row["sealed_at"],
        dropped_at=row["dropped_at"],
    )


def _page(row: Any) -> CopyPage:
    return CopyPage(row["count"], None if row["last"] is None else Position(*row["last"]), row)
