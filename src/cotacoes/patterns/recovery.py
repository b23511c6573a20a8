"""Recovery: what a wire brings and what the history holds become one sequence, each quote once, in order.

    wire ──▶ hear ──▶ FeedPosition ──▶ held back while something before it is missing ─┐
    history ◀── wanted                                                                 ├──▶ Seen … in order
    history ──▶ recover, gone, unknown ────────────────────────────────────────────────┘

The one variable that decides is `told`, the position up to which everything was handed on. A quote that follows it is
handed on; any other is held back, and what lies between is wanted from the history. So whatever the wire does (drops,
doubles, reorders, ends, is emptied, comes back with another era) shows as one of two cases: old, or a hole.

What is held back is bounded. At the bound it is dropped: the history has it too, so the hole only becomes wider. The
same is done where a second hole shows while the first is open. Memory therefore does not depend on how long the history
is away.

    the history says                                        handed on
    the quotes after `told`                                 they; Recovered once they meet what was held back
    `told` is below its floor                               Lost, reason gone, up to what it does hold
    it never gave `told`, and holds later quotes            Lost, reason rewritten, of nothing; then those, in order
    it never gave `told`, which lies beyond its end         Lost, reason rewritten; then as if started anew
    nothing: it is away                                     nothing, it is asked again; nothing is skipped meanwhile

Two starts: after a position `since`, from where everything is owed; or with the newest quotes that the history has, so
that there is something to show before the first price change. The second gives way to a live quote where the history
is away: a price must not wait for one that is older.

Invariants: positions of Seen rise; Seen and Lost of a coin tile the history from the start on, each position once.

Pure: whoever drives it asks the history, and says what came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from cotacoes.live import Heartbeat
from cotacoes.patterns.pub_sub import FeedPosition, Gap, Reason
from cotacoes.quote import Position, Quote

HELD_QUOTES_MAX = 10_000  # per coin; some 5 MB, and seconds of a feed that is fast


@dataclass(frozen=True, slots=True)
class Seen:
    """The next quote."""

    quote: Quote


@dataclass(frozen=True, slots=True)
class Missed:
    """The wire lost something; it is being fetched."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class Recovered:
    """All that was missed is handed on: `quotes` of them, after a position (exclusive) through another (inclusive)."""

    coin: str
    after: Position | None
    through: Position | None
    quotes: int

    def fields(self) -> dict[str, str | int | None]:
        """As it is told everywhere: positions as texts."""
        after, through = (None if position is None else str(position) for position in (self.after, self.through))
        return {"coin": self.coin, "after": after, "through": through, "quotes": self.quotes}


@dataclass(frozen=True, slots=True)
class Lost:
    """These will not come, for good."""

    gap: Gap


Event = Seen | Missed | Recovered | Lost


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask the history for: the quotes after a position (None: from the first), or the `last` ones."""

    after: Position | None
    last: int | None = None


class HistoryHoleError(ValueError):
    """An answer of the history that does not follow the position it was asked for."""


class Recovery:
    """One coin; see the head of this file. `start_quotes` are those to begin with where there is no `since`."""

    def __init__(self, coin: str, since: Position | None = None, *, start_quotes: int = 1) -> None:
        self.coin = coin
        self._start_quotes = start_quotes
        self._feed = FeedPosition(coin, since)
        self._told = since
        self._is_starting = since is None  # until the history has answered, or is not waited for
        self._has_begun = since is not None  # `told` means something
        self._is_catching_up = since is not None  # more may follow than the wire has told
        self._held: deque[Quote] = deque()
        self._missed_after: Position | None = None
        self._recovered: int | None = None  # since a miss was told; None where none is open

    @property
    def told(self) -> Position | None:
        """The position up to which everything was handed on."""
        return self._told

    @property
    def has_begun(self) -> bool:
        """Whether `told` means something: None is then before the first quote ever."""
        return self._has_begun and not self._is_starting

    @property
    def known(self) -> Position | None:
        """The furthest position that is known to exist."""
        return self._feed.known

    @property
    def wanted(self) -> Wanted | None:
        """What to ask the history for now; None where nothing is missing."""
        if self._is_starting:
            return Wanted(None, self._start_quotes)
        return Wanted(self._told) if self._is_catching_up or self._is_behind else None

    @property
    def is_holding(self) -> bool:
        """Whether live quotes are held back."""
        return bool(self._held)

    def hear(self, line: Quote | Heartbeat) -> list[Event]:
        """The next line of the coin's channel."""
        known = self._feed.known
        if not self._held and known is not None and known == self._told and _follows(line, known):
            self._told = line.position  # as all but always; the rest would come to the same, at thrice the cost
            self._feed.advance(self._told)
            return [Seen(line)]
        heard = self._feed.take(line)
        events: list[Event] = []
        if heard.gap is not None and heard.gap.reason is Reason.REWRITTEN:
            assert isinstance(line, Quote)
            events += self._break_off(known)
            self._told, self._has_begun, self._is_starting = line.before, True, False
        elif heard.gap is not None:
            self._held.clear()  # from the history as well: what is held is always one run without a hole
            if not self._is_starting:  # else it is before what we begin with, or found again behind it
                if self._recovered is None:
                    self._missed_after, self._recovered = self._told, 0
                events.append(Missed(heard.gap))
        if heard.is_new:
            assert isinstance(line, Quote)
            self._held.append(line)
            if len(self._held) > HELD_QUOTES_MAX:
                self._held.clear()
        return [*events, *self._release()]

    def skip_start(self) -> list[Event]:
        """The history does not answer: begin with what is heard, without the quotes before."""
        self._is_starting = False
        return list(self._release())

    def recover(self, wanted: Wanted, quotes: Sequence[Quote], *, more: bool) -> list[Event]:
        """The history's answer to `wanted`, ascending; `more` tells whether it has further ones.

        HistoryHoleError where they do not follow what was told: nothing was changed, ask again.
        """
        if wanted.last is not None:
            return self._begin_with(quotes) if self._is_starting else []
        new = [quote for quote in quotes if self._told is None or quote.position > self._told]
        is_from_floor = wanted.after is None and self._told is None
        before = new[0].before if new and is_from_floor else self._told
        for quote in new:
            if quote.before != before:
                raise HistoryHoleError(f"the history of {self.coin} goes on with {quote.position} after {before}")
            before = quote.position
        events: list[Event] = []
        if new and new[0].before != self._told:
            assert new[0].before is not None
            events += self._give_up(new[0].before, Reason.GONE)
        events += self._tell(new)
        self._is_catching_up = self._is_catching_up and more
        return [*events, *self._release()]

    def gone(self, floor: Quote | None) -> list[Event]:
        """What comes after `told` is no longer held; `floor` is the oldest quote that is, None if nothing is."""
        if floor is not None and floor.before is None:  # the first quote ever: `told` is of another history
            return self.restart(None)
        through = self._next_held_before() if floor is None else floor.before
        if through is None or (self._told is not None and through <= self._told):
            return []  # it was answered before, or is held by now
        return [*self._give_up(through, Reason.GONE), *self._release()]

    def unknown(self) -> list[Event]:
        """The history never gave `told` and ends before it: begin anew with its newest quotes."""
        events = self._break_off(self._feed.known)
        self._feed = FeedPosition(self.coin)
        self._told, self._has_begun, self._is_starting, self._is_catching_up = None, False, True, False
        return events

    def restart(self, after: Position | None) -> list[Event]:
        """The history never gave `told`, and holds later quotes: go on with those after a position (None: all)."""
        events = self._break_off(self._told)
        self._feed = FeedPosition(self.coin, after)
        self._feed.has_begun = True
        self._told, self._has_begun, self._is_starting, self._is_catching_up = after, True, False, True
        return events

    @property
    def _is_behind(self) -> bool:
        """Whether something is missing; what is held back by itself would follow."""
        known = self._feed.known
        return bool(self._held) or (
            self._has_begun and known is not None and (self._told is None or known > self._told)
        )

    def _next_held_before(self) -> Position | None:
        return self._held[0].before if self._held else self._feed.known

    def _begin_with(self, quotes: Sequence[Quote]) -> list[Event]:
        self._is_starting, self._has_begun = False, True
        if not quotes:
            return list(self._release())  # nothing was ever recorded: everything is owed
        self._told = quotes[0].before
        return [*self._tell(quotes), *self._release()]

    def _tell(self, quotes: Sequence[Quote]) -> list[Event]:
        """Hand on what the history gave."""
        if not quotes:
            return []
        self._told = quotes[-1].position
        self._feed.advance(self._told)
        if self._recovered is not None:
            self._recovered += len(quotes)
        return [Seen(quote) for quote in quotes]

    def _give_up(self, through: Position, reason: Reason) -> Iterator[Event]:
        yield Lost(Gap(self.coin, self._told, through, reason))
        self._told = through
        self._feed.advance(through)

    def _break_off(self, known: Position | None) -> list[Event]:
        """Tell everything up to `known` as lost, in another history."""
        self._held.clear()
        self._recovered = None
        through = max((p for p in (self._told, known) if p is not None), default=None)
        return [] if through is None else [Lost(Gap(self.coin, self._told, through, Reason.REWRITTEN))]

    def _release(self) -> Iterator[Event]:
        """Hand on what is held back, as far as nothing before it is missing."""
        if self._is_starting:
            return
        if not self._has_begun and (self._held or self._feed.has_begun):
            self._told = self._next_held_before()
            self._has_begun = True
        while self._held and self._told is not None and self._held[0].position <= self._told:
            self._held.popleft()
        follows = bool(self._held) and self._held[0].before == self._told
        if self._recovered is not None and (follows or not self._is_behind):
            yield Recovered(self.coin, self._missed_after, self._told, self._recovered)
            self._recovered = None
        if follows:  # and so does the rest: what is held is one run
            self._told = self._held[-1].position
            held, self._held = self._held, deque()
            yield from map(Seen, held)


def _follows(line: Quote | Heartbeat, position: Position) -> TypeGuard[Quote]:
    """Whether it is the next quote of the same era."""
    return isinstance(line, Quote) and line.epoch == position.epoch and line.seq == position.seq + 1
