"""Publish/subscribe over a wire that loses messages silently, with positions that reveal every loss.

Redis does not report that it dropped a message, cut a link or lost all its data. Here every quote has a position that
its writer counts without holes, and once a second a heartbeat on the same channel and connection carries the last
position that the writer tried to publish. So a subscriber always knows that it has a prefix of what was published, or
it can name the range that it lacks, including a lost last message.

The rules, where `last` is the last position accounted for (received, or reported as part of a gap):

    line                                           reported as missing         reason
    any, when nothing was received before          nothing: this is the start
    quote at or before `last`                      nothing: old, ignored
    quote that follows `last`                      nothing
    quote further on, in the same epoch            up to the one before it     lost
    first quote of an epoch, `prev` after `last`   up to `prev`                era
    later quote of another epoch                   up to the one before it     era
    first quote of an epoch, `prev` before `last`  an empty range              rewritten: `last` is not in the history
    heartbeat without a position, or not beyond    nothing: the feed is alive
    heartbeat beyond `last`, in the same epoch     up to its position          lost
    heartbeat beyond `last`, in another epoch      up to its position          era; lost if its `prev` is `last`

A feed may start before the first quote ever: a heartbeat without a position says so. From then on `last` is None,
which comes before every position, and the rules for another epoch apply to every epoch.

Invariants: `last` only rises; received and missing positions never overlap; together they are everything that the
writer has published since the start.

This module does not know what a socket is, or how a gap is filled.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from cotacoes.model.live_message import Heartbeat
from cotacoes.model.quote import Position, Quote

MESSAGE_BYTES_MAX = 1_048_576  # our largest message, a hundred lines, has some 30 KB


class Bus(Protocol):
    """A wire with channels. Every call ends by the bus's own deadline, with BusUnavailableError if the bus is away."""

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Send (channel, message) pairs in order, each once, and return how many subscribers received each.

        After BusUnavailableError some of them may have been received. ValueError beyond MESSAGE_BYTES_MAX.
        """

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """Iterate over every message published from now on, in order, until the link is dead.

        A dead link raises BusUnavailableError, from entering the context or from the iterator.
        """

    async def ping(self) -> None:
        """Return if the bus answers."""


class Reason(enum.StrEnum):
    """Why positions are missing."""

    LOST = "lost"
    ERA = "era"
    REWRITTEN = "rewritten"
    GONE = "gone"  # this and the following ones come from `recovery.py`, which reads the history
    RETRACTED = "retracted"
    UNREACHED = "unreached"
    HOLE = "hole"  # the history itself lacks them and continues after them


@dataclass(frozen=True, slots=True)
class Gap:
    """The positions of a coin that a subscriber lacks: after one (exclusive) through another (inclusive).

    `after` is None if everything from the first quote on is missing.
    """

    coin: str
    after: Position | None
    through: Position
    reason: Reason

    def fields(self) -> dict[str, str | None]:
        """The gap as fields of a message or a log line, with positions as text."""
        after = None if self.after is None else str(self.after)
        return {"coin": self.coin, "after": after, "through": str(self.through), "reason": self.reason.value}


@dataclass(frozen=True, slots=True)
class Heard:
    """What one line means: the gap that it reveals, if any, and whether it is a new quote."""

    gap: Gap | None = None
    is_new: bool = False


class FeedPosition:
    """How far a subscriber has come in one coin's feed, by the rules at the top of this module.

    `since` is the last position that it already has. None means that it begins with whatever comes first or, if
    `has_begun`, that it lacks everything from the first quote on.
    """

    def __init__(self, coin: str, since: Position | None = None, *, has_begun: bool = False) -> None:
        self.coin = coin
        self._last_received = since
        self._has_begun = has_begun or since is not None

    @property
    def has_begun(self) -> bool:
        """Whether anything was received, if only that there is no quote yet."""
        return self._has_begun

    @property
    def last_received(self) -> Position | None:
        """Last position received or reported missing; None before the first quote."""
        return self._last_received

    def advance(self, position: Position) -> None:
        """Note that everything up to this position was received in another way."""
        if self._last_received is None or position > self._last_received:
            self._last_received = position
        self._has_begun = True

    def receive(self, line: Quote | Heartbeat) -> Heard:
        """Account for the next line of the coin's channel."""
        position, last_received, has_begun = line.position, self._last_received, self._has_begun
        self._has_begun = True
        if position is None or (last_received is not None and position <= last_received):
            return Heard()
        self._last_received = position
        gap = self._gap_before(line, last_received) if has_begun else None
        return Heard(gap, is_new=isinstance(line, Quote))

    def _gap_before(self, line: Quote | Heartbeat, last: Position | None) -> Gap | None:
        if isinstance(line, Quote):
            return self._gap_before_quote(line, last)
        assert line.position is not None
        return self._gap_through(line.position, last, continues=line.prev == last)

    def _gap_before_quote(self, quote: Quote, last: Position | None) -> Gap | None:
        if quote.seq > 1:
            before = Position(quote.epoch, quote.seq - 1)
            return None if before == last else self._gap_through(before, last)
        if quote.prev == last:
            return None
        if last is not None and (quote.prev is None or quote.prev < last):
            return Gap(self.coin, last, last, Reason.REWRITTEN)
        assert quote.prev is not None
        return Gap(self.coin, last, quote.prev, Reason.ERA)

    def _gap_through(self, through: Position, last: Position | None, *, continues: bool = False) -> Gap:
        is_same_epoch = last is not None and last.epoch == through.epoch
        return Gap(self.coin, last, through, Reason.LOST if is_same_epoch or continues else Reason.ERA)


class FeedSilence:
    """Whether a feed says anything at all: silence is not a gap, but not good news either.

    It is armed from the start, so a feed that never sends is noticed too. Before the first message a feed has more
    time, since all services of a system start at once. Times are monotonic seconds, passed in.
    """

    def __init__(self, silent_after_s: float, now: float, first_after_s: float | None = None) -> None:
        self._silent_after_s = silent_after_s
        self._due = now + (silent_after_s if first_after_s is None else first_after_s)
        self.is_silent = False

    @property
    def due(self) -> float:
        """When the feed counts as silent if nothing comes."""
        return self._due

    def hear(self, now: float) -> bool:
        """Note that something came; True if that ends a silence."""
        self._due = now + self._silent_after_s
        was_silent, self.is_silent = self.is_silent, False
        return was_silent

    def fall_silent(self, now: float) -> bool:
        """True once, when the time has passed."""
        if self.is_silent or now < self.due:
            return False
        self.is_silent = True
        return True
