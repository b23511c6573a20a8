"""A shard on PostgreSQL; `patterns/sharding/shard.py` says what its calls promise."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.failures import said_by_server
from cotacoes.adapters.postgres.pool import Pool
from cotacoes.adapters.postgres.rows import (
    QUOTE_COLUMNS,
    candle_of,
    columns_of,
    columns_of_window,
    quote_of,
    window_view_of,
)
from cotacoes.adapters.postgres.schema import QUERIES as SCHEMA_QUERIES
from cotacoes.adapters.postgres.schema import check_shard
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import CoinMovedError, WriterSupersededError
from cotacoes.model.candle import stored_minutes
from cotacoes.model.quote import Position, Quote, position_of
from cotacoes.model.window import Window
from cotacoes.observability import tracing
from cotacoes.patterns.sharding.shard import CandleView, Directory, Fence, Home, ShardView, Stored, Unaccepted
from cotacoes.patterns.sharding.shard_directory import ShardDirectory

QUERIES = named_queries.read(__package__, "queries.sql", quote_columns=QUOTE_COLUMNS)


class PostgresShard:
    """One shard behind a DSN; an async context manager. Opening it connects to nothing."""

    def __init__(self, name: str, dsn: str, *, deadline_s: float) -> None:
        self.name = name
        self._pool = Pool(
            name,
            dsn,
            deadline_s=deadline_s,
            check=functools.partial(check_shard, name),
            is_setting=name in SHARDS,
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._pool.__aexit__(*error)

    async def ping(self) -> None:
        await check_shard(self.name, self._pool.fetch)

    async def check_writable(self) -> None:
        await self.ping()
        ((is_read_only,),) = await self._pool.fetch(SCHEMA_QUERIES["is_read_only"])
        if is_read_only:
            raise said_by_server(self.name, "25006")

    async def directory(self) -> Directory:
        shards = {row["name"]: row["dsn"] for row in await self._fetch("shards")}
        homes = {
            row["coin"]: Home(
                row["coin_id"], row["shard"], row["placement"], row["retention_days"], row["currency"], row["kind"]
            )
            for row in await self._fetch("directory")
        }
        return Directory(homes, shards)

    async def learn_currencies(self, currencies: Mapping[str, str]) -> None:
        await self._fetch("learn_currencies", list(currencies), list(currencies.values()))

    async def fence(self, coin: str) -> Fence:
        (row,) = await self._fetch("fence", coin)
        return Fence(
            placement=row["placement"],
            writer_epoch=row["writer_epoch"],
            newest=None if row["epoch"] is None else quote_of(coin, row),
            floor=position_of(row["floor_epoch"], row["floor_seq"]),
            writer=row["writer"],
        )

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        await self._fetch("become_writer", coin, epoch, writer)
        return await self._fence_taken_by(writer, coin)

    async def claim(self, coin: str, least: int, writer: str, *, held: int | None) -> Fence:
        await self._fetch("claim", coin, least, held, writer)
        return await self._fence_taken_by(writer, coin)

    async def _fence_taken_by(self, writer: str, coin: str) -> Fence:
        """The fence after a writer has taken it; WriterSupersededError if another one took it right after."""
        fence = await self.fence(coin)
        if fence.writer != writer:
            raise WriterSupersededError(f"{self.name}: a newer writer has this coin")
        return fence

    async def append(
        self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote], *, end: Position | None = None
    ) -> Stored:
        known = end or (None, None)
        (row,) = await self._fetch("append", coin, placement, writer_epoch, *known, *columns_of(quotes))
        return Stored(row["stored"], row["already"], row["refused"], row["conflicts"])

    async def unaccepted(self) -> dict[str, Unaccepted]:
        return {row["coin"]: Unaccepted(row["holes"], row["orphans"]) for row in await self._fetch("unaccepted")}

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        rows = await self._fetch("after", coin, *(position or Position(0, 0)), limit)
        return [quote_of(coin, row) for row in rows]

    async def between(
        self, coin: str, start: datetime, end: datetime, position: Position | None, limit: int
    ) -> list[Quote]:
        rows = await self._fetch("between", coin, start, end, *(position or Position(0, 0)), limit)
        return [quote_of(coin, row) for row in rows]

    async def last(self, coin: str, count: int) -> list[Quote]:
        views = await self.newest([coin], count)
        if coin not in views:
            raise CoinMovedError(f"{self.name} has no fence for {coin}")
        return views[coin].quotes

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        views: dict[str, ShardView] = {}
        for row in await self._fetch("newest", list(coins), count, *columns_of_window(window)):
            view = views.get(row["coin"])
            if view is None:
                view = views[row["coin"]] = ShardView(
                    position_of(row["last_epoch"], row["last_seq"]),
                    row["last_at"],
                    row["placement"],
                    window=None if window is None else window_view_of(window, row),
                )
            if row["epoch"] is not None:
                view.quotes.append(quote_of(row["coin"], row))
        return views

    async def candles(
        self, coin: str, minutes: int, start: datetime, end: datetime, limit: int, kind: tuple[str, str] | None = None
    ) -> CandleView:
        origin, currency = kind or (None, None)
        rows = await self._fetch("candles", coin, stored_minutes(minutes), minutes, start, end, limit, origin, currency)
        through = position_of(rows[0]["last_epoch"], rows[0]["last_seq"])
        return CandleView(through, rows[0]["last_at"], [candle_of(row) for row in rows if row["at"] is not None])

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        with tracing.query_span(query, self.name):
            return await self._pool.fetch(QUERIES[query], *arguments)


def open_directory(settings: Settings, service: str, *, deadline_s: float) -> ShardDirectory:
    """The directory as one service knows it, kept in the service's folder, over shards on PostgreSQL."""
    return ShardDirectory(
        {shard: settings.dsn(shard) for shard in SHARDS},
        settings.seed_placement,
        settings.data / service / "directory.json",
        open_shard=functools.partial(PostgresShard, deadline_s=deadline_s),
    )
