"""The one read of a coin's history: shard rows, then log entries, checked by their positions to have no hole.

If the log covers the question, only the log is asked. An answer is never cut short: a question that cannot be answered
in full gets an error. A position that is missing between two rows of the shard is missing for good, since rows do not
change: that is a hole, and the answer goes on behind it. A position behind the shard's end is missing only until
delivery has come so far.

The seam between shard and log is exact while delivery goes on, because each side is asked for its end before the other
is asked for what follows: the shard's end before its rows, its rows before the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cotacoes.errors import (
    CoinMovedError,
    HistoryUnavailableError,
    LogUnavailableError,
    PositionBeyondEndError,
    PositionGoneError,
    ShardUnavailableError,
)
from cotacoes.model.quote import SEQ_MAX, Position, Quote, first_gap, format_time
from cotacoes.patterns.sharding.shard import Shard
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.recorder import Recorder

READ_ATTEMPTS = 3  # delivery and trimming between two reads can look like a hole; the next attempt reaches further
LOG_READS_MAX = 2  # at once: the log has one thread, and a commit must not wait for many readers
TIME_MIN = datetime(1, 1, 1, tzinfo=UTC)
TIME_MAX = datetime(9999, 12, 31, tzinfo=UTC)  # candles of every length can begin here

T = TypeVar("T")


@dataclass(frozen=True)
class _Range:
    """A question: quotes with `at` in [start, end) after a position. `newest` is the last position known before."""

    start: datetime
    end: datetime
    after: Position | None
    limit: int
    newest: Position | None

    def is_answered(self, logged: Sequence[Quote], begin: Position | None, limit: int) -> bool:
        """Whether the answer needs no entry beyond these, the log's first `limit` ones after `begin`."""
        if len(logged) == limit or (logged and logged[-1].at >= self.end):
            return True
        return _reaches(logged, begin, self.newest)

    def cut(self, quotes: Sequence[Quote]) -> list[Quote]:
        """The quotes before the end."""
        return [quote for quote in quotes if quote.at < self.end]


class HistoryReader:
    """See the head of this file. Every method may raise HistoryUnavailableError."""

    def __init__(self, recorder: Recorder, directory: ShardDirectory) -> None:
        self._recorder = recorder
        self._histories = recorder.histories
        self._directory = directory
        self._log_reads = asyncio.Semaphore(LOG_READS_MAX)

    def is_empty(self, coin: str) -> bool:
        """Whether the coin never had a quote; False as long as that is unknown."""
        history = self._histories[coin]
        return history.is_known and history.newest is None

    async def last(self, coin: str, count: int) -> list[Quote]:
        """The newest quotes, ascending."""
        history = self._histories[coin]
        newest = history.position
        logged = await self._from_log(self._recorder.log.last, coin, count)
        covers = bool(logged) and (len(logged) == count or _begins_at(logged, history.floor))
        if covers and first_gap(logged, None) is None and _reaches(logged, None, newest):
            return logged
        if self.is_empty(coin):
            return []
        for _ in range(READ_ATTEMPTS):
            held = await self.from_shard(coin, lambda shard: shard.last(coin, count))
            through = held[-1].position if held else None
            later = await self.log_after(coin, through, count)
            if first_gap(later, through) is None:
                return [*held, *later][-count:]
        raise hole_error(coin)

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        """The quotes after a position (None: from the floor), ascending.

        PositionGoneError below the floor, PositionBeyondEndError for a position that was never given.
        """
        if self.is_empty(coin):
            return []
        history = self._histories[coin]
        newest = history.position
        logged = await self.log_after(coin, position, limit)
        covers = _begins_at(logged, history.floor) if position is None else follows(logged, position)
        is_all = len(logged) == limit or (newest is not None and _reaches(logged, position, newest))
        if covers and is_all and first_gap(logged, position) is None:
            return logged
        for _ in range(READ_ATTEMPTS):
            held = await self.from_shard(coin, lambda shard: shard.after(coin, position, limit))
            through = held[-1].position if held else position
            later = await self.log_after(coin, through, limit - len(held)) if len(held) < limit else []
            first = next(iter([*held, *later]), None)
            if position is not None and first is not None and first.before != position:
                await self._refuse_position(coin, position, first)
            if first_gap(later, through) is None:
                return [*held, *later]
        raise hole_error(coin)

    async def leads(self, coin: str, position: Position, first: Quote) -> bool:
        """Whether `first`, which does not follow `position`, is the next quote that the history has after it."""
        found = await self.from_shard(coin, lambda shard: shard.after(coin, position, 1))
        return bool(found) and found[0].position == first.position

    async def between(
        self, coin: str, start: datetime | None, end: datetime | None, *, after: Position | None, limit: int
    ) -> list[Quote]:
        """The quotes with `at` in [start, end) after a position, ascending; without `start` from the floor on.

        PositionGoneError if quotes of the range are no longer held.
        """
        if self.is_empty(coin):
            return []
        history = self._histories[coin]
        asked = _Range(start or TIME_MIN, end or TIME_MAX, after, limit, history.position)
        before = None if start is None else await self.log_before(coin, start)
        begin = _furthest(after, None if before is None else before.position)
        logged = await self.log_after(coin, begin, limit)
        is_from_floor = start is None and after is None and _begins_at(logged, history.floor)
        covers = first_gap(logged, None) is None if is_from_floor else follows(logged, begin)
        if asked.newest is not None and covers and asked.is_answered(logged, begin, limit):
            return asked.cut(logged)
        for _ in range(READ_ATTEMPTS):
            quotes = await self._stored_between(coin, asked, begin)
            if quotes is not None:
                await self._refuse_gone(coin, start, after, quotes)
                return quotes
        raise hole_error(coin)

    async def _stored_between(self, coin: str, asked: _Range, begin: Position | None) -> list[Quote] | None:
        """The shard's rows, then the log's entries behind `begin` in the range; None at a hole."""
        through = await self.from_shard(coin, lambda shard: _through(shard, coin))
        rows = await self.from_shard(
            coin, lambda shard: shard.between(coin, asked.start, asked.end, asked.after, asked.limit)
        )
        if len(rows) == asked.limit:
            return rows
        begin = _furthest(begin, through, rows[-1].position if rows else None)
        limit = asked.limit - len(rows)
        later = await self.log_after(coin, begin, limit)
        if not follows(later, begin):
            if begin is not None and begin == asked.after:
                await self._refuse_position(coin, begin, later[0])
            return None
        return [*rows, *asked.cut(later)] if asked.is_answered(later, begin, limit) else None

    async def _refuse_gone(
        self, coin: str, start: datetime | None, after: Position | None, quotes: Sequence[Quote]
    ) -> None:
        """PositionGoneError if quotes of the range may have been dropped.

        Only whole days are dropped, so the floor's own day is complete. The floor is read after the rows, because it
        only rises.
        """
        if (start is None and after is None) or (quotes and quotes[0].before in (None, after)):
            return
        newest = self._histories[coin].newest
        floor = await self._floor(coin)
        if floor is None:  # nothing is held any more; `newest` is the last quote that was
            is_held = newest is None or (start is not None and start > newest.at)
        else:
            is_behind = floor.before is None or (after is not None and after >= floor.before)
            is_held = is_behind or (
                start is not None and start >= floor.at.replace(hour=0, minute=0, second=0, microsecond=0)
            )
        if not is_held:
            raise _gone_error("quotes of this range are no longer held", floor)

    async def _refuse_position(self, coin: str, position: Position, following: Quote) -> None:
        """Raise the reason why `following`, the first quote after `position`, does not follow it.

        Return if there is a hole between them, on the shard for good or behind its end for now, or if `position`
        exists.
        """
        floor = await self._floor(coin)
        if floor is not None and position < floor.position:
            raise _gone_error(f"quotes right after {position} are no longer held", floor)
        if following.before is not None and following.before > position:
            return
        before = Position(position.epoch, position.seq - 1)
        found = await self.from_shard(coin, lambda shard: shard.after(coin, before, 1))
        if not found or found[0].position != position:
            last, resume = self._histories[coin].position, following.before
            raise PositionBeyondEndError(
                f"position {position} never existed",
                last=None if last is None else str(last),
                resume=None if resume is None else str(resume),
            )

    async def _floor(self, coin: str) -> Quote | None:
        """The oldest quote that the shard holds."""
        held = await self.from_shard(coin, lambda shard: shard.after(coin, None, 1))
        return held[0] if held else None

    async def log_before(self, coin: str, start: datetime) -> Quote | None:
        """The log's last entry before a time, by bisecting the positions: `at` never falls while they rise."""
        oldest = await self.log_after(coin, None, 1)
        if not oldest or oldest[0].at >= start:
            return None
        (newest,) = await self._from_log(self._recorder.log.last, coin, 1)
        if newest.at < start:
            return newest
        found, highest = oldest[0], newest.position  # the first entry after `highest` is not before `start`
        while found.position < highest:
            middle = _between(found.position, highest)
            following = await self.log_after(coin, middle, 1)
            if following and following[0].at < start:
                found = following[0]
            else:
                highest = middle
        return found

    async def log_after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        """The log's entries after a position (None: from its oldest), ascending."""
        return await self._from_log(self._recorder.log.after, coin, position, limit)

    async def from_shard(self, coin: str, ask: Callable[[Shard], Awaitable[T]]) -> T:
        """The answer of the coin's shard, even if the coin has moved."""
        try:
            return await self._directory.ask(coin, ask)
        except (ShardUnavailableError, CoinMovedError) as error:
            raise HistoryUnavailableError(f"the log does not reach back that far, and {error}") from error

    async def _from_log(self, ask: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        try:
            async with self._log_reads:
                return await ask(*arguments)
        except LogUnavailableError as error:
            raise HistoryUnavailableError(error.detail) from error


def follows(quotes: Sequence[Quote], begin: Position | None) -> bool:
    """Whether these follow `begin` (None: begin with the coin's first quote) without a hole; no quotes do."""
    if begin is None and quotes and quotes[0].before is not None:
        return False
    return first_gap(quotes, begin) is None


def hole_error(coin: str) -> HistoryUnavailableError:
    """The error if every attempt met a hole."""
    return HistoryUnavailableError(f"the history of {coin} has a hole that is being filled")


def _gone_error(detail: str, floor: Quote | None) -> PositionGoneError:
    if floor is None:
        return PositionGoneError(detail, floor=None)
    return PositionGoneError(detail, floor=str(floor.position), floor_at=format_time(floor.at))


def _reaches(quotes: Sequence[Quote], begin: Position | None, newest: Position | None) -> bool:
    """Whether these, all that the log has after `begin`, go up to `newest`."""
    last = quotes[-1].position if quotes else begin
    return newest is None or (last is not None and last >= newest)


def _begins_at(quotes: Sequence[Quote], floor: Position | None) -> bool:
    return bool(quotes) and floor is not None and quotes[0].position <= floor


def _furthest(*positions: Position | None) -> Position | None:
    return max(filter(None, positions), default=None)


def _between(low: Position, high: Position) -> Position:
    """The middle of the positions from `low` to `high`: at least `low` and below `high`."""
    if low.epoch == high.epoch:
        return Position(low.epoch, (low.seq + high.seq) // 2)
    return Position((low.epoch + high.epoch) // 2, SEQ_MAX)


async def _through(shard: Shard, coin: str) -> Position | None:
    """The last position on the shard."""
    views = await shard.newest([coin], 1)
    if coin not in views:
        raise CoinMovedError(f"{shard.name} has no fence for {coin}")
    return views[coin].through
