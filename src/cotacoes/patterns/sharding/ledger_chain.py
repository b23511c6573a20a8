"""The chain of a coin's history: each position follows the one before it, across days, epochs and dropped days.

The chain is given what is stored, day by day in ascending order, and returns what does not fit. Quotes come as
*pieces*: what one day holds of one epoch, counted from its rows. Three accounts of the same history are compared:

    rows      no position is missing or doubled within a piece; each piece begins right behind the one before it
    epochs    the position that an epoch names as its predecessor is the one found there
    day rows  first, last and count match the rows; for a sealed day the sum and the digest do as well

Of a dropped day only its row counts: together with the epochs it shows which pieces there were, so the chain goes
through it and its count is checked. The quotes of a dropped day are erased later, all at once: either all of them are
still held or none, but never a part. The fence, with the first and last position held, comes at the end.

A *hole* that was noted when it arose is a link of the chain, wherever it lies: the positions before and behind it must
be those that were noted. A noted hole must also exist.

Pure: it reads nothing, and remembers of a day only its end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from cotacoes.model.candle import STORED_MINUTES
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.ledger_facts import (
    NONE,
    Breach,
    CandleTotal,
    CoinCopy,
    Content,
    DayRow,
    Discontinuity,
    Piece,
    StoredDay,
    differences,
    text_of,
)


class LedgerChain:
    """The chain of one coin; see the module's docstring.

    `predecessors` maps each epoch to the position that it names before its first one. `holes` maps each position behind
    a noted hole to the position before it, None if there was none.

    `last` is the position that the chain has reached; `quotes` and `epochs` are what it has seen on the way.
    """

    def __init__(
        self, predecessors: Mapping[int, Position], holes: Mapping[Position, Position | None] | None = None
    ) -> None:
        self.last: Position | None = None
        self.quotes = 0
        self.epochs: set[int] = set()
        self._predecessors = predecessors
        self._holes = holes or {}
        self._passed: set[Position] = set()  # the holes that are where they were noted
        self._linked_epochs = sorted(predecessors)
        self._floor: Position | None = None  # the first position of a quote that is held
        self._last_at: datetime | None = None  # None too while the last position is that of a dropped day

    def add(self, day: StoredDay) -> list[Breach]:
        """Append a day, later than all before; returns what is wrong with it."""
        if day.row is not None and day.row.is_dropped:
            return [*self._dropped_day(day, day.row)]
        return [*_row_breaches(day), *self._held_day(day)]

    def end(self, fence: CoinCopy) -> list[Breach]:
        """What is wrong with the fence, with epochs that have no quote, and with holes that do not exist."""
        return [*self._fence_breaches(fence), *self._empty_epochs(), *self._missing_holes()]

    def _held_day(self, day: StoredDay) -> Iterator[Breach]:
        explained = {one.position.epoch for one in day.discontinuities if not self._is_noted(one.before, one.position)}
        for piece in day.pieces:
            yield from self._follow(piece.first)
            span = piece.last.seq - piece.first.seq + 1 - self._missing_in(piece)
            if piece.count != span and piece.first.epoch not in explained:
                what = f"number of positions from {piece.first} to {piece.last}"
                yield Breach(str(day.day), what, str(piece.count), str(span))
            if piece.nameless:
                yield Breach(str(day.day), "quotes without a known origin", str(piece.nameless), "0")
            self._advance(piece.last, piece.last_at)
            self._floor = self._floor or piece.first
            self.quotes += piece.count
        for one in day.discontinuities:
            yield from _discontinuity_breaches(one, is_noted=self._is_noted(one.before, one.position))

    def _is_noted(self, before: Position | None, behind: Position) -> bool:
        return behind in self._holes and self._holes[behind] == before

    def _missing_in(self, piece: Piece) -> int:
        """How many positions a piece lacks because of the holes within it."""
        holes = self._pass_holes(piece.first, piece.last)
        return sum(behind.seq - after.seq - 1 for behind, after in holes.items())

    def _pass_holes(self, first: Position, last: Position) -> dict[Position, Position]:
        """The noted holes between two positions, which are thereby where they were noted."""
        holes = {
            behind: after
            for behind, after in self._holes.items()
            if after is not None and first <= after and behind <= last
        }
        self._passed.update(holes)
        return holes

    def _dropped_day(self, day: StoredDay, row: DayRow) -> Iterator[Breach]:
        held = sum(piece.count for piece in day.pieces)
        if held and (held, day.pieces[0].first, day.pieces[-1].last) != (row.count, row.first, row.last):
            yield Breach(str(day.day), "quotes held of a dropped day", str(held), "0")
        if self._floor is not None:
            yield Breach(str(day.day), f"state of a day behind {self._floor}, which is held", "dropped", "held")
        yield from self._follow(row.first)
        yield from self._count_dropped(row)
        self._advance(row.last, None)

    def _count_dropped(self, row: DayRow) -> Iterator[Breach]:
        """Check the count of a dropped day by the epochs that began in it and by its holes."""
        begin, end = (bisect_right(self._linked_epochs, epoch) for epoch in (row.first.epoch, row.last.epoch))
        epochs = self._linked_epochs[begin:end]
        self.epochs.update(epochs, [row.first.epoch])
        links = {Position(epoch, 1): self._predecessors[epoch] for epoch in epochs}
        links |= self._pass_holes(row.first, row.last)
        count = 0
        start = row.first
        for begins, last in [*sorted(links.items()), (None, row.last)]:
            if last.epoch != start.epoch or last.seq < start.seq:
                place, what = (str(begins), "position before its epoch") if begins else (str(row.day), "last position")
                yield Breach(place, what, str(last), f"one of the epoch that begins with {start}")
                return
            count += last.seq - start.seq + 1
            start = begins or start
        yield from differences(str(row.day), ("count of the day row", row.count, count))

    def _follow(self, first: Position) -> Iterator[Breach]:
        """Check that a piece that begins with `first` begins right behind the last one."""
        before, place = self.last, str(first)
        if self._is_noted(before, first):
            self._passed.add(first)
            return
        prev = self._predecessors.get(first.epoch) if first.seq == 1 else None
        if before is not None and first <= before:
            yield Breach(place, f"position that should rise above {before} of the day before", place, _next(before))
        elif before is not None and first.epoch == before.epoch:
            if first.seq != before.seq + 1:
                yield Breach(place, f"position after {before}", place, _next(before))
        elif first.seq != 1:
            yield Breach(place, "first position of its epoch", place, f"{first.epoch}-1")
        elif prev != before:
            yield Breach(place, "position before its epoch", text_of(prev), text_of(before))

    def _advance(self, last: Position, at: datetime | None) -> None:
        self.epochs.add(last.epoch)
        if self.last is None or last >= self.last:
            self.last, self._last_at = last, at

    def _fence_breaches(self, fence: CoinCopy) -> Iterator[Breach]:
        yield from differences("fence", ("last position", fence.last, self.last))
        if self._last_at is not None or self.last is None:
            yield from differences("fence", ("time of the last position", fence.last_at, self._last_at))
        # without a quote that is held, a fence that expects the next one behind the last position is right as well
        if self._floor is not None or self.last is None or fence.floor is None or fence.floor <= self.last:
            yield from differences("fence", ("first position held", fence.floor, self._floor))

    def _empty_epochs(self) -> Iterator[Breach]:
        for epoch in self._linked_epochs:
            if epoch not in self.epochs:
                yield Breach(f"{epoch}-1", "quotes of an epoch that follows a position", "0", "at least 1")

    def _missing_holes(self) -> Iterator[Breach]:
        for behind in sorted(self._holes.keys() - self._passed):
            yield Breach(
                str(behind), "hole noted before it", text_of(self._holes[behind]), "none, as nothing is missing"
            )


def _row_breaches(day: StoredDay) -> Iterator[Breach]:
    """How the row of a day that is held differs from its quotes."""
    place, row, pieces = str(day.day), day.row, day.pieces
    count = sum(piece.count for piece in pieces)
    if row is None:
        if pieces:
            yield Breach(place, "day row", NONE, f"one of {count} from {pieces[0].first} to {pieces[-1].last}")
        return
    if not pieces:
        yield Breach(place, "quotes held of the day", "0", str(row.count))
        return
    yield from differences(
        place,
        ("first position of the day row", row.first, pieces[0].first),
        ("last position of the day row", row.last, pieces[-1].last),
        ("count of the day row", row.count, count),
    )
    if row.manifest is not None:
        yield from content_breaches(place, "the sealed day", row.manifest, day.content)


def content_breaches(place: str, whose: str, found: Content, wanted: Content | None) -> Iterator[Breach]:
    """How two contents differ; `wanted` is None if there are no quotes."""
    wanted = wanted or Content()
    return differences(
        place,
        (f"count of {whose}", found.count, wanted.count),
        (f"sum of {whose}", found.sum, wanted.sum),
        (f"digest of {whose}", found.digest, wanted.digest),
    )


def total_breaches(row: DayRow, totals: Sequence[CandleTotal]) -> Iterator[Breach]:
    """How the candles of a dropped day, all that is left of its prices, differ from its manifest."""
    assert row.manifest is not None
    by_minutes = {total.minutes: total for total in totals}
    for minutes in STORED_MINUTES:
        total = by_minutes.get(minutes, CandleTotal(minutes, 0, 0, Content().sum))
        candles = f"of the candles of {minutes} min"
        yield from differences(
            str(row.day),
            (f"quotes {candles}", total.count, row.count),
            (f"sum {candles}", total.sum, row.manifest.sum),
        )


def _discontinuity_breaches(one: Discontinuity, *, is_noted: bool) -> Iterator[Breach]:
    place = str(one.position)
    if not is_noted and one.position.epoch == one.before.epoch and one.position.seq != one.before.seq + 1:
        yield Breach(place, f"position after {one.before}", place, _next(one.before))
    if one.at < one.before_at:
        wanted = f"{text_of(one.before_at)} or later"
        yield Breach(place, f"time, which falls after {one.before}", text_of(one.at), wanted)


def _next(position: Position) -> str:
    return f"{position.epoch}-{position.seq + 1}"
