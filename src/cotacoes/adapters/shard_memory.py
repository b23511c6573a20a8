"""A shard in memory: the twin of `shard_postgres`, under the same contract suite. `away`, `closed` are its faults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

from cotacoes.errors import CoinMovedError, FenceClosedError, ShardUnavailableError, WriterSupersededError
from cotacoes.patterns.sharding import Fence, ShardView
from cotacoes.quote import Position, Quote


class MemoryShard:
    """See `patterns.sharding.Shard`. `coins` live here from the start, under placement 1."""

    def __init__(self, name: str, coins: Iterable[str]) -> None:
        self.name = name
        self.away = False
        self.closed = False
        self._fences = {coin: (Fence(1, 0, None, None), "") for coin in coins}
        self._quotes: dict[str, dict[Position, Quote]] = {coin: {} for coin in self._fences}

    async def ping(self) -> None:
        if self.away:
            raise ShardUnavailableError(f"{self.name} is not reachable")

    async def fence(self, coin: str) -> Fence:
        await self.ping()
        if coin not in self._fences:
            raise CoinMovedError(f"{self.name} has no fence for {coin}")
        held = [self._quotes[coin][position] for position in sorted(self._quotes[coin])]
        return replace(
            self._fences[coin][0], newest=held[-1] if held else None, floor=held[0].position if held else None
        )

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        fence = await self.fence(coin)
        if (fence.writer_epoch, self._fences[coin][1]) != (epoch, writer) and fence.writer_epoch >= epoch:
            raise WriterSupersededError(f"{self.name}: a newer writer has this coin")
        self._fences[coin] = (replace(fence, writer_epoch=epoch), writer)
        return await self.fence(coin)

    async def append(self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote]) -> None:
        fence = await self.fence(coin)
        if fence.placement != placement:
            raise CoinMovedError(f"{self.name}: the coin has another placement")
        if fence.writer_epoch != writer_epoch:
            raise WriterSupersededError(f"{self.name}: another writer has this coin")
        if self.closed:
            raise FenceClosedError(f"{self.name}: the fence is closed")
        for quote in quotes:
            self._quotes[coin].setdefault(quote.position, quote)

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        await self.fence(coin)
        later = sorted(held for held in self._quotes[coin] if position is None or held > position)
        return [self._quotes[coin][held] for held in later[:limit]]

    async def last(self, coin: str, count: int) -> list[Quote]:
        return (await self.newest([coin], count))[coin].quotes

    async def newest(self, coins: Sequence[str], count: int) -> dict[str, ShardView]:
        views = {}
        for coin in coins:
            through = (await self.fence(coin)).through
            views[coin] = ShardView(through, (await self.after(coin, None, 10**9))[-count:])
        return views

    async def prepare_days(self, first: date, last: date) -> None:
        await self.ping()
