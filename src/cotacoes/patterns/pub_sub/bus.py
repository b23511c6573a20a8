"""Publish/subscribe: a wire that loses silently, and positions that tell what was lost.

A subscriber of Redis is not told when a message was dropped, its link was cut, or the server was emptied. Here every
quote has a position that its writer counts without holes, and each second a heartbeat on the same channel and
connection carries the last position whose publish was tried. So the subscriber knows by itself: what it has is a prefix
of what was published, or it can name the range that it lacks, the very last message included.

The rules, for what comes when `known` is the last position accounted for (received, or told as part of a gap):

    what comes                                     told as missing             reason
    anything, nothing heard yet                    nothing: it is the start
    quote at or before `known`                     nothing: an old one, ignored
    quote that follows `known`                     nothing
    quote further on, of the same era              up to the one before it     lost
    first quote of an era, its `prev` further on   up to `prev`                era
    later quote of another era                     up to the one before it     era
    first quote of an era, its `prev` not reached  an empty range              rewritten: `known` is not in the history
    heartbeat without a position, or not beyond    nothing: the feed is alive
    heartbeat beyond, of the same era              up to its position          lost
    heartbeat beyond, of another era               up to its position          era; lost where its `prev` is `known`

A feed may start before the first quote that there ever was: a heartbeat without a position says so. From then on
`known` is None, before every position, and what the rules say of another era holds for every era.

Invariants: `known` only rises; what was received and what was told as missing never overlap; together they are all
that the writer published since the start.

This file refuses to know what a socket is, and what anybody does about a gap.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from cotacoes.model.live_message import Heartbeat
from cotacoes.model.quote import Position, Quote

MESSAGE_BYTES_MAX = 1_048_576  # a hundred lines have some 30 KB; nothing of ours comes near


class Bus(Protocol):
    """A wire with channels. Every call ends by the bus's own deadline, with BusUnavailableError where it is away."""

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Send (channel, message) pairs in order, each once; how many heard each.

        After BusUnavailableError any part of them may have been heard. ValueError beyond MESSAGE_BYTES_MAX.
        """

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """Listen: inside the context every message published from now on comes, in order, until the link is dead.

        A dead link is BusUnavailableError, from entering the context or from the iterator.
        """

    async def ping(self) -> None:
        """Return where the bus can answer."""


class Reason(enum.StrEnum):
    """Why something is missing."""

    LOST = "lost"
    ERA = "era"
    REWRITTEN = "rewritten"
    GONE = "gone"  # this and what follows is said by `recovery.py`, which asks the history
    RETRACTED = "retracted"
    UNREACHED = "unreached"
    HOLE = "hole"  # the history itself lacks them, and goes on behind them


@dataclass(frozen=True, slots=True)
class Gap:
    """What a subscriber lacks of a coin: the positions `after` (exclusive) `through` (inclusive).

    `after` is None where it lacks all from the first quote that there ever was.
    """

    coin: str
    after: Position | None
    through: Position
    reason: Reason

    def fields(self) -> dict[str, str | None]:
        """As it is told everywhere: positions as texts, `after` null where it is None."""
        after = None if self.after is None else str(self.after)
        return {"coin": self.coin, "after": after, "through": str(self.through), "reason": self.reason.value}


@dataclass(frozen=True, slots=True)
class Heard:
    """What one line meant: first the gap that it shows, then, where `is_new`, the quote itself."""

    gap: Gap | None = None
    is_new: bool = False


class FeedPosition:
    """How far a subscriber has come in one coin's feed; see the head of this file.

    `since` is the last position that it already has. None means that it begins with whatever comes first or, if
    `has_begun`, that it lacks everything from the first quote on.
    """

    def __init__(self, coin: str, since: Position | None = None, *, has_begun: bool = False) -> None:
        self.coin = coin
        self._known = since
        self._has_begun = has_begun or since is not None

    @property
    def has_begun(self) -> bool:
        """Whether anything is known, if only that there is no quote yet."""
        return self._has_begun

    @property
    def known(self) -> Position | None:
        """The last position accounted for; None where nothing was heard, or nothing but that there is none."""
        return self._known

    def advance(self, position: Position) -> None:
        """Everything up to this position was had in another way."""
        if self._known is None or position > self._known:
            self._known = position
        self._has_begun = True

    def take(self, line: Quote | Heartbeat) -> Heard:
        """Account for the next line of the coin's channel."""
        position, known, has_begun = line.position, self._known, self._has_begun
        self._has_begun = True
        if position is None or (known is not None and position <= known):
            return Heard()
        self._known = position
        gap = self._gap_before(line, known) if has_begun else None
        return Heard(gap, is_new=isinstance(line, Quote))

    def _gap_before(self, line: Quote | Heartbeat, known: Position | None) -> Gap | None:
        if isinstance(line, Quote):
            return self._gap_before_quote(line, known)
        assert line.position is not None
        return self._gap_through(line.position, known, continues=line.prev == known)

    def _gap_before_quote(self, quote: Quote, known: Position | None) -> Gap | None:
        if quote.seq > 1:
            before = Position(quote.epoch, quote.seq - 1)
            return None if before == known else self._gap_through(before, known)
        if quote.prev == known:
            return None
        if known is not None and (quote.prev is None or quote.prev < known):
            return Gap(self.coin, known, known, Reason.REWRITTEN)
        assert quote.prev is not None
        return Gap(self.coin, known, quote.prev, Reason.ERA)

    def _gap_through(self, through: Position, known: Position | None, *, continues: bool = False) -> Gap:
        is_same_era = known is not None and known.epoch == through.epoch
        return Gap(self.coin, known, through, Reason.LOST if is_same_era or continues else Reason.ERA)


class FeedSilence:
    """Whether a feed says anything at all: silence is not a gap, and not good news either.

    Armed from the start, so that a feed that never sends is noticed too; before its first word it has longer, since all
    parts of a system start at once. Times are monotonic seconds, passed in.
    """

    def __init__(self, silent_after_s: float, now: float, first_after_s: float | None = None) -> None:
        self._silent_after_s = silent_after_s
        self._due = now + (silent_after_s if first_after_s is None else first_after_s)
        self.is_silent = False

    @property
    def due(self) -> float:
        """When the feed is to be called silent if nothing comes."""
        return self._due

    def hear(self, now: float) -> bool:
        """Something came; True where that ends a silence."""
        self._due = now + self._silent_after_s
        was_silent, self.is_silent = self.is_silent, False
        return was_silent

    def fall_silent(self, now: float) -> bool:
        """True once, when the time is over."""
        if self.is_silent or now < self.due:
            return False
        self.is_silent = True
        return True
