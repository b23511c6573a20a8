"""A shard on PostgreSQL; see `patterns.sharding.Shard` for what its calls promise."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.failures import said_by_server
from cotacoes.adapters.postgres.pool import Pool
from cotacoes.adapters.postgres.schema import QUERIES as SCHEMA_QUERIES
from cotacoes.adapters.postgres.schema import check_shard
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import CoinMovedError, WriterSupersededError
from cotacoes.model.candle import Candle, stored_minutes
from cotacoes.model.quote import Position, Quote, to_microseconds
from cotacoes.model.window import Window, WindowView
from cotacoes.observability import tracing
from cotacoes.patterns.sharding.shard import CandleView, Directory, Fence, Home, Shard, ShardView, Stored, Unaccepted
from cotacoes.patterns.sharding.shard_directory import ShardDirectory

QUERIES = named_queries.read(__package__, "queries.sql")


class PostgresShard:
    """One shard behind a DSN. An async context manager; opening connects to nothing."""

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
        """Every coin's home, and the shards beyond those that are settings; asked of shard1 only."""
        shards = {row["name"]: row["dsn"] for row in await self._fetch("shards")}
        homes = {
            row["coin"]: Home(row["coin_id"], row["shard"], row["placement"], row["retention_days"], row["currency"])
            for row in await self._fetch("directory")
        }
        return Directory(homes, shards)

    async def learn_currencies(self, currencies: Mapping[str, str]) -> None:
        """Note them for coins that have none yet; on shard1 only."""
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
        return await self._fence_of(writer, coin)

    async def claim(self, coin: str, least: int, writer: str, *, held: int | None) -> Fence:
        await self._fetch("claim", coin, least, held, writer)
        return await self._fence_of(writer, coin)

    async def _fence_of(self, writer: str, coin: str) -> Fence:
        """The fence that a writer has just taken; WriterSupersededError if another one came right behind it."""
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
    """The directory as this service knows it, kept in its folder, over shards on PostgreSQL."""

    async def read(shard: Shard) -> Directory:
        assert isinstance(shard, PostgresShard)
        return await shard.directory()

    async def learn(shard: Shard, currencies: Mapping[str, str]) -> None:
        assert isinstance(shard, PostgresShard)
        await shard.learn_currencies(currencies)

    return ShardDirectory(
        {shard: settings.dsn(shard) for shard in SHARDS},
        settings.seed_placement,
        settings.data / service / "directory.json",
        open_shard=lambda name, dsn: PostgresShard(name, dsn, deadline_s=deadline_s),
        read=read,
        learn=learn,
    )


def columns_of(quotes: Sequence[Quote]) -> tuple[Any, ...]:
    """Quotes as `append_quotes` takes them: runs, an array per column, origins and eras once.

    Half of what a batch costs is its way to the server, so what is the same in all quotes is not sent with each. Prices
    go as the text of an array, which costs least to write and to read, and keeps every digit.
    """
    kinds = list(dict.fromkeys((quote.origin, quote.currency) for quote in quotes))
    numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
    runs = [quotes] if len(kinds) == 1 and _is_run(quotes) else [[quote] for quote in quotes]
    eras = [(quote.epoch, quote.prev) for quote in quotes if quote.prev is not None]
    return (
        [run[0].epoch for run in runs],
        [run[0].seq for run in runs],
        [len(run) for run in runs],
        [numbers[run[0].origin, run[0].currency] for run in runs],
        [to_microseconds(quote.at) for quote in quotes],
        [to_microseconds(quote.observed_at) for quote in quotes],
        "{" + ",".join([str(quote.price) for quote in quotes]) + "}",
        [origin for origin, _ in kinds],
        [currency for _, currency in kinds],
        [epoch for epoch, _ in eras],
        [prev.epoch for _, prev in eras],
        [prev.seq for _, prev in eras],
    )


def _is_run(quotes: Sequence[Quote]) -> bool:
    """Whether they are of one era, ascending without a hole."""
    first = quotes[0]
    return {quote.epoch for quote in quotes} == {first.epoch} and [quote.seq for quote in quotes] == list(
        range(first.seq, first.seq + len(quotes))
    )


def position_of(epoch: int | None, seq: int | None) -> Position | None:
    """The position in two columns, None where they are null."""
    return None if epoch is None or seq is None else Position(epoch, seq)


def quote_of(coin: str, row: Any) -> Quote:
    """The quote in a row."""
    return Quote(
        coin=coin,
        currency=row["currency"],
        price=Decimal(row["price"]),
        epoch=row["epoch"],
        seq=row["seq"],
        observed_at=row["observed_at"],
        at=row["at"],
        origin=row["origin"],
        prev=position_of(row["prev_epoch"], row["prev_seq"]),
    )


def candle_of(row: Any) -> Candle:
    """The candle in a row."""
    return Candle(
        at=row["at"],
        currency=row["currency"],
        origin=row["origin"],
        open=Decimal(row["open"]),
        high=Decimal(row["high"]),
        low=Decimal(row["low"]),
        close=Decimal(row["close"]),
        count=row["count"],
        sum=Decimal(row["sum"]),
        first=Position(row["first_epoch"], row["first_seq"]),
        last=Position(row["last_epoch_in"], row["last_seq_in"]),
    )


def columns_of_window(window: Window | None) -> tuple[Any, ...]:
    """A window as `window_of` takes it."""
    if window is None:
        return (None,) * 6
    return (window.start, *window.whole, window.end, stored_minutes(window.step), window.step)


def window_view_of(window: Window, row: Any) -> WindowView:
    """The window in a coin's first row."""
    if row["count"] is None:
        return WindowView(holes=row["holes"] or 0)
    candle = candle_of({**row, "at": window.start, "origin": row["w_origin"], "currency": row["w_currency"]})
    closes = dict(zip(row["closes_at"], map(Decimal, row["closes"]), strict=True))
    end = row["last_minute"] + timedelta(minutes=1)
    return WindowView(candle, closes, row["minutes"], row["holes"], row["first_minute"], end)
