"""Whether what the gateway tells of a coin goes on where we are: quotes and gaps in order, each once.

The one variable that decides is `known`, the position up to which everything was handed on, or told as a gap. What
follows it is handed on. What does not means that something was lost between the gateway and here, of which it does not
know: the connection is worth nothing any more, and on the next one we ask for what comes after `known`.

    what comes                                          what is handed on
    subscribed, from where it was asked                 nothing
    subscribed, not all of it to come                   nothing; a gap is to be told
    a quote that follows `known`                        the quote
    a gap that follows `known`                          the gap; `known` is its end
    the same, reason rewritten                          the gap; what follows may begin further back
    a gap, reason retracted, that ends at or beyond     the gap, up to `known`, which is its beginning from then on
      `known` and begins before it
    a quote, gap or heartbeat at or before `known`      nothing: an old one
    any further on: a hole that was not told            nothing: StreamMalformedError
    the same once more, though it was asked again       a gap, reason lost; then as if it followed
    anything else                                       nothing: StreamMalformedError

Invariants: nothing is handed on twice; quotes and gaps tile the history from the first `known` on.
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
    """A quote of the modes `conflate` and `interval`: it stands for all after `after`, None: from the first ever."""

    after: Position | None = None


StreamEvent = Quote | Gap


_BEFORE_ALL = Position(0, 0)


class _Phase(enum.Enum):
    ASKED = enum.auto()
    GAP_AWAITED = enum.auto()
    FOLLOWING = enum.auto()


class Continuity:
    """One coin; see the head of this file. `since` is what is known already; None: it begins where the gateway does."""

    def __init__(self, coin: str, since: Position | None) -> None:
        self.coin = coin
        self._known = since
        self._has_begun = since is not None  # something is known, if only that there is nothing yet
        self._phase = _Phase.ASKED
        self._asked = since
        self._base: Position | None = None  # where the gateway begins, once the awaited gap was told
        self._left: Position | None = None  # where another history ended, until a quote of the present one came
        self._last_gap: Gap | None = None  # told after the last quote
        self._is_doubted = False  # a hole after `known` showed, and is asked for again

    @property
    def is_answered(self) -> bool:
        """Whether the gateway has said where the coin begins."""
        return self._phase is not _Phase.ASKED

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is owed before the next quote: neither an answer nor the gap that it announced."""
        return self._phase is _Phase.FOLLOWING

    def ask(self) -> Position | None:
        """A new connection: after which position it is to go on; None where nothing is known."""
        self._phase = _Phase.ASKED
        self._asked = self._left if self._known is None else self._known
        return self._asked

    def begin(self, begun: CoinBegun) -> list[StreamEvent]:
        """The answer to the subscription."""
        if self.is_answered:
            return []
        if self._asked is None:
            return self._begin_anywhere(begun.position)
        if not begun.recovered:
            self._phase, self._base = _Phase.GAP_AWAITED, begun.position
        elif begun.position == self._asked:
            self._follow(self._asked, left=self._left)
        else:
            raise self._malformed(f"begins after {begun.position}, not after {self._asked}")
        return []

    def miss(self, gap: Gap) -> list[StreamEvent]:
        """A gap was told."""
        known = self._require_answer()
        if gap.reason is Reason.RETRACTED:
            return self._take_back(gap, known)
        is_awaited, is_told = self._phase is _Phase.GAP_AWAITED, gap == self._last_gap
        is_old = known is not None and gap.through <= known and gap.after != known
        if not is_awaited and (is_old or is_told):
            return []
        events: list[StreamEvent] = [] if is_told else [gap]
        if not is_told and gap.after != known:
            if gap.after is None or (known is not None and gap.after < known):
                raise self._malformed(f"a gap after {gap.after}, where {known} is known")
            events[:0] = self._doubt(Gap(self.coin, known, gap.after, Reason.LOST))
        is_rewritten = gap.reason is Reason.REWRITTEN
        left = gap.through if is_rewritten else None
        self._follow(self._base if is_awaited and is_rewritten else gap.through, left=left)
        self._last_gap = gap
        return events

    def _take_back(self, gap: Gap, known: Position | None) -> list[StreamEvent]:
        """What was told after `gap.after` does not count; what does comes next."""
        begin = gap.after or _BEFORE_ALL
        if known is None or not begin < known <= gap.through:
            return []  # nothing of that was handed on
        self._follow(gap.after)
        return [replace(gap, through=known)]

    def hear(self, told: QuoteFrame) -> list[StreamEvent]:
        """A quote came."""
        known, quote = self._require_answer(), told.quote
        if known is None or quote.position > known:
            hole = self._hole_before(told, known)
        elif self._phase is _Phase.GAP_AWAITED or known in (self._left, told.after):
            hole = Gap(self.coin, known, known, Reason.REWRITTEN)  # it is of another history, which is behind ours
        else:
            return []  # an old one
        lost: list[StreamEvent] = []
        if hole is not None:
            lost = self._doubt(hole)
            if hole.reason is Reason.REWRITTEN and known == self._left:
                lost = []  # it was told
        self._follow(quote.position)
        return [*lost, _newest(told) if told.is_newest else quote]

    def beat(self, position: Position | None) -> list[StreamEvent]:
        """A heartbeat said how far the coin was told."""
        known = self._require_answer()
        if position is None or (known is not None and position <= known):
            return []
        lost = self._doubt(Gap(self.coin, known, position, Reason.LOST))
        self._follow(position)
        return lost

    def is_at(self, position: Position | None) -> bool:
        """Whether this is where we are."""
        return position == self._known

    def _begin_anywhere(self, position: Position | None) -> list[StreamEvent]:
        """Nothing was asked for, also where the first quote ever is owed: there is no position before it to name."""
        is_owed = self._has_begun and position is not None
        lost: list[StreamEvent] = (
            [Gap(self.coin, None, position, Reason.LOST)] if is_owed and position is not None else []
        )
        self._follow(position)
        return lost

    def _hole_before(self, told: QuoteFrame, known: Position | None) -> Gap | None:
        """What is missing before a quote that is further on."""
        after = told.after
        if not told.is_newest:
            gap = FeedPosition(self.coin, known, has_begun=True).receive(told.quote).gap
            return None if gap is not None and gap.reason is Reason.REWRITTEN and known == self._left else gap
        if after == known:
            return None
        if after is not None and (known is None or after > known):
            return Gap(self.coin, known, after, Reason.LOST)
        if known == self._left:
            return None  # it reaches back to before the end of the other history, which was told
        raise self._malformed(f"a quote for all after {after}, where {known} is known")

    def _doubt(self, hole: Gap) -> list[StreamEvent]:
        """A hole that was not told: ask again, once; then it is one."""
        if not self._is_doubted:
            self._is_doubted = True
            raise self._malformed(f"nothing was told of what is after {hole.after}, through {hole.through}")
        return [hole if hole.reason is Reason.REWRITTEN else replace(hole, reason=Reason.LOST)]

    def _follow(self, position: Position | None, *, left: Position | None = None) -> None:
        if position != self._known or not self._has_begun:
            self._is_doubted = False
        self._known, self._left, self._last_gap = position, left, None
        self._has_begun, self._phase = True, _Phase.FOLLOWING

    def _require_answer(self) -> Position | None:
        """What was asked for, or what is known since; StreamMalformedError where the subscription was not answered."""
        if not self.is_answered:
            raise self._malformed("something came before the subscription was answered")
        return self._asked if self._phase is _Phase.GAP_AWAITED else self._known

    def _malformed(self, what: str) -> StreamMalformedError:
        return StreamMalformedError(f"{self.coin}: {what}")


def _newest(told: QuoteFrame) -> NewestQuote:
    return NewestQuote(**msgspec.structs.asdict(told.quote), after=told.after)
