"""Continuity checks that what the gateway sends of a coin continues where we are: quotes and gaps in order, each once.

One variable decides: `last_emitted`, the position up to which everything was emitted, be it as a gap. What follows it
is emitted. What does not follow shows that something was lost on the way from the gateway without its knowledge: the
connection is useless, and the next one asks for what comes after `last_emitted`.

    the gateway sends                                   emitted
    subscribed, from where it was asked                 nothing
    subscribed, not everything will come                nothing; a gap must follow
    a quote that follows `last_emitted`                 the quote
    a gap that follows `last_emitted`                   the gap; `last_emitted` becomes its end
    the same, reason rewritten                          the gap; what follows may begin further back
    a gap, reason retracted, that ends at or beyond     the gap, up to `last_emitted`, which goes back to its beginning
      `last_emitted` and begins before it
    a quote, gap or heartbeat at or before              nothing: it is old
      `last_emitted`
    one further on: a hole that was not reported        nothing: StreamMalformedError
    the same once more, although we asked again         a gap, reason lost; then as if it followed
    anything else                                       nothing: StreamMalformedError

Invariants: nothing is emitted twice; quotes and gaps cover the history from the first `last_emitted` on.
"""

from __future__ import annotations

import enum
from dataclasses import replace

import msgspec

from cotacoes.client.frames import CoinBegun, QuoteFrame
from cotacoes.errors import StreamMalformedError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import FeedPosition, Gap, Reason


class NewestQuote(Quote, frozen=True, gc=False):
    """A quote in the modes `conflate` and `interval`: it stands for all after `after` (None: from the first ever)."""

    after: Position | None = None


StreamEvent = Quote | Gap


_BEFORE_ALL = Position(0, 0)


class _Phase(enum.Enum):
    ASKED = enum.auto()
    GAP_AWAITED = enum.auto()
    FOLLOWING = enum.auto()


class Continuity:
    """The continuity of one coin. It begins after `since`, or without it where the gateway begins."""

    def __init__(self, coin: str, since: Position | None) -> None:
        self.coin = coin
        self._last_emitted = since
        self._has_begun = since is not None  # something is known, if only that there is no quote yet
        self._phase = _Phase.ASKED
        self._asked = since
        self._base: Position | None = None  # where the gateway begins, after the awaited gap
        self._left: Position | None = None  # where another history ended, until a quote of the present one comes
        self._last_gap: Gap | None = None  # received after the last quote
        self._is_doubted = False  # a hole appeared after `last_emitted`, and was asked for again

    @property
    def is_answered(self) -> bool:
        """Whether the gateway has said where the coin begins."""
        return self._phase is not _Phase.ASKED

    @property
    def is_settled(self) -> bool:
        """Whether nothing is due before the next quote: neither an answer nor the gap that it announced."""
        return self._phase is _Phase.FOLLOWING

    def ask(self) -> Position | None:
        """Begin a new connection, and return the position after which it must continue; None if there is none."""
        self._phase = _Phase.ASKED
        self._asked = self._left if self._last_emitted is None else self._last_emitted
        return self._asked

    def begin(self, begun: CoinBegun) -> list[StreamEvent]:
        """Process the answer to the subscription."""
        if self.is_answered:
            return []
        if self._asked is None:
            return self._begin_anywhere(begun.position)
        if not begun.recovered:
            self._phase, self._base = _Phase.GAP_AWAITED, begun.position
        elif begun.position == self._asked:
            self._follow(self._asked, left=self._left)
        else:
            raise self._malformed(f"the stream begins after {begun.position}, not after {self._asked}")
        return []

    def miss(self, gap: Gap) -> list[StreamEvent]:
        """Process a gap."""
        last = self._require_answer()
        if gap.reason is Reason.RETRACTED:
            return self._take_back(gap, last)
        is_awaited, is_repeated = self._phase is _Phase.GAP_AWAITED, gap == self._last_gap
        is_old = last is not None and gap.through <= last and gap.after != last
        if not is_awaited and (is_old or is_repeated):
            return []
        events: list[StreamEvent] = [] if is_repeated else [gap]
        if not is_repeated and gap.after != last:
            if gap.after is None or (last is not None and gap.after < last):
                raise self._malformed(f"a gap begins after {gap.after}, but the stream is at {last}")
            events[:0] = self._doubt(Gap(self.coin, last, gap.after, Reason.LOST))
        is_rewritten = gap.reason is Reason.REWRITTEN
        left = gap.through if is_rewritten else None
        self._follow(self._base if is_awaited and is_rewritten else gap.through, left=left)
        self._last_gap = gap
        return events

    def _take_back(self, gap: Gap, last: Position | None) -> list[StreamEvent]:
        """Go back to `gap.after`: the quotes after it were false, and the true ones come next."""
        begin = gap.after or _BEFORE_ALL
        if last is None or not begin < last <= gap.through:
            return []  # none of them was emitted
        self._follow(gap.after)
        return [replace(gap, through=last)]

    def hear(self, frame: QuoteFrame) -> list[StreamEvent]:
        """Process a quote."""
        last, quote = self._require_answer(), frame.quote
        if last is None or quote.position > last:
            hole = self._hole_before(frame, last)
        elif self._phase is _Phase.GAP_AWAITED or last in (self._left, frame.after):
            hole = Gap(self.coin, last, last, Reason.REWRITTEN)  # another history, which is behind ours
        else:
            return []  # old
        lost: list[StreamEvent] = []
        if hole is not None:
            lost = self._doubt(hole)
            if hole.reason is Reason.REWRITTEN and last == self._left:
                lost = []  # already reported
        self._follow(quote.position)
        return [*lost, _newest(frame) if frame.is_newest else quote]

    def beat(self, position: Position | None) -> list[StreamEvent]:
        """Process the position of a heartbeat."""
        last = self._require_answer()
        if position is None or (last is not None and position <= last):
            return []
        lost = self._doubt(Gap(self.coin, last, position, Reason.LOST))
        self._follow(position)
        return lost

    def is_at(self, position: Position | None) -> bool:
        """Whether the stream has come to exactly this position."""
        return position == self._last_emitted

    def _begin_anywhere(self, position: Position | None) -> list[StreamEvent]:
        """Begin where the gateway does: no position was requested, even if nothing before the first quote is known."""
        is_lost = self._has_begun
        self._follow(position)
        return [Gap(self.coin, None, position, Reason.LOST)] if is_lost and position is not None else []

    def _hole_before(self, frame: QuoteFrame, last: Position | None) -> Gap | None:
        """The gap before a quote that is further on."""
        after = frame.after
        if not frame.is_newest:
            gap = FeedPosition(self.coin, last, has_begun=True).receive(frame.quote).gap
            return None if gap is not None and gap.reason is Reason.REWRITTEN and last == self._left else gap
        if after == last:
            return None
        if after is not None and (last is None or after > last):
            return Gap(self.coin, last, after, Reason.LOST)
        if last == self._left:
            return None  # it reaches back before the end of the other history, which was reported
        raise self._malformed(f"a quote stands for all after {after}, but the stream is at {last}")

    def _doubt(self, hole: Gap) -> list[StreamEvent]:
        """An unreported hole: ask for it again once; the second time it is a gap."""
        if not self._is_doubted:
            self._is_doubted = True
            raise self._malformed(f"nothing came of the positions after {hole.after} through {hole.through}")
        return [hole if hole.reason is Reason.REWRITTEN else replace(hole, reason=Reason.LOST)]

    def _follow(self, position: Position | None, *, left: Position | None = None) -> None:
        if position != self._last_emitted or not self._has_begun:
            self._is_doubted = False
        self._last_emitted, self._left, self._last_gap = position, left, None
        self._has_begun, self._phase = True, _Phase.FOLLOWING

    def _require_answer(self) -> Position | None:
        """The position that was requested or reached; StreamMalformedError before the subscription is answered."""
        if not self.is_answered:
            raise self._malformed("an event came before the answer to the subscription")
        return self._asked if self._phase is _Phase.GAP_AWAITED else self._last_emitted

    def _malformed(self, what: str) -> StreamMalformedError:
        return StreamMalformedError(f"{self.coin}: {what}")


def _newest(frame: QuoteFrame) -> NewestQuote:
    return NewestQuote(**msgspec.structs.asdict(frame.quote), after=frame.after)
