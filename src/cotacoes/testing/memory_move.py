"""A shard in memory as the mover of a coin sees it: the twin of `PostgresMovingShard`, under the same contract suite.

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
from cotacoes.patterns.sharding.ledger_facts import CoinCopy, Content, CopyState, DayRow
from cotacoes.patterns.sharding.moving import AsideCount, CopyPage
from cotacoes.patterns.sharding.shard import Home
from cotacoes.testing.memory_shard import MemoryCopy, MemoryShard

COIN_ID = 1
START = Position(0, 0)


class MemoryMovingShard:
    """One connection to a MemoryShard, for the moves of one coin."""

    def __init__(self, shard: MemoryShard, coin: str, *, now: Callable[[], datetime] | None = None) -> None:
        self.name = shard.name
        self._shard = shard
        self._coin = coin
        self._now = now or (lambda: datetime.now(UTC))

    def end(self) -> None:
        """End the connection."""
        if self._shard.claims.get(self._coin) is self:
            del self._shard.claims[self._coin]

    async def claim(self, coin_id: int) -> bool:
        await self._shard.ping()
        return self._shard.claims.setdefault(self._coin, self) is self

    async def copy(self, coin: str) -> CoinCopy | None:
        held = await self._held()
        if held is None:
            return None
        return CoinCopy(
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

    async def days(self, coin_id: int) -> list[DayRow]:
        days = _by_day(await self._after(START))
        return [DayRow(day, held[0].position, held[-1].position, len(held)) for day, held in days.items()]

    async def content(self, coin_id: int, after: Position, through: Position) -> dict[date, Content]:
        quotes = [quote for quote in await self._after(after) if quote.position <= through]
        return {day: _content(held) for day, held in _by_day(quotes).items()}

    async def candle_content(self, coin_id: int, day: date) -> Content:
        raise AssertionError("no day is dropped here")

    async def quote(self, coin: str, coin_id: int, after: Position) -> Quote | None:
        return next(iter(await self._after(after)), None)

    async def page(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        quotes = (await self._after(after))[:limit]
        copies = tuple(msgspec.structs.replace(quote) for quote in quotes)
        return CopyPage(len(quotes), quotes[-1].position if quotes else None, copies)

    async def dropped(self, coin_id: int, day: date) -> object | None:
        return None

    async def epochs(self, coin_id: int) -> object:
        await self._shard.ping()
        return None

    async def asides(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        held = await self._held() or MemoryCopy()
        positions = {*held.holes, *(quote.position for quote in (*held.conflicts, *held.orphans))}
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
        if (held.last or START) < after:
            raise CopyRefusedError(f"{self.name}: its copy lacks what comes before this page")
        held.store(cast(Sequence[Quote], page.rows))

    async def receive_dropped(self, coin_id: int, placement: int, dropped: object) -> None:
        raise AssertionError("no day is dropped here")

    async def receive_epochs(self, coin_id: int, placement: int, epochs: object) -> None:
        await self._incoming(placement)

    async def receive_asides(self, coin_id: int, placement: int, page: CopyPage) -> None:
        held, there = await self._incoming(placement), cast(MemoryCopy, page.rows)
        held.conflicts |= there.conflicts
        held.orphans |= there.orphans
        held.holes |= there.holes
        held.accepted |= there.accepted

    async def receive_manifest(self, coin_id: int, placement: int, day: DayRow) -> None:
        raise AssertionError("no day is sealed here")

    async def close(self, coin_id: int, placement: int) -> None:
        self._set_state(await self._in_state(placement, "open", "closed"), "closed")

    async def reopen(self, coin_id: int, placement: int) -> None:
        self._set_state(await self._in_state(placement, "open", "closed"), "open")

    async def open(self, coin_id: int, placement: int, source: CoinCopy, count: int) -> None:
        held = await self._in_state(placement, "open", "incoming")
        if held.state == "open":
            return
        if held.last != source.last or len(held.quotes) != count:
            raise CopyRefusedError(
                f"{self.name}: its copy holds {len(held.quotes)} quotes up to {held.last}, "
                f"and {count} up to {source.last} were verified"
            )
        held.writer_epoch, held.writer, held.floor = source.writer_epoch, source.writer, source.floor
        self._set_state(held, "open")

    async def leave(self, coin_id: int, placement: int, to: str) -> None:
        held = await self._in_state(placement, "closed", "moved")
        if held.state == "moved" and held.moved_to != to:
            raise CopyRefusedError(f"{self.name}: its copy of the coin is moved")
        held.moved_to = to
        self._set_state(held, "moved")

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
        home = self._shard.homes.get(coin)
        if home is None or home.placement < placement:
            self._shard.homes[coin] = Home(COIN_ID, shard, placement)

    def _set_state(self, held: MemoryCopy, state: CopyState) -> None:
        if held.state != state:
            held.state = state
            held.changed_at = self._now()

    async def _held(self) -> MemoryCopy | None:
        await self._shard.ping()
        return self._shard.copies.get(self._coin)

    async def _after(self, position: Position) -> list[Quote]:
        held = await self._held()
        return [quote for quote in held.quotes.values() if quote.position > position] if held else []

    async def _incoming(self, placement: int) -> MemoryCopy:
        return await self._in_state(placement, "incoming")

    async def _in_state(self, placement: int, *states: CopyState) -> MemoryCopy:
        held = await self._held()
        if held is None or held.state not in states or held.placement != placement:
            found = "missing" if held is None else f"{held.state} under placement {held.placement}"
            raise CopyRefusedError(f"{self.name}: its copy of the coin is {found}")
        return held


def _by_day(quotes: Sequence[Quote]) -> dict[date, list[Quote]]:
    days: dict[date, list[Quote]] = {}
    for quote in quotes:
        days.setdefault(quote.at.date(), []).append(quote)
    return days


def _content(quotes: Sequence[Quote]) -> Content:
    hashes = (hashlib.sha256(msgspec.json.encode(QuoteJson.from_quote(quote))).digest()[:8] for quote in quotes)
    digest = exact_sum(Decimal(int.from_bytes(each, "big")) for each in hashes)
    return Content(len(quotes), exact_sum(quote.price for quote in quotes), digest)
