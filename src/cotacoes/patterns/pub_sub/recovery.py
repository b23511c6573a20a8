"""Recovery: what a wire brings and what the history holds become one sequence, each quote once, in order.

    wire ──▶ hear ──▶ FeedPosition ──▶ held back while something before it is missing ─┐
    history ◀── wanted                                                                 ├──▶ Seen … in order
    history ──▶ recover, gone, unknown, restart ───────────────────────────────────────┘

The one variable that decides is `told`, the position up to which everything was handed on. The quote of the same era
that follows it is handed on; any other is held back, and what lies between is wanted from the history. So whatever the
wire does (drops, doubles, reorders, ends, is emptied, comes back with another era) shows as one of two cases: old, or a
hole. The word of another era is a hole as well, if only of nothing: the history says whether it is ours.

What is held back is bounded. At the bound it is dropped: the history has it too, so the hole only becomes wider. The
same is done if a second hole shows while the first is open. So memory is bounded however long the history is away.

    the history says                                        handed on
    the quotes after `told`                                 they; Recovered once they meet what was held back
    the same, and gaps between them                         Lost, reason hole, in their places
    `told` is below its floor                               Lost, reason gone, up to what it does hold
    it never gave `told`, and holds later quotes            Lost, reason rewritten, of nothing; then those, in order
    it never gave `told`, which lies beyond its end         Lost, reason rewritten; then as if started anew
    it ends before what was announced, again and again      Dismissed: that does not exist, and is ignored from then on
    another quote under a position that was handed on       Retracted; then what it holds, from there on
    nothing: it is away                                     nothing, it is asked again; nothing is skipped meanwhile

Two starts: after a position `since`, from where everything is owed; or with the newest quotes that the history has. The
second gives way to a live quote if the history is away: a price must not wait for one that is older.

Invariants: positions of Seen rise, except after Retracted. Seen and Lost of a coin, without what was retracted, tile
the history from the start on, each position once.

Pure: whoever drives it asks the history, says what came, and when it is time to dismiss or to pardon.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence

from cotacoes.model.live_message import Heartbeat
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import FeedPosition, Gap, Reason
from cotacoes.patterns.pub_sub.doubt import Dismissals, RecentQuotes
from cotacoes.patterns.pub_sub.recovery_events import (
    Dismissed,
    Event,
    Ignored,
    Lost,
    Missed,
    Recovered,
    Retracted,
    Seen,
    Wanted,
    require_no_hole,
)

HELD_QUOTES_MAX = 10_000  # per coin; some 5 MB, and seconds of a feed that is fast


class Recovery:
    """One coin; see the head of this file. `start_quotes` are those to begin with if there is no `since`.

    `ignored` and `ignored_lines` count those that meant nothing; `dismissals` are to be pardoned now and then.
    """

    def __init__(self, coin: str, since: Position | None = None, *, start_quotes: int = 1) -> None:
        self.coin = coin
        self.ignored: Counter[Ignored] = Counter()
        self.ignored_lines = 0
        self.dismissals = Dismissals()
        self._start_quotes = start_quotes
        self._feed = FeedPosition(coin, since)
        self._told = since
        self._is_starting = since is None  # until the history has answered, or is not waited for
        self._has_begun = since is not None  # `told` means something
        self._is_catching_up = since is not None  # more may follow than the wire has told
        self._recent = RecentQuotes()
        self._held: deque[Quote] = deque()
        self._missed_after: Position | None = None
        self._recovered: int | None = None  # since a miss was told; None if none is open

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
        """The furthest position that was announced."""
        return self._feed.known

    @property
    def wanted(self) -> Wanted | None:
        """What to ask the history for now; None if nothing is missing and nothing is in doubt."""
        if self._is_starting:
            return Wanted(None, self._start_quotes)
        if self._recent.doubted:
            return Wanted(self._recent.doubted[0].before)
        return Wanted(self._told) if self._is_catching_up or self._is_behind else None

    @property
    def is_holding(self) -> bool:
        """Whether live quotes are held back."""
        return bool(self._held)

    def hear(self, line: Quote | Heartbeat) -> list[Event]:
        """The next line of the coin's channel."""
        told, position = self._told, line.position
        if told is not None and position is not None:
            if isinstance(line, Quote) and line.epoch == told.epoch and line.seq == told.seq + 1:
                return self._go_on(line, position, told)
            if position <= told:
                return self._ignore(self._recent.judge(line, told))
        if position is not None and self.dismissals.covers(position, told):
            return self._ignore([Ignored.FOREIGN])
        return self._hear_further(line)

    def skip_start(self) -> list[Event]:
        """The history does not answer: begin with what is heard, without the quotes before."""
        self._is_starting = False
        return list(self._release())

    def recover(self, wanted: Wanted, quotes: Sequence[Quote], *, more: bool, gaps: Sequence[Gap] = ()) -> list[Event]:
        """The history's answer to `wanted`, ascending; `more` tells whether it has further ones, `gaps` what it lacks.

        HistoryHoleError if they do not follow what was told, or a gap: nothing was changed, ask again.
        """
        if wanted.last is not None:
            return self._begin_with(quotes) if self._is_starting else []
        through = quotes[-1].position if quotes and more else None
        is_check = bool(self._recent.doubted) and wanted == self.wanted
        false = self._recent.first_false(quotes, through) if is_check else None
        told = self._told if false is None else false.before
        new = [quote for quote in quotes if told is None or quote.position > told]
        require_no_hole(self.coin, new, new[0].before if new and wanted.after is None and told is None else told, gaps)
        events: list[Event] = []
        if false is not None:
            events.append(self._retract(false))
        elif is_check:
            self._recent.confirm(through)
        events += self._tell(new)
        self._is_catching_up = self._is_catching_up and more
        return [*events, *self._release()]

    def gone(self, floor: Quote | None) -> list[Event]:
        """What comes after `told` is no longer held; `floor` is the oldest quote that is, None if nothing is."""
        if floor is not None and floor.before is None:  # the first quote ever: `told` is of another history
            return self.restart(None)
        self._recent.confirm(None)  # what was in doubt is no longer held
        through = (self._held[0].before if self._held else self._feed.known) if floor is None else floor.before
        if through is None or (self._told is not None and through <= self._told):
            return []  # it was answered before, or is held by now
        return [*self._give_up(through, Reason.GONE), *self._release()]

    def unknown(self) -> list[Event]:
        """The history never gave `told` and ends before it: begin anew with its newest quotes."""
        if self._recent.doubt():
            return []
        events = self._break_off(self._feed.known)
        self._feed = FeedPosition(self.coin)
        self._told, self._has_begun, self._is_starting, self._is_catching_up = None, False, True, False
        return events

    def restart(self, after: Position | None) -> list[Event]:
        """The history never gave `told`, and holds later quotes: go on with those after a position (None: all)."""
        if self._recent.doubt():  # first it is to say from where on what the wire brought is false
            return []
        events = self._break_off(None)
        self._told, self._has_begun, self._is_starting, self._is_catching_up = after, True, False, True
        self._go_back_to_told()
        return events

    def dismiss(self) -> list[Event]:
        """The history ends before what was announced, and that is no news to it: do not believe it any longer."""
        claim = self._feed.known
        self._is_catching_up = False
        if claim is None or (self._told is not None and claim <= self._told):
            return []
        self.ignored[Ignored.FOREIGN] += len(self._held)
        is_new = self.dismissals.add(claim, self._told)
        self._go_back_to_told()
        return [Dismissed(Gap(self.coin, self._told, claim, Reason.UNREACHED))] if is_new else []

    def _ignore(self, reasons: Sequence[Ignored]) -> list[Event]:
        self.ignored.update(reasons)
        self.ignored_lines += len(reasons)
        return []

    def _go_on(self, quote: Quote, position: Position, told: Position) -> list[Event]:
        """The wire brought the quote that follows `told`, whatever else it announced."""
        is_all = self._feed.known == told
        self._told = position
        self._feed.advance(position)
        self._recent.add(quote)
        return [Seen(quote)] if is_all else [Seen(quote), *self._release()]

    def _hear_further(self, line: Quote | Heartbeat) -> list[Event]:
        """Something beyond the next quote: a hole, or the word of another era, of which the history has the last."""
        heard = self._feed.take(line)
        events: list[Event] = []
        if heard.gap is not None:
            self._held.clear()  # from the history as well: what is held is always one run without a hole
            is_news = heard.gap.reason is not Reason.REWRITTEN and not self.dismissals.knows(line.position)
            if is_news and not self._is_starting:  # else it is before what we begin with, or found again behind it
                if self._recovered is None:
                    self._missed_after, self._recovered = self._told, 0
                events.append(Missed(heard.gap))
        if heard.is_new:
            assert isinstance(line, Quote)
            self._held.append(line)
            if len(self._held) > HELD_QUOTES_MAX:
                self._held.clear()
        return [*events, *self._release()]

    @property
    def _is_behind(self) -> bool:
        """Whether something is missing; what is held back by itself would follow."""
        known, told = self._feed.known, self._told
        return bool(self._held) or (self._has_begun and known is not None and (told is None or known > told))

    def _begin_with(self, quotes: Sequence[Quote]) -> list[Event]:
        self._is_starting, self._has_begun = False, True
        if not quotes:
            return list(self._release())  # nothing was ever recorded: everything is owed
        self._told = quotes[0].before
        return [*self._tell(quotes), *self._release()]

    def _tell(self, quotes: Sequence[Quote]) -> list[Event]:
        """Hand on what the history gave, and give up what it lacks."""
        events: list[Event] = []
        for quote in quotes:
            if quote.before is not None and quote.before != self._told:
                events += self._give_up(quote.before, Reason.GONE if self._told is None else Reason.HOLE)
            self._told = quote.position
            self._feed.advance(self._told)
            events.append(Seen(quote))
        self._recent.add_confirmed(quotes)
        if self._recovered is not None:
            self._recovered += len(quotes)
        return events

    def _give_up(self, through: Position, reason: Reason) -> Iterator[Event]:
        yield Lost(Gap(self.coin, self._told, through, reason))
        self._told = through
        self._feed.advance(through)

    def _retract(self, false: Quote) -> Event:
        """Take back this quote and all that was handed on after it; the history goes on from before it."""
        assert self._told is not None
        gap = Gap(self.coin, false.before, self._told, Reason.RETRACTED)
        self._told, self._is_catching_up = false.before, True
        self._recent.cut(false.position)
        self._go_back_to_told()
        return Retracted(gap)

    def _go_back_to_told(self) -> None:
        """Forget what was announced beyond `told`."""
        self._feed = FeedPosition(self.coin, self._told, has_begun=True)
        self._held.clear()
        self._recovered = None

    def _break_off(self, known: Position | None) -> list[Event]:
        """Tell all up to `told`, or `known`, as lost, in another history; what was in doubt is retracted first."""
        events = [self._retract(self._recent.doubted[0])] if self._recent.doubted else []
        self._recent.clear()
        self._held.clear()
        self._recovered = None
        through = max((p for p in (self._told, known) if p is not None), default=None)
        return events if through is None else [*events, Lost(Gap(self.coin, self._told, through, Reason.REWRITTEN))]

    def _release(self) -> Iterator[Event]:
        """Hand on what is held back, as far as nothing before it is missing and the history knows of its era."""
        if self._is_starting:
            return
        is_start = not self._has_begun and (bool(self._held) or self._feed.has_begun)
        if is_start:  # without the history, which is to say once it answers whether this is good
            self._told = self._held[0].before if self._held else self._feed.known
            self._has_begun = self._is_catching_up = True
        while self._held and self._told is not None and self._held[0].position <= self._told:
            self._held.popleft()
        if self._recovered is not None and (self._is_next_held(is_start) or not self._is_behind):
            yield Recovered(self.coin, self._missed_after, self._told, self._recovered)
            self._recovered = None
        while self._is_next_held(is_start):
            quote = self._held.popleft()
            self._told = quote.position
            self._recent.add(quote)
            is_start = False
            yield Seen(quote)

    def _is_next_held(self, is_start: bool) -> bool:
        """Whether the first quote that is held back can be handed on."""
        if not self._held or self._held[0].before != self._told:
            return False
        return is_start or (self._told is not None and self._told.epoch == self._held[0].epoch)
