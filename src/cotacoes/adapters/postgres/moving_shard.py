"""A shard on PostgreSQL as the mover of a coin sees it; `patterns/sharding/moving.py` says what its calls promise.

Rows go from one server to the other as the text of arrays, one per column: nothing is parsed on the way, so no digit
can change, and a move takes next to nothing of the machine on which quotes are recorded.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.rows import QUOTE_COLUMNS, content_of, copy_of, day_of, quote_of
from cotacoes.adapters.postgres.shard_session import ShardSession
from cotacoes.errors import CopyRefusedError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.sharding.ledger_facts import CoinCopy, Content, DayRow
from cotacoes.patterns.sharding.moving import AsideCount, CopyPage

_COLUMNS = (
    "epoch", "seq", "at", "observed_at", "price", "agreement", "origin", "origins", "currencies",
    "epochs", "prev_epoch", "prev_seq",
)  # fmt: skip


class PostgresMovingShard(ShardSession):
    """One connection to one shard, for the moves of coins."""

    queries = named_queries.read(__package__, "moves.sql", quote_columns=QUOTE_COLUMNS)
    connect_s = 10.0
    statement_s = 120.0  # the longest compares one coin's day: some 5 s for a million quotes

    async def _begin(self) -> None:
        await super()._begin()
        await self._fetch("plain_dates")

    async def claim(self, coin_id: int) -> bool:
        (row,) = await self._fetch("claim", coin_id)
        return bool(row["claimed"])

    async def copy(self, coin: str) -> CoinCopy | None:
        rows = await self._fetch("copy", coin)
        return copy_of(rows[0]) if rows else None

    async def days(self, coin_id: int) -> list[DayRow]:
        return [day_of(row) for row in await self._fetch("days", coin_id)]

    async def content(self, coin_id: int, after: Position, through: Position) -> dict[date, Content]:
        return {row["day"]: content_of(row) for row in await self._fetch("content", coin_id, *after, *through)}

    async def candle_content(self, coin_id: int, day: date) -> Content:
        (row,) = await self._fetch("candle_content", coin_id, day)
        return content_of(row)

    async def quote(self, coin: str, coin_id: int, after: Position) -> Quote | None:
        rows = await self._fetch("quote", coin_id, *after)
        return quote_of(coin, rows[0]) if rows else None

    async def page(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        return await self._page("page", coin_id, after, limit)

    async def dropped(self, coin_id: int, day: date) -> object | None:
        rows = await self._fetch("dropped", coin_id, day)
        return rows[0] if rows else None

    async def epochs(self, coin_id: int) -> object:
        (row,) = await self._fetch("epochs", coin_id)
        return row["epochs"]

    async def asides(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        return await self._page("asides", coin_id, after, limit)

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

    async def receive_epochs(self, coin_id: int, placement: int, epochs: object) -> None:
        await self._change("receive_epochs", coin_id, placement, epochs)

    async def receive_asides(self, coin_id: int, placement: int, page: CopyPage) -> None:
        row: Any = page.rows
        await self._change("receive_asides", coin_id, placement, row["conflicts"], row["orphans"], row["holes"])

    async def receive_manifest(self, coin_id: int, placement: int, day: DayRow) -> None:
        sealed = day.manifest
        assert sealed is not None
        await self._change(
            "receive_manifest", coin_id, placement, day.day, sealed.count, sealed.sum, sealed.digest, day.sealed_at
        )

    async def close(self, coin_id: int, placement: int) -> None:
        await self._change("close", coin_id, placement)

    async def reopen(self, coin_id: int, placement: int) -> None:
        await self._change("reopen", coin_id, placement)

    async def open(self, coin_id: int, placement: int, source: CoinCopy, count: int) -> None:
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

    async def _page(self, query: str, coin_id: int, after: Position, limit: int) -> CopyPage:
        (row,) = await self._fetch(query, coin_id, *after, limit)
        return CopyPage(row["count"], None if row["last"] is None else Position(*row["last"]), row)

    async def _change(self, query: str, *arguments: Any) -> Any:
        (row,) = await self._fetch(query, *arguments)
        if row["why"] is not None:
            raise CopyRefusedError(f"{self.name}: {row['why']}")
        return row
