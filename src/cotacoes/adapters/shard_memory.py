"""A shard in memory: the twin of `shard_postgres`, under the same contract suite. `away`, `closed` are its faults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

from cotacoes.candle import candles_of
from cotacoes.errors import CoinMovedError, FenceClosedError, ShardUnavailableError, WriterSupersededError
from cotacoes.patterns.sharding import CandleView, Fence, ShardView, Stored
from cotacoes.quote import Position, Quote


class MemoryShard:
    """See `patterns.sharding.Shard`. `coins` live here from the start, under placement 1."""

    def __init__(self, name: str, coins: Iterable[str]) -> None:
        self.name = name
        self.away = False
        self.closed = False
        self._fences = {coin: (Fence(1, 0, None, None), "") for coin in coins}
        self._quotes: dict[str, dict[Position, Quote]] = {coin: {} for coin in self._fences}
        self._conflicts: set[Quote] = set()

    async def ping(self) -> None:
        if self.away:
            raise ShardUnavailableError(f"{self.name} is not reachable")

    async def fence(self, coin: str) -> Fence:
        held = await self._held(coin)
        return replace(
            self._fences[coin][0], newest=held[-1] if held else None, floor=held[0].position if held else None
        )

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        fence = await self.fence(coin)
        if (fence.writer_epoch, self._fences[coin][1]) != (epoch, writer) and fence.writer_epoch >= epoch:
            raise WriterSupersededError(f"{self.name}: a newer writer has this coin")
        if self.closed:
            raise FenceClosedError(f"{self.name}: the fence is closed")
        self._fences[coin] = (replace(fence, writer_epoch=epoch), writer)
        return await self.fence(coin)

    async def append(self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote]) -> Stored:
        fence = await self.fence(coin)
        if fence.placement != placement:
            raise CoinMovedError(f"{self.name}: the coin has another placement")
        if fence.writer_epoch != writer_epoch:
            raise WriterSupersededError(f"{self.name}: another writer has this coin")
        if self.closed:
            raise FenceClosedError(f"{self.name}: the fence is closed")
        held = self._quotes[coin]
        conflicts = {one for one in quotes if held.get(one.position, one) != one} - self._conflicts
        self._conflicts |= conflicts
        new = {one.position: one for one in reversed(quotes) if one.position not in held}
        held |= new
        return Stored(len(new), len(conflicts))

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        return [one for one in await self._held(coin) if position is None or one.position > position][:limit]

    async def between(
        self, coin: str, start: datetime, end: datetime, position: Position | None, limit: int
    ) -> list[Quote]:
        return [one for one in await self.after(coin, position, 10**9) if start <= one.at < end][:limit]

    async def last(self, coin: str, count: int) -> list[Quote]:
        return (await self._held(coin))[-count:]

    async def newest(self, coins: Sequence[str], count: int) -> dict[str, ShardView]:
        await self.ping()
        fences = {coin: await self.fence(coin) for coin in coins if coin in self._fences}
        return {
            coin: ShardView(fence.through, fence.placement, await self.last(coin, count))
            for coin, fence in fences.items()
        }

    async def candles(
        self, coin: str, minutes: int, start: datetime, end: datetime, limit: int, kind: tuple[str, str] | None = None
    ) -> CandleView:
        held = await self._held(coin)
        if not held:
            return CandleView(None, None, [])
        kind = kind or (held[-1].origin, held[-1].currency)
        ours = [one for one in held if (one.origin, one.currency) == kind]
        candles = [one for one in candles_of(ours, minutes) if start <= one.at < end]
        return CandleView(held[-1].position, held[-1].at, candles[:limit])

    async def prepare_days(self, first: date, last: date) -> None:
        await self.ping()

    async def _held(self, coin: str) -> list[Quote]:
        await self.ping()
        if coin not in self._fences:
            raise CoinMovedError(f"{self.name} has no fence for {coin}")
        return [self._quotes[coin][position] for position in sorted(self._quotes[coin])]
