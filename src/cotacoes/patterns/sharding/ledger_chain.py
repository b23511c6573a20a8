"""The chain of a coin's history: every position follows the one before it, over days, eras and what was dropped.

Day by day, ascending, the chain is told what is stored, and says what does not fit. Quotes come as *pieces*: what one
day holds of one era, as counted from its rows. Three accounts of the same history are held against each other:

    rows      in a piece no position is missing or doubled; each piece begins right behind the one before it
    eras      what an era says stood before it is what stands there
    day rows  first, last and count are those of the rows; of a sealed day the sum and the digest as well

Of a dropped day only its row counts, the manifest. With the eras it still tells which pieces there were, so the chain
goes on through it, and its count is checked. Its quotes are erased some time later, all at once: all of them may still
be there, a part may not. At the end stands the fence, with the first and the last position held.

A *hole* that was noted when it came to be is a link of the chain, wherever it lies: what stands before and behind it is
what was noted. It has to be there, too.

Pure: it reads nothing, and of a day it keeps nothing but its end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

from cotacoes.model.candle import STORED_MINUTES
from cotacoes.model.quote import Position, format_price, format_time
from cotacoes.patterns.sharding.ledger_facts import (
    NONE,
    Breach,
    CandleTotal,
    Content,
    Discontinuity,
    Ends,
    Manifest,
    Piece,
    StoredDay,
)


class LedgerChain:
    """See the head of this file.

    `eras` maps each era to the position that it says stood before it, `holes` each position behind a noted hole to the
    one before it, None if there was none.

    `last` is how far the chain has come, `quotes` and `epochs` are what it has seen on the way.
    """

    def __init__(self, eras: Mapping[int, Position], holes: Mapping[Position, Position | None] | None = None) -> None:
        self.last: Position | None = None
        self.quotes = 0
        self.epochs: set[int] = set()
        self._eras = eras
        self._holes = holes or {}
        self._passed: set[Position] = set()  # the holes that are where they were noted
        self._numbers = sorted(eras)
        self._floor: Position | None = None  # the first position of a quote that is held
        self._last_at: datetime | None = None  # None too while the last position is that of a dropped day

    def take(self, day: StoredDay) -> list[Breach]:
        """The next day, later than all before; what is wrong with it."""
        if day.manifest is not None and day.manifest.is_dropped:
            return [*self._dropped_day(day, day.manifest)]
        return [*_against_manifest(day), *self._held_day(day)]

    def end(self, fence: Ends) -> list[Breach]:
        """What is wrong with the fence, and with eras that no quote has begun."""
        return [*self._against_fence(fence), *self._without_quote(), *self._without_hole()]

    def _held_day(self, day: StoredDay) -> Iterator[Breach]:
        explained = {step.position.epoch for step in day.steps if not self._is_noted(step.before, step.position)}
        for piece in day.pieces:
            yield from self._follow(piece.first)
            span = piece.last.seq - piece.first.seq + 1 - self._missing_in(piece)
            if piece.count != span and piece.first.epoch not in explained:
                what = f"number of positions from {piece.first} to {piece.last}"
                yield Breach(str(day.day), what, str(piece.count), str(span))
            if piece.nameless:
                yield Breach(str(day.day), "quotes without a known origin", str(piece.nameless), "0")
            self._go_to(piece.last, piece.last_at)
            self._floor = self._floor or piece.first
            self.quotes += piece.count
        for step in day.steps:
            yield from _step_breaches(step, is_noted=self._is_noted(step.before, step.position))

    def _is_noted(self, before: Position | None, behind: Position) -> bool:
        return behind in self._holes and self._holes[behind] == before

    def _missing_in(self, piece: Piece) -> int:
        """How many positions a piece lacks by the holes within it."""
        missing = 0
        for behind, after in self._holes.items():
            if after is not None and piece.first <= after and behind <= piece.last:
                missing += behind.seq - after.seq - 1
                self._passed.add(behind)
        return missing

    def _dropped_day(self, day: StoredDay, manifest: Manifest) -> Iterator[Breach]:
        held = sum(piece.count for piece in day.pieces)
        if held and (held, day.pieces[0].first, day.pieces[-1].last) != (manifest.count, manifest.first, manifest.last):
            yield Breach(str(day.day), "quotes held of a dropped day", str(held), "0")
        if self._floor is not None:
            yield Breach(str(day.day), f"state of a day behind {self._floor}, which is held", "dropped", "held")
        yield from self._follow(manifest.first)
        yield from self._through(day, manifest)
        self._go_to(manifest.last, None)

    def _through(self, day: StoredDay, manifest: Manifest) -> Iterator[Breach]:
        """The count of a dropped day, from the eras that began in it, and its holes."""
        begin, end = (bisect_right(self._numbers, epoch) for epoch in (manifest.first.epoch, manifest.last.epoch))
        numbers = self._numbers[begin:end]
        self.epochs.update(numbers, [manifest.first.epoch])
        links = {Position(number, 1): self._eras[number] for number in numbers}
        for behind, after in self._holes.items():
            if after is not None and manifest.first <= after and behind <= manifest.last:
                links[behind] = after
                self._passed.add(behind)
        count = 0
        start = manifest.first
        for begins, last in [*sorted(links.items()), (None, manifest.last)]:
            if last.epoch != start.epoch or last.seq < start.seq:
                place, what = (str(begins), "position before its era") if begins else (str(day.day), "last position")
                yield Breach(place, what, str(last), f"one of the era that begins with {start}")
                return
            count += last.seq - start.seq + 1
            start = begins or start
        if count != manifest.count:
            yield Breach(str(day.day), "count of the day row", str(manifest.count), str(count))

    def _follow(self, first: Position) -> Iterator[Breach]:
        """Whether a piece that begins with `first` begins right behind the last one."""
        before, place = self.last, str(first)
        if self._is_noted(before, first):
            self._passed.add(first)
            return
        prev = self._eras.get(first.epoch) if first.seq == 1 else None
        if before is not None and first <= before:
            yield Breach(place, f"position that should rise above {before} of the day before", place, _next(before))
        elif before is not None and first.epoch == before.epoch:
            if first.seq != before.seq + 1:
                yield Breach(place, f"position after {before}", place, _next(before))
        elif first.seq != 1:
            yield Breach(place, "first position of its era", place, f"{first.epoch}-1")
        elif prev != before:
            yield Breach(place, "position before its era", _text(prev), _text(before))

    def _go_to(self, last: Position, at: datetime | None) -> None:
        self.epochs.add(last.epoch)
        if self.last is None or last >= self.last:
            self.last, self._last_at = last, at

    def _against_fence(self, fence: Ends) -> Iterator[Breach]:
        if fence.last != self.last:
            yield Breach("fence", "last position", _text(fence.last), _text(self.last))
        known_at = self._last_at is not None or self.last is None
        if known_at and fence.last_at != self._last_at:
            yield Breach("fence", "time of the last position", _time(fence.last_at), _time(self._last_at))
        if self._floor is not None:
            if fence.floor != self._floor:
                yield Breach("fence", "first position held", _text(fence.floor), str(self._floor))
        elif fence.floor is not None and (self.last is None or fence.floor <= self.last):
            yield Breach("fence", "first position held", str(fence.floor), NONE)

    def _without_quote(self) -> Iterator[Breach]:
        for number in self._numbers:
            if number not in self.epochs:
                yield Breach(f"{number}-1", "quotes of an era that follows a position", "0", "at least 1")

    def _without_hole(self) -> Iterator[Breach]:
        for behind in sorted(self._holes.keys() - self._passed):
            yield Breach(str(behind), "hole noted before it", _text(self._holes[behind]), "none, as nothing is missing")


def _against_manifest(day: StoredDay) -> Iterator[Breach]:
    place, manifest, pieces = str(day.day), day.manifest, day.pieces
    count = sum(piece.count for piece in pieces)
    if manifest is None:
        if pieces:
            yield Breach(place, "day row", NONE, f"one of {count} from {pieces[0].first} to {pieces[-1].last}")
        return
    if not pieces:
        yield Breach(place, "quotes held of the day", "0", str(manifest.count))
        return
    for what, found, wanted in (
        ("first position of the day row", manifest.first, pieces[0].first),
        ("last position of the day row", manifest.last, pieces[-1].last),
        ("count of the day row", manifest.count, count),
    ):
        if found != wanted:
            yield Breach(place, what, str(found), str(wanted))
    if manifest.content is not None:
        yield from content_breaches(place, "the sealed day", manifest.content, day.content)


def content_breaches(place: str, whose: str, found: Content, wanted: Content | None) -> Iterator[Breach]:
    """How two contents differ; `wanted` None: there are no quotes."""
    wanted = wanted or Content(0, Decimal(0), Decimal(0))
    if found.count != wanted.count:
        yield Breach(place, f"count of {whose}", str(found.count), str(wanted.count))
    if found.sum != wanted.sum:
        yield Breach(place, f"sum of {whose}", format_price(found.sum), format_price(wanted.sum))
    if found.digest != wanted.digest:
        yield Breach(place, f"digest of {whose}", str(found.digest), str(wanted.digest))


def total_breaches(day: date, manifest: Manifest, totals: Sequence[CandleTotal]) -> Iterator[Breach]:
    """Where the candles of a dropped day, which are all that is left of its prices, are not those of its manifest."""
    assert manifest.content is not None
    by_minutes = {total.minutes: total for total in totals}
    for minutes in STORED_MINUTES:
        total = by_minutes.get(minutes, CandleTotal(minutes, 0, 0, Decimal(0)))
        what = f"of the candles of {minutes} min"
        if total.count != manifest.count:
            yield Breach(str(day), f"quotes {what}", str(total.count), str(manifest.count))
        if total.sum != manifest.content.sum:
            yield Breach(str(day), f"sum {what}", format_price(total.sum), format_price(manifest.content.sum))


def _step_breaches(step: Discontinuity, *, is_noted: bool) -> Iterator[Breach]:
    place = str(step.position)
    if not is_noted and step.position.epoch == step.before.epoch and step.position.seq != step.before.seq + 1:
        yield Breach(place, f"position after {step.before}", place, _next(step.before))
    if step.at < step.before_at:
        wanted = f"{_time(step.before_at)} or later"
        yield Breach(place, f"time, which falls after {step.before}", _time(step.at), wanted)


def _next(position: Position) -> str:
    return f"{position.epoch}-{position.seq + 1}"


def _text(position: Position | None) -> str:
    return NONE if position is None else str(position)


def _time(at: datetime | None) -> str:
    return NONE if at is None else format_time(at)
