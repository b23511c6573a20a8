"""A shard in memory as the mover of a coin sees it: the twin of `move_postgres`, under the same contract suite.

Each object is one mover's connection: `end` ends it, as a kill does, and its claims with it. No day is ever sealed or
dropped here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import cast

import msgspec

from cotacoes.errors import CopyRefusedError
from cotacoes.model.quote import Position, Quote, QuoteJson, exact_sum
from cotacoes.patterns.sharding.moving import AsideCount, Content, Copy, CopyPage, Day
from cotacoes.testing.memory_shard import MemoryCopy, MemoryShard

COIN_ID = 1


class MemoryMovingShard:
    """One connection to a MemoryShard, for the moves of one coin."""

    def __init__(self, shard: MemoryShard, coin: str, *, now: Callable[[], datetime] | None = None) -> None:
        self.name = shard.name
        self._shard = shard
        self._coin = coin
        self._now = now or (lambda: datetime.now(UTC))

    def end(self) -> None:
        """The connection is gone."""
        if self._shard.claims.get(self._coin) is self:
            del self._shard.claims[self._coin]

    async def claim(self, coin_id: int) -> bool:
        await self._shard.ping()
        return self._shard.claims.setdefault(self._coin, self) is self

    async def copy(self, coin: str) -> Copy | None:
        held = await self._held()
        if held is None:
            return None
        return Copy(
            coin_id=COIN_ID,
            state=held.state,
            placement=held.placement,
            last=held.last,
            last_at=None if held.newest is None else held.newest.at,
            floor=held.floor,
            writer_epoch=held.writer_epoch,
            writer=held.writer,
            moved_to=held.moved_to,
            age=self._now() - held.changed_at,
        )

    async def days(self, coin_id: int) -> list[Day]:
        days: dict[date, list[Quote]] = {}
        for quote in await self._after(Position(0, 0)):
            days.setdefault(quote.at.date(), []).append(quote)
        return [Day(day, held[0].position, held[-1].position, len(held)) for day, held in days.items()]

    async def content(self, coin_id: int, after: Position, through: Position) -> dict[date, Content]:
        days: dict[date, list[Quote]] = {}
        for quote in await self._after(after):
            if quote.position <= through:
                days.setdefault(quote.at.date(), []).append(quote)
        return {day: _content(held) for day, held in days.items()}

    async def candle_content(self, coin_id: int, day: date) -> Content:
        raise AssertionError("no day is dropped here")

    async def quote(self, coin: str, coin_id: int, after: Position) -> Quote | None:
        return next(iter(await self._after(after)), None)

    async def page(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        return _page((await self._after(after))[:limit])

    async def dropped(self, coin_id: int, day: date) -> object | None:
        return None

    async def eras(self, coin_id: int) -> object:
        await self._shard.ping()
        return None

    async def asides(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        held = await self._held() or MemoryCopy()
        positions = {*held.holes, *(one.position for one in (*held.conflicts, *held.orphans))}
        last = max((position for position in positions if position > after), default=None)
        return CopyPage(len(positions), last, held)  # all at once, whatever the limit

    async def aside_count(self, coin_id: int) -> AsideCount:
        held = await self._held() or MemoryCopy()
        return AsideCount(len(held.conflicts), len(held.orphans), len(held.holes), len(held.accepted))

    async def begin(self, coin_id: int, coin: str, placement: int) -> None:
        if await self._held() is None:
            self._shard.copies[self._coin] = MemoryCopy(placement, "incoming", changed_at=self._now())
        await self._incoming(placement)

    async def receive(self, coin_id: int, placement: int, after: Position, page: CopyPage) -> None:
        held = await self._incoming(placement)
        if (held.last or Position(0, 0)) < after:
            raise CopyRefusedError(f"{self.name}: its copy lacks what comes before this page")
        held.store(cast(Sequence[Quote], page.rows))

    async def receive_dropped(self, coin_id: int, placement: int, dropped: object) -> None:
        raise AssertionError("no day is dropped here")

    async def receive_eras(self, coin_id: int, placement: int, eras: object) -> None:
        await self._incoming(placement)

    async def receive_asides(self, coin_id: int, placement: int, page: CopyPage) -> None:
        held, there = await self._incoming(placement), cast(MemoryCopy, page.rows)
        held.conflicts |= there.conflicts
        held.orphans |= there.orphans
        held.holes |= there.holes
        held.accepted |= there.accepted

    async def receive_manifest(self, coin_id: int, placement: int, day: Day) -> None:
        raise AssertionError("no day is sealed here")

    async def close(self, coin_id: int, placement: int) -> None:
        self._turn(await self._in_state(placement, "open", "closed"), "closed")

    async def reopen(self, coin_id: int, placement: int) -> None:
        self._turn(await self._in_state(placement, "open", "closed"), "open")

    async def open(self, coin_id: int, placement: int, source: Copy, count: int) -> None:
        held = await self._in_state(placement, "open", "incoming")
        if held.state == "open":
            return
        if held.last != source.last or len(held.quotes) != count:
            raise CopyRefusedError(
                f"{self.name}: its copy holds {len(held.quotes)} quotes up to {held.last}, "
                f"and {count} up to {source.last} were verified"
            )
        held.writer_epoch, held.writer, held.floor = source.writer_epoch, source.writer, source.floor
        self._turn(held, "open")

    async def leave(self, coin_id: int, placement: int, to: str) -> None:
        held = await self._in_state(placement, "closed", "moved")
        if held.state == "moved" and held.moved_to != to:
            raise CopyRefusedError(f"{self.name}: its copy of the coin is moved")
        held.moved_to = to
        self._turn(held, "moved")

    async def give_up(self, coin_id: int, placement: int) -> None:
        held = await self._held()
        if held is None or (held.state == "incoming" and held.placement < placement):
            return
        held = await self._incoming(placement)
        held.placement = placement - 1

    async def purge(self, coin_id: int, placement: int, limit: int) -> bool:
        if await self._held() is None:
            return False
        held = await self._in_state(placement, "moved", "incoming")
        for position in list(held.quotes)[:limit]:
            del held.quotes[position]
        if held.quotes:
            return True
        del self._shard.copies[self._coin]
        return False

    async def place(self, coin: str, shard: str, placement: int) -> None:
        await self._shard.ping()
        if self._shard.directory.get(coin, ("", 0))[1] < placement:
            self._shard.directory[coin] = (shard, placement)

    def _turn(self, held: MemoryCopy, state: str) -> None:
        if held.state != state:
            held.state = state  # type: ignore[assignment]
            held.changed_at = self._now()

    async def _held(self) -> MemoryCopy | None:
        await self._shard.ping()
        return self._shard.copies.get(self._coin)

    async def _after(self, position: Position) -> list[Quote]:
        held = await self._held()
        return [one for one in held.quotes.values() if one.position > position] if held else []

    async def _incoming(self, placement: int) -> MemoryCopy:
        return await self._in_state(placement, "incoming")

    async def _in_state(self, placement: int, *states: str) -> MemoryCopy:
        held = await self._held()
        if held is None or held.state not in states or held.placement != placement:
            told = "none" if held is None else f"{held.state} under placement {held.placement}"
            raise CopyRefusedError(f"{self.name}: its copy of the coin is {told}")
        return held


def _page(quotes: Sequence[Quote]) -> CopyPage:
    return CopyPage(
        len(quotes), quotes[-1].position if quotes else None, tuple(msgspec.structs.replace(one) for one in quotes)
    )


def _content(quotes: Sequence[Quote]) -> Content:
    hashes = (hashlib.sha256(msgspec.json.encode(QuoteJson.of(one))).digest()[:8] for one in quotes)
    return Content(
        len(quotes),
        exact_sum(one.price for one in quotes),
        exact_sum(Decimal(int.from_bytes(each, "big")) for each in hashes),
    )
