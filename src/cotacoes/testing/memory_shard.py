"""A shard in memory: the twin of `PostgresShard`, under the same contract suite.

`away`, `closed` and `is_read_only` are its faults. `MemoryMovingShard` reads and changes its copies, as a mover does
with the tables of a database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from cotacoes.errors import (
    CoinMovedError,
    FenceClosedError,
    ShardRewoundError,
    ShardUnavailableError,
    WriterSupersededError,
)
from cotacoes.model.candle import STORED_MINUTES, Candle, candles_of, merged, stored_minutes
from cotacoes.model.quote import Position, Quote
from cotacoes.model.window import Window, window_of
from cotacoes.patterns.sharding.ledger_facts import AT_HOME, CopyState
from cotacoes.patterns.sharding.shard import CandleView, Directory, Fence, Home, ShardView, Stored, Unaccepted

CandleKey = tuple[int, datetime, str, str]  # minutes, at, origin, currency


@dataclass
class MemoryCopy:
    """One coin on one shard: its fence and all that is stored."""

    placement: int = 1
    state: CopyState = "open"
    moved_to: str | None = None
    changed_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    writer_epoch: int = 0
    writer: str = ""
    floor: Position | None = None
    quotes: dict[Position, Quote] = field(default_factory=dict)  # ascending
    conflicts: set[Quote] = field(default_factory=set)
    orphans: dict[Quote, str] = field(default_factory=dict)  # each with its reason
    holes: dict[Position, Position | None] = field(default_factory=dict)  # by the position behind it, the one before it
    accepted: set[Quote | Position] = field(default_factory=set)
    candles: dict[CandleKey, Candle] = field(default_factory=dict)

    @property
    def newest(self) -> Quote | None:
        return next(reversed(self.quotes.values()), None)

    @property
    def last(self) -> Position | None:
        return next(reversed(self.quotes), None)

    def append(self, quotes: Sequence[Quote], end: Position | None) -> Stored:
        """Link a writer's batch to what is stored, and store it; ShardRewoundError."""
        last = self.last
        old = [one for one in quotes if last is not None and one.position <= last]
        orphans = [one for one in old if one.position not in self.quotes]
        conflicts = [one for one in old if _plain(self.quotes.get(one.position, one)) != _plain(one)]
        new = {one.position: one for one in reversed(quotes) if last is None or one.position > last}
        linked: list[Quote] = []
        holes: dict[Position, Position | None] = {}
        for position in sorted(new):
            quote, before = new[position], linked[-1].position if linked else last
            if before is not None and (quote.before is None or quote.before < before):
                quote = replace(quote, prev=before)
            elif quote.before != before:
                holes[position] = before
            linked.append(quote)
        if holes and end != last:
            raise ShardRewoundError("the history ends at another position")
        self.holes |= holes
        for one in orphans:
            self.orphans.setdefault(one, "in_hole" if self.is_in_hole(one.position) else "superseded")
        self.conflicts |= set(conflicts)
        self.store(linked)
        already = len(quotes) - len(linked) - len(orphans) - len(conflicts)
        return Stored(len(linked), already, len(orphans), len(conflicts))

    def is_in_hole(self, position: Position) -> bool:
        return any((after is None or after < position) and position < behind for behind, after in self.holes.items())

    @property
    def unaccepted(self) -> Unaccepted:
        return Unaccepted(len(self.holes.keys() - self.accepted), len(self.orphans.keys() - self.accepted))

    def store(self, quotes: Sequence[Quote]) -> None:
        """Store the quotes beyond the end, in order, with their candles."""
        last = self.last
        new = {one.position: one for one in reversed(quotes) if last is None or one.position > last}
        ascending = [new[position] for position in sorted(new)]
        self.quotes |= {one.position: one for one in ascending}
        if ascending and self.floor is None:
            self.floor = ascending[0].position
        for minutes in STORED_MINUTES:
            for candle in candles_of(ascending, minutes):
                key = (minutes, candle.at, candle.origin, candle.currency)
                before = [self.candles[key]] if key in self.candles else []
                self.candles[key] = merged([*before, candle], minutes)[0]


class MemoryShard:
    """A shard on which `coins` live from the start, under placement 1."""

    def __init__(self, name: str, coins: Iterable[str]) -> None:
        self.name = name
        self.away = False
        self.closed = False
        self.is_read_only = False
        self.copies = {coin: MemoryCopy() for coin in coins}
        self.claims: dict[str, object] = {}  # the mover of each coin
        self.homes: dict[str, Home] = {}  # of the directory

    async def ping(self) -> None:
        if self.away:
            raise ShardUnavailableError(f"{self.name} is not reachable")

    async def check_writable(self) -> None:
        await self.ping()
        if self.is_read_only:
            raise ShardUnavailableError(f"{self.name} takes no writes: it is a standby, or set to read-only")

    async def directory(self) -> Directory:
        await self.ping()
        return Directory(dict(self.homes))

    async def learn_currencies(self, currencies: Mapping[str, str]) -> None:
        await self.ping()
        for coin, currency in currencies.items():
            self.homes[coin] = dataclasses.replace(self.homes[coin], currency=currency)

    async def fence(self, coin: str) -> Fence:
        copy = await self._home(coin)
        return Fence(copy.placement, copy.writer_epoch, copy.newest, copy.floor, copy.writer)

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        copy = await self._home(coin)
        await self.check_writable()
        if (copy.writer_epoch, copy.writer) != (epoch, writer) and copy.writer_epoch >= epoch:
            raise WriterSupersededError(f"{self.name}: a newer writer has this coin")
        self._refuse_closed(copy)
        copy.writer_epoch, copy.writer = epoch, writer
        return await self.fence(coin)

    async def claim(self, coin: str, least: int, writer: str, *, held: int | None) -> Fence:
        copy = await self._home(coin)
        if held is not None and copy.writer_epoch > held and copy.writer != writer:
            raise WriterSupersededError(f"{self.name}: a newer writer has this coin")
        self._refuse_closed(copy)
        copy.writer_epoch = max(least, copy.writer_epoch + 1, copy.last.epoch + 1 if copy.last else 0)
        copy.writer = writer
        return await self.fence(coin)

    async def append(
        self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote], *, end: Position | None = None
    ) -> Stored:
        copy = await self._home(coin)
        await self.check_writable()
        if copy.placement != placement:
            raise CoinMovedError(f"{self.name}: the coin has another placement")
        if copy.writer_epoch > (writer_epoch or 0):
            raise WriterSupersededError(f"{self.name}: another writer has this coin")
        if copy.writer_epoch != writer_epoch:
            raise ShardRewoundError(f"{self.name}: this writer is not known here")
        self._refuse_closed(copy)
        return copy.append(quotes, end)

    async def unaccepted(self) -> dict[str, Unaccepted]:
        await self.ping()
        homes = {coin: copy for coin, copy in self.copies.items() if copy.state in AT_HOME}
        return {coin: copy.unaccepted for coin, copy in homes.items() if any(copy.unaccepted)}

    def accept(self, coin: str) -> None:
        """Accept the discrepancies of a coin, as `cotacoes ledger accept` does."""
        copy = self.copies[coin]
        copy.accepted |= copy.holes.keys() | copy.orphans.keys()

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        quotes = (await self._home(coin)).quotes.values()
        return [one for one in quotes if position is None or one.position > position][:limit]

    async def between(
        self, coin: str, start: datetime, end: datetime, position: Position | None, limit: int
    ) -> list[Quote]:
        return [one for one in await self.after(coin, position, 10**9) if start <= one.at < end][:limit]

    async def last(self, coin: str, count: int) -> list[Quote]:
        return (await self.after(coin, None, 10**9))[-count:]

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        await self.ping()
        views = {}
        for coin, copy in self.copies.items():
            if coin in coins and copy.state in AT_HOME:
                quotes = list(copy.quotes.values())
                views[coin] = ShardView(
                    copy.last,
                    None if copy.newest is None else copy.newest.at,
                    copy.placement,
                    quotes[max(0, len(quotes) - count) :],
                    None if window is None else window_of(quotes, window),
                )
        return views

    async def candles(
        self, coin: str, minutes: int, start: datetime, end: datetime, limit: int, kind: tuple[str, str] | None = None
    ) -> CandleView:
        copy = await self._home(coin)
        newest = copy.newest
        if newest is None:
            return CandleView(None, None, [])
        origin, currency = kind or (newest.origin, newest.currency)
        ours = [
            candle
            for (stored, _, *its), candle in copy.candles.items()
            if stored == stored_minutes(minutes) and its == [origin, currency]
        ]
        candles = [one for one in merged(ours, minutes) if start <= one.at < end]
        return CandleView(newest.position, newest.at, candles[:limit])

    def _refuse_closed(self, copy: MemoryCopy) -> None:
        if self.closed or copy.state == "closed":
            raise FenceClosedError(f"{self.name}: the fence is closed")

    async def _home(self, coin: str) -> MemoryCopy:
        await self.ping()
        copy = self.copies.get(coin)
        if copy is None or copy.state == "incoming":
            raise CoinMovedError(f"{self.name} has no fence for {coin}")
        if copy.state == "moved":
            raise CoinMovedError(f"{self.name}: the coin has moved", to=copy.moved_to, placement=copy.placement + 1)
        return copy


def _plain(quote: Quote) -> Quote:
    """The quote without its predecessor, which the shard knows better."""
    return replace(quote, prev=None)
