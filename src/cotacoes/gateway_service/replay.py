"""Replay: who is further behind than the ring reaches is told from the history, a page at a time.

A page is asked for when the connection takes bytes, and written at once, so none waits here for a client. Pages that
are complete do not change any more; the latest are kept for the many who come back to the same place at once.

    the history says                            told
    quotes                                      they, up to where the ring goes on
    the position is below its floor             a gap, reason gone, up to what it does hold
    the position was never given                a gap, reason rewritten; the newest quote is next
    nothing beyond, the position is good        nothing: the ring will come as far
    nothing: it is away                         nothing, it is asked again
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from cotacoes.client.history import History, floor_of
from cotacoes.errors import PositionBeyondEndError, PositionGoneError, ProblemError
from cotacoes.gateway_service.channel import Channel, Member
from cotacoes.gateway_service.ring import Entry, Ring
from cotacoes.patterns.pub_sub import Gap, Reason
from cotacoes.patterns.recovery import Wanted
from cotacoes.quote import Position

PAGE_QUOTES = 256  # some 60 KB, what a connection takes at once
PAGES_KEPT = 64
READERS = 4  # at once, so that those who come back do not hold up quote_service
RETRY_S = 1.0
AHEAD_RETRY_S = 0.1

_Place = tuple[str, Position | None]


class Replays:
    """See the head of this file; `run` does the work. `call_later` is the loop's."""

    def __init__(
        self,
        history: History,
        rings: Mapping[str, Ring],
        *,
        call_later: Callable[..., object],
        random: Random,
    ) -> None:
        self._history = history
        self._rings = rings
        self._call_later = call_later
        self._random = random
        self._asked: set[tuple[Channel, Member, str]] = set()
        # as many as there are coins of members behind, at most: connections and their coins are bounded
        self._waiting: asyncio.Queue[tuple[Channel, Member, str]] = asyncio.Queue()
        self._pages: OrderedDict[_Place, list[Entry]] = OrderedDict()

    def ask(self, channel: Channel, member: Member, coin: str) -> None:
        """The member needs the history of this coin, from where its cursor is."""
        asked = (channel, member, coin)
        if asked not in self._asked:
            self._asked.add(asked)
            self._waiting.put_nowait(asked)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        while True:
            asked = await self._waiting.get()
            wait_s = await self._answer(*asked)
            if wait_s is None:
                channel, member, _ = asked
                self._asked.discard(asked)
                channel.serve(member)  # which asks for the next page, where that is not in the ring
            else:
                self._call_later(wait_s * self._random.uniform(0.5, 1.5), self._ask_again, asked)

    def _ask_again(self, asked: tuple[Channel, Member, str]) -> None:
        channel, member, _ = asked
        self._asked.discard(asked)
        if member in channel.behind:
            self.ask(*asked)

    async def _answer(self, channel: Channel, member: Member, coin: str) -> float | None:
        """Tell one member one page; in how many seconds to try again, None where it was told."""
        if member not in channel.behind:
            return None
        position, ring = channel.position_of(member, coin), self._rings[coin]
        is_known, is_whole = True, True
        try:
            entries = await self._page(coin, position)
        except PositionGoneError:
            entries, is_whole = await self._gone(coin, position), False
        except PositionBeyondEndError:
            entries, is_known, is_whole = self._rewritten(coin, position), False, False
        except ProblemError:
            return RETRY_S
        if member not in channel.behind or channel.position_of(member, coin) != position:
            return None  # it went on without us
        if coin in member.held:
            assert member.resolve is not None
            member.resolve(coin, is_whole)
            return None
        if not entries and ring.index_after(position) is None:
            return AHEAD_RETRY_S
        channel.tell(member, _before_ring(entries, ring))
        if not is_known and member.cursor is not None:
            member.cursor.indexes[coin] = ring.index_of_newest()
        return None

    async def _page(self, coin: str, position: Position | None) -> list[Entry]:
        place = (coin, position)
        if place in self._pages:
            return self._pages[place]
        page = await self._history.read(coin, Wanted(position), PAGE_QUOTES)
        entries = [Entry.of_quote(quote) for quote in page.quotes]
        if position is None and entries and entries[0].before is not None:
            entries.insert(0, Entry.of_gap(Gap(coin, None, entries[0].before, Reason.GONE)))
        if page.more:
            self._pages[place] = entries
            if len(self._pages) > PAGES_KEPT:
                self._pages.popitem(last=False)
        return entries

    async def _gone(self, coin: str, position: Position | None) -> list[Entry]:
        try:
            floor = await floor_of(self._history, coin)
        except ProblemError:
            return []
        through = self._rings[coin].told if floor is None else floor.before
        if through is None or (position is not None and through <= position):
            return []
        return [Entry.of_gap(Gap(coin, position, through, Reason.GONE))]

    def _rewritten(self, coin: str, position: Position | None) -> list[Entry]:
        assert position is not None
        return [Entry.of_gap(Gap(coin, position, position, Reason.REWRITTEN))]


def _before_ring(entries: Sequence[Entry], ring: Ring) -> list[Entry]:
    """Those after which the ring does not go on by itself."""
    told: list[Entry] = []
    for entry in entries:
        if entry.before != entry.position and ring.index_after(entry.before) is not None:
            break
        told.append(entry)
    return told
