"""Replay: a member further behind than the ring reaches is served from the history, a page at a time.

A page is requested when the connection takes bytes, and written at once, so no page waits here for a client. Complete
pages never change; the latest are cached for the many clients that come back to the same place together.

    the history answers                         the member is sent
    quotes, and gaps between them               they, up to where the ring continues
    the position is below its floor             a gap, reason gone, up to the oldest quote held
    the position never existed                  a gap, reason rewritten, empty; then all later quotes or, if there are
                                                none, the newest
    nothing more, the position is valid         nothing: once the ring reaches it, the ring serves it
    nothing: it is away                         nothing; it is asked again

A member whose position the ring has not reached is served from the ring as soon as it has. Until then the history is
asked again with pauses that double, since it may continue while Redis does not.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from cotacoes.errors import PositionBeyondEndError, PositionGoneError, ProblemError
from cotacoes.feed.history import History, floor_of, has_later, resume_of
from cotacoes.gateway_service.channel import Channel, Member
from cotacoes.gateway_service.ring import Ring, StreamEntry
from cotacoes.model.quote import Position
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import Wanted
from cotacoes.web.background import Restarts

PAGE_QUOTES = 256  # some 60 KB, which a connection takes at once
PAGES_CACHED = 64
READERS = 4  # concurrent, so that returning clients do not overload quote_service
RETRY_S = 1.0
AHEAD_RETRY_S = 0.1  # doubled after each empty answer
AHEAD_RETRY_MOST_S = 30.0

_Place = tuple[str, Position | None]
_ReplayRequest = tuple[Channel, Member, str]


class Replays:
    """The replays of all members; `run` does the work. `call_later` is the event loop's."""

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
        self._asked: set[_ReplayRequest] = set()  # not answered yet
        self._paused: set[_ReplayRequest] = set()  # answered with nothing; asked again later
        # bounded by the coins of the members behind: connections and their coins are limited
        self._waiting: asyncio.Queue[_ReplayRequest] = asyncio.Queue()
        self._pages: OrderedDict[_Place, list[StreamEntry]] = OrderedDict()

    def ask(self, channel: Channel, member: Member, coin: str) -> None:
        """Request the history of this coin after the member's cursor."""
        asked = (channel, member, coin)
        if asked not in self._paused or self._is_passed(*asked):
            self._enqueue(asked)

    async def run(self, restarts: Restarts) -> None:
        """Answer requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(restarts.kept("replays", self._answer_all))

    async def _answer_all(self) -> None:
        while True:
            asked = await self._waiting.get()
            channel, member, _ = asked
            try:
                wait_s = await self._answer(*asked)
                self._asked.discard(asked)
                if wait_s is None:
                    channel.serve(member)  # which requests the next page, unless the ring has it
                else:
                    self._pause(asked, wait_s)
            except Exception:
                self._asked.discard(asked)
                self._pause(asked, RETRY_S)
                raise

    def _pause(self, asked: _ReplayRequest, wait_s: float) -> None:
        if asked not in self._paused:
            self._paused.add(asked)
            self._call_later(wait_s * self._random.uniform(0.5, 1.5), self._ask_again, asked)

    def _ask_again(self, asked: _ReplayRequest) -> None:
        channel, member, _ = asked
        self._paused.discard(asked)
        if member in channel.behind:
            self._enqueue(asked)

    def _enqueue(self, asked: _ReplayRequest) -> None:
        if asked not in self._asked:
            self._asked.add(asked)
            self._waiting.put_nowait(asked)

    def _is_passed(self, channel: Channel, member: Member, coin: str) -> bool:
        """Whether the ring has passed a member that was ahead of it, so the history must have too."""
        position, emitted = channel.position_of(member, coin), self._rings[coin].last_emitted
        return coin in member.ahead_s and emitted is not None and (position is None or emitted > position)

    async def _answer(self, channel: Channel, member: Member, coin: str) -> float | None:
        """Send one member one page; return the seconds until the next try, None if it was sent."""
        if member not in channel.behind:
            return None
        position, ring = channel.position_of(member, coin), self._rings[coin]
        try:
            entries, is_whole = await self._entries_after(coin, position)
        except ProblemError:
            member.ahead_s.pop(coin, None)
            return RETRY_S
        if member not in channel.behind or channel.position_of(member, coin) != position:
            return None  # it has moved on meanwhile
        if coin in member.held:
            assert member.resolve is not None
            member.resolve(coin, is_whole)
            return None
        if not entries and ring.index_after(position) is None:
            wait_s = member.ahead_s.get(coin, AHEAD_RETRY_S)
            member.ahead_s[coin] = min(2 * wait_s, AHEAD_RETRY_MOST_S)
            return wait_s
        member.ahead_s.pop(coin, None)
        channel.send_history(member, *_before_ring(entries, ring))
        return None

    async def _entries_after(self, coin: str, position: Position | None) -> tuple[list[StreamEntry], bool]:
        """The entries after this position, and whether they are everything that follows it."""
        try:
            return await self._page(coin, position), True
        except PositionGoneError:
            floor = await floor_of(self._history, coin)
        except PositionBeyondEndError as error:
            later = await self._page(coin, resume_of(error)) if has_later(error) else []
            return [_rewritten(coin, position), *later], False
        if floor is None or floor.before is None:  # nothing was ever dropped, so the position is of another history
            return [_rewritten(coin, position), *await self._page(coin, None)], False
        if position is not None and floor.before <= position:  # what follows it is still held
            return await self._page(coin, position), True
        return [StreamEntry.of_gap(Gap(coin, position, floor.before, Reason.GONE))], False

    async def _page(self, coin: str, position: Position | None) -> list[StreamEntry]:
        place = (coin, position)
        if place in self._pages:
            return self._pages[place]
        page = await self._history.read(coin, Wanted(position), PAGE_QUOTES)
        entries: list[StreamEntry] = []
        for quote in page.quotes:
            if gap := page.gap_before.get(quote.before):
                entries.append(StreamEntry.of_gap(gap))
            entries.append(StreamEntry.of_quote(quote))
        if position is None and entries and entries[0].before is not None:
            entries.insert(0, StreamEntry.of_gap(Gap(coin, None, entries[0].before, Reason.GONE)))
        if page.more:
            self._pages[place] = entries
            if len(self._pages) > PAGES_CACHED:
                self._pages.popitem(last=False)
        return entries


def _rewritten(coin: str, position: Position | None) -> StreamEntry:
    """An empty gap at a position that does not exist; nothing is known to be missing after it."""
    assert position is not None
    return StreamEntry.of_gap(Gap(coin, position, position, Reason.REWRITTEN))


def _before_ring(entries: Sequence[StreamEntry], ring: Ring) -> tuple[list[StreamEntry], int | None]:
    """The entries that the ring lacks, and the index at which it continues; None if it does not reach them yet."""
    older: list[StreamEntry] = []
    for entry in entries:
        if not entry.is_empty and (index := ring.index_after(entry.before, is_true=True)) is not None:
            return older, index
        older.append(entry)
    if older and older[-1].is_empty:
        return older, ring.index_of_newest()
    return older, ring.index_after(older[-1].position, is_true=True) if older else None
