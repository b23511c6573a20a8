"""Copying: a coin's history goes from one shard to another, and is proved by content to be the same on both.

What is stored does not change, so copying and verifying continue behind the last position that they have reached. Only
two things can happen before it: a day is sealed, or its quotes are dropped by retention. Both are copied as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from random import Random

from cotacoes.admin.copies import MoveLimits, both
from cotacoes.errors import CopyDiffersError
from cotacoes.model.quote import Position, Quote, QuoteJson
from cotacoes.patterns.sharding.ledger_facts import CoinCopy, Content, DayRow
from cotacoes.patterns.sharding.moving import MovingShard

ASIDES_MAX = 1_000
START = Position(0, 0)


@dataclass
class MoveProgress:
    """How far a move has come; `closed_s` is how long the source's fence was closed, None until it is over."""

    coin: str
    source: str
    target: str
    days: int = 0
    copied: int = 0
    verified: int = 0
    closed_s: float | None = None
    warnings: list[str] = field(default_factory=list)


OnStep = Callable[[str, MoveProgress], Awaitable[None]]


class Copying:
    """Copies one coin from `source`, where `home` is, to `target`.

    `last` is the last position copied, `verified` the last one verified. `on_step` is called for every page that was
    copied and for every day that was verified.
    """

    def __init__(
        self,
        progress: MoveProgress,
        source: MovingShard,
        target: MovingShard,
        home: CoinCopy,
        last: Position | None,
        on_step: OnStep,
        limits: MoveLimits,
    ) -> None:
        self._limits = limits
        self.last = last or START
        self.verified = START
        self._progress = progress
        self._coin = progress.coin
        self._id = home.coin_id
        self._placement = home.placement + 1
        self._source = source
        self._target = target
        self._on_step = on_step
        self._contents: dict[date, Content] = {}
        self._dropped: set[date] = set()
        self._is_closed = False

    async def copy(self) -> None:
        """Copy all that the source holds by now."""
        await self._target.receive_epochs(self._id, self._placement, await self._source.epochs(self._id))
        await self._copy_asides()
        there = {day.day: day for day in await self._target.days(self._id)}
        for number, day in enumerate(await self._source.days(self._id), start=1):
            if not day.is_dropped:
                while self.last < day.last and await self._copy_page():
                    pass
            elif there.get(day.day) != day:
                await self._copy_dropped(day)
            self._progress.days = number

    async def verify(self) -> None:
        """Compare what was copied since the last call, and seal the days that the source sealed. CopyDiffersError."""
        through = self.last
        for day in await self._source.days(self._id):
            if day.is_dropped:
                await self._verify_dropped(day)
            elif day.last > self.verified and day.first <= through:
                await self._verify_day(day, min(day.last, through))
        self.verified = max(self.verified, through)
        await self._seal()

    async def sample(self, random: Random) -> None:
        """Compare quotes at random positions row by row, in case a digest hides a difference."""
        days = [day for day in await self._source.days(self._id) if not day.is_dropped and day.last <= self.verified]
        for day in random.choices(days, [day.count for day in days], k=self._limits.sample_quotes) if days else ():
            after = _somewhere_in(day, random)
            here, there = await both(
                self._source.quote(self._coin, self._id, after), self._target.quote(self._coin, self._id, after)
            )
            if _as_text(here) != _as_text(there):
                raise self._differs(f"the quote after {after}")

    async def left_over(self, limit: int) -> int:
        """How many quotes are still to be copied, at most `limit`."""
        return (await self._source.page(self._id, self.last, limit)).count

    async def finish(self, closed: CoinCopy) -> int:
        """Copy and compare the rest behind the closed fence; returns the count of all quotes, with dropped ones."""
        self._is_closed = True
        while self.last < (closed.last or START) and await self._copy_page():
            pass
        if await self._source.aside_count(self._id) != await self._target.aside_count(self._id):
            await self._copy_asides()
            if await self._source.aside_count(self._id) != await self._target.aside_count(self._id):
                raise self._differs("what is kept aside")
        await self.verify()
        if self.verified != (closed.last or START):
            raise self._differs(f"the end, {self.verified} and {closed.last}")
        return await self._total()

    async def _total(self) -> int:
        days, there = await self._source.days(self._id), await self._target.days(self._id)
        if [day.extent for day in days] != [day.extent for day in there]:
            raise self._differs("the list of days")
        for day in days:
            if not day.is_dropped and self._contents[day.day].count != day.count:
                raise self._differs(f"the count of {day.day}")
        return sum(day.count for day in days)

    async def _copy_page(self) -> bool:
        clock = asyncio.get_running_loop().time
        began = clock()
        page = await self._source.page(self._id, self.last, self._limits.page_quotes)
        if page.last is None:
            return False
        await self._target.receive(self._id, self._placement, self.last, page)
        self.last = page.last
        self._progress.copied += page.count
        await self._on_step("copied", self._progress)
        if not self._is_closed:
            await asyncio.sleep(clock() - began)  # leaves half of the time to writers and readers
        return True

    async def _copy_dropped(self, day: DayRow) -> None:
        dropped = await self._source.dropped(self._id, day.day)
        if dropped is not None:
            await self._target.receive_dropped(self._id, self._placement, dropped)
            self.last = max(self.last, day.last)
            self._contents.pop(day.day, None)
            await self._on_step("copied", self._progress)

    async def _copy_asides(self) -> None:
        after = START
        while (page := await self._source.asides(self._id, after, ASIDES_MAX)).last is not None:
            await self._target.receive_asides(self._id, self._placement, page)
            after = page.last

    async def _verify_day(self, day: DayRow, through: Position) -> None:
        ours, theirs = await self._contents_through(through)
        here = ours.get(day.day)
        if here != theirs.get(day.day):
            days = {found.day: found for found in await self._source.days(self._id)}
            if not days[day.day].is_dropped:
                raise self._differs(f"what is held of {day.day}")
            return  # dropped while it was compared: the next round copies that
        if here is not None:
            before = self._contents.get(day.day)
            self._contents[day.day] = here if before is None else before + here
            self.verified = through
            self._progress.verified += here.count
            await self._on_step("verified", self._progress)

    async def _contents_through(self, through: Position) -> tuple[dict[date, Content], dict[date, Content]]:
        ours = self._source.content(self._id, self.verified, through)
        theirs = self._target.content(self._id, self.verified, through)
        # one after the other: if one is cancelled behind a closed fence, the other connection must stay usable; before
        # that, it leaves a processor to writers and readers
        try:
            return await ours, await theirs
        finally:
            theirs.close()

    async def _verify_dropped(self, day: DayRow) -> None:
        if day.day in self._dropped:
            return
        ours = await self._source.candle_content(self._id, day.day)
        if ours != await self._target.candle_content(self._id, day.day):
            raise self._differs(f"the candles of {day.day}")
        self._dropped.add(day.day)

    async def _seal(self) -> None:
        there = {day.day: day for day in await self._target.days(self._id)}
        for day in await self._source.days(self._id):
            if day.manifest is None or day.is_dropped or day.last > self.verified:
                continue
            if self._contents.get(day.day) != day.manifest:
                raise self._differs(f"the manifest of {day.day} and what was copied")
            if there[day.day].manifest is None:
                await self._target.receive_manifest(self._id, self._placement, day)

    def _differs(self, what: str) -> CopyDiffersError:
        return CopyDiffersError(
            f"{self._coin} differs between {self._source.name} and {self._target.name} in {what}: the copy is not "
            f"opened; delete it with `cotacoes shards move {self._coin} --to {self._target.name} --abort`"
        )


def _somewhere_in(day: DayRow, random: Random) -> Position:
    """A position that is probably followed by a quote of this day."""
    epoch = random.choice((day.first.epoch, day.last.epoch))
    low = day.first.seq - 1 if epoch == day.first.epoch else 0
    high = day.last.seq if epoch == day.last.epoch else low + day.count
    return Position(epoch, random.randrange(low, max(high, low + 1)))


def _as_text(quote: Quote | None) -> QuoteJson | None:
    """The quote as text, since equal decimals may differ in their digits."""
    return None if quote is None else QuoteJson.from_quote(quote)
