"""Recovery merges the live wire and the history into one sequence: each quote once, in order.

    wire ──▶ hear ──▶ FeedPosition ──▶ held back while something before it is missing ─┐
    history ◀── wanted                                                                 ├──▶ QuoteReceived … in order
    history ──▶ recover, gone, unknown, restart ───────────────────────────────────────┘

One variable decides: `last_emitted`, the position up to which everything was emitted. The quote that follows it in the
same epoch is emitted; any other is held back, and the range between is requested from the history. So whatever the wire
does (drop, double, reorder, end, lose its data, return with another epoch) is one of two cases: an old line, or a hole.
The announcement of another epoch counts as a hole too, if only an empty one: the history decides whether it is ours.

Held quotes are bounded. At the bound they are dropped, since the history has them too; the hole only becomes wider. The
same happens if a second hole appears while the first is open. So memory is bounded however long the history is away.

    the history answers                                     emitted
    the quotes after `last_emitted`                         they; GapFilled once they reach the held quotes
    the same, with gaps between them                        GapLost, reason hole, in the place of each gap
    `last_emitted` is below its floor                       GapLost, reason gone, up to the oldest quote held
    `last_emitted` never existed, later quotes do           GapLost, reason rewritten, empty; then those, in order
    `last_emitted` never existed, and lies beyond its end   GapLost, reason rewritten; then as after a new start
    it ends before what was announced, repeatedly           Dismissed: the announcement is ignored from then on
    another quote under an emitted position                 Retracted; then what the history holds from there on
    nothing: it is away                                     nothing; it is asked again, and nothing is skipped

There are two ways to start: after a position `since`, from which nothing may be skipped; or with the newest quotes of
the history. The second gives way to a live quote if the history is away: a price must not wait for an older one.

Invariants: positions of QuoteReceived rise, except after Retracted. QuoteReceived and GapLost of a coin, without what
was retracted, cover the history from the start on, each position once.

This module is pure: its driver asks the history, passes on what came, and decides when to dismiss and to pardon.
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
    GapDetected,
    GapFilled,
    GapLost,
    Ignored,
    QuoteReceived,
    RecoveryEvent,
    Retracted,
    Wanted,
    require_no_hole,
)

HELD_QUOTES_MAX = 10_000  # per coin: some 5 MB, or a few seconds of a fast feed


class Recovery:
    """The recovery of one coin. It begins after `since` or, without it, with the `start_quotes` newest quotes.

    `ignored` and `ignored_lines` count the lines that had no effect; `dismissals` need a pardon now and then.
    """

    def __init__(self, coin: str, since: Position | None = None, *, start_quotes: int = 1) -> None:
        self.coin = coin
        self.ignored: Counter[Ignored] = Counter()
        self.ignored_lines = 0
        self.dismissals = Dismissals()
        self._start_quotes = start_quotes
        self._feed = FeedPosition(coin, since)
        self._last_emitted = since
        self._is_starting = since is None  # until the history has answered, or is no longer waited for
        self._has_begun = since is not None  # `last_emitted` is known, be it None
        self._is_catching_up = since is not None  # the history may have more than the wire announced
        self._recent = RecentQuotes()
        self._held: deque[Quote] = deque()
        self._gap_after: Position | None = None
        self._filled: int | None = None  # quotes since the gap was detected; None if no gap is open

    @property
    def last_emitted(self) -> Position | None:
        """The position up to which everything was emitted."""
        return self._last_emitted

    @property
    def has_begun(self) -> bool:
        """Whether `last_emitted` is known; None then means before the first quote ever."""
        return self._has_begun and not self._is_starting

    @property
    def last_received(self) -> Position | None:
        """The furthest position that was received or announced."""
        return self._feed.last_received

    @property
    def wanted(self) -> Wanted | None:
        """What to ask the history for; None if nothing is missing or in doubt."""
        if self._is_starting:
            return Wanted(None, self._start_quotes)
        if self._recent.doubted:
            return Wanted(self._recent.doubted[0].before)
        return Wanted(self._last_emitted) if self._is_catching_up or self._is_behind else None

    @property
    def is_holding(self) -> bool:
        """Whether live quotes are held back."""
        return bool(self._held)

    def hear(self, line: Quote | Heartbeat, text: bytes | None = None) -> list[RecoveryEvent]:
        """Process the next line of the coin's channel; `text` is how it was written, if that can be passed on."""
        last_emitted, position = self._last_emitted, line.position
        if last_emitted is not None and position is not None:
            if isinstance(line, Quote) and line.epoch == last_emitted.epoch and line.seq == last_emitted.seq + 1:
                return self._go_on(line, text, is_all=self._feed.last_received == last_emitted)
            if position <= last_emitted:
                return self._ignore(self._recent.judge(line, last_emitted))
        if position is not None and self.dismissals.covers(position, last_emitted):
            return self._ignore([Ignored.FOREIGN])
        return self._hear_further(line)

    def skip_start(self) -> list[RecoveryEvent]:
        """Begin with live quotes, without those before: the history does not answer."""
        self._is_starting = False
        return list(self._release())

    def recover(
        self, wanted: Wanted, quotes: Sequence[Quote], *, more: bool, gaps: Sequence[Gap] = ()
    ) -> list[RecoveryEvent]:
        """Process the history's answer to `wanted`, ascending; `more` if further ones follow, `gaps` are what it lacks.

        HistoryHoleError if the quotes follow neither `last_emitted` nor a gap: nothing has changed, ask again.
        """
        if wanted.last is not None:
            return self._begin_with(quotes) if self._is_starting else []
        through = quotes[-1].position if quotes and more else None
        is_check = bool(self._recent.doubted) and wanted == self.wanted
        false = self._recent.first_false(quotes, through) if is_check else None
        last_emitted = self._last_emitted if false is None else false.before
        new = [quote for quote in quotes if last_emitted is None or quote.position > last_emitted]
        is_first = bool(new) and wanted.after is None and last_emitted is None
        require_no_hole(self.coin, new, new[0].before if is_first else last_emitted, gaps)
        events: list[RecoveryEvent] = []
        if false is not None:
            events.append(self._retract(false))
        elif is_check:
            self._recent.confirm(through)
        events += self._emit(new)
        self._is_catching_up = self._is_catching_up and more
        return [*events, *self._release()]

    def gone(self, floor: Quote | None) -> list[RecoveryEvent]:
        """Give up what the history no longer holds; `floor` is its oldest quote, None if it has none."""
        if floor is not None and floor.before is None:  # the first quote ever, so `last_emitted` is of another history
            return self.restart(None)
        self._recent.confirm(None)  # doubted quotes are no longer held
        through = (self._held[0].before if self._held else self._feed.last_received) if floor is None else floor.before
        if through is None or (self._last_emitted is not None and through <= self._last_emitted):
            return []  # answered before, or held by now
        return [*self._give_up(through, Reason.GONE), *self._release()]

    def unknown(self) -> list[RecoveryEvent]:
        """Begin anew with the newest quotes: `last_emitted` never existed, and the history ends before it."""
        if self._recent.doubt():
            return []
        events = self._break_off(self._feed.last_received)
        self._feed = FeedPosition(self.coin)
        self._last_emitted, self._has_begun, self._is_starting, self._is_catching_up = None, False, True, False
        return events

    def restart(self, after: Position | None) -> list[RecoveryEvent]:
        """Continue after a position (None: from the start): `last_emitted` never existed, but later quotes do."""
        if self._recent.doubt():  # first the history must say from where on the wire was false
            return []
        events = self._break_off(None)
        self._last_emitted, self._has_begun, self._is_starting, self._is_catching_up = after, True, False, True
        self._rewind()
        return events

    def dismiss(self) -> list[RecoveryEvent]:
        """Stop believing an announcement that the history has not reached in time."""
        claim = self._feed.last_received
        self._is_catching_up = False
        if claim is None or (self._last_emitted is not None and claim <= self._last_emitted):
            return []
        self.ignored[Ignored.FOREIGN] += len(self._held)
        is_new = self.dismissals.add(claim, self._last_emitted)
        self._rewind()
        return [Dismissed(Gap(self.coin, self._last_emitted, claim, Reason.UNREACHED))] if is_new else []

    def _ignore(self, reasons: Sequence[Ignored]) -> list[RecoveryEvent]:
        self.ignored.update(reasons)
        self.ignored_lines += len(reasons)
        return []

    def _go_on(self, quote: Quote, text: bytes | None, *, is_all: bool) -> list[RecoveryEvent]:
        """Emit the quote that follows `last_emitted`, whatever else the wire announced."""
        self._last_emitted = quote.position
        self._feed.advance(self._last_emitted)
        self._recent.add(quote)
        received = QuoteReceived(quote, text)
        return [received] if is_all else [received, *self._release()]

    def _hear_further(self, line: Quote | Heartbeat) -> list[RecoveryEvent]:
        """Process a line beyond the next quote: a hole, or another epoch, which the history must confirm."""
        heard = self._feed.receive(line)
        events: list[RecoveryEvent] = []
        if heard.gap is not None:
            self._held.clear()  # the history has them too; held quotes are always contiguous
            is_news = heard.gap.reason is not Reason.REWRITTEN and not self.dismissals.knows(line.position)
            if is_news and not self._is_starting:  # else it lies before our start, or was found before
                if self._filled is None:
                    self._gap_after, self._filled = self._last_emitted, 0
                events.append(GapDetected(heard.gap))
        if heard.is_new:
            assert isinstance(line, Quote)
            self._held.append(line)
            if len(self._held) > HELD_QUOTES_MAX:
                self._held.clear()
        return [*events, *self._release()]

    @property
    def _is_behind(self) -> bool:
        """Whether something is missing; held quotes alone would follow by themselves."""
        received, emitted = self._feed.last_received, self._last_emitted
        is_beyond = received is not None and (emitted is None or received > emitted)
        return bool(self._held) or (self._has_begun and is_beyond)

    def _begin_with(self, quotes: Sequence[Quote]) -> list[RecoveryEvent]:
        self._is_starting, self._has_begun = False, True
        if not quotes:
            return list(self._release())  # nothing was ever recorded, so nothing may be skipped
        self._last_emitted = quotes[0].before
        return [*self._emit(quotes), *self._release()]

    def _emit(self, quotes: Sequence[Quote]) -> list[RecoveryEvent]:
        """Emit quotes of the history, and give up what it lacks."""
        events: list[RecoveryEvent] = []
        for quote in quotes:
            if quote.before is not None and quote.before != self._last_emitted:
                events += self._give_up(quote.before, Reason.GONE if self._last_emitted is None else Reason.HOLE)
            self._last_emitted = quote.position
            self._feed.advance(self._last_emitted)
            events.append(QuoteReceived(quote))
        self._recent.add_confirmed(quotes)
        if self._filled is not None:
            self._filled += len(quotes)
        return events

    def _give_up(self, through: Position, reason: Reason) -> Iterator[RecoveryEvent]:
        yield GapLost(Gap(self.coin, self._last_emitted, through, reason))
        self._last_emitted = through
        self._feed.advance(through)

    def _retract(self, false: Quote) -> RecoveryEvent:
        """Retract this quote and everything emitted after it; the history continues from before it."""
        assert self._last_emitted is not None
        gap = Gap(self.coin, false.before, self._last_emitted, Reason.RETRACTED)
        self._last_emitted, self._is_catching_up = false.before, True
        self._recent.cut(false.position)
        self._rewind()
        return Retracted(gap)

    def _rewind(self) -> None:
        """Forget everything received beyond `last_emitted`."""
        self._feed = FeedPosition(self.coin, self._last_emitted, has_begun=True)
        self._held.clear()
        self._filled = None

    def _break_off(self, last_received: Position | None) -> list[RecoveryEvent]:
        """Report everything up to the later position as rewritten, after retracting what was in doubt."""
        events: list[RecoveryEvent] = [self._retract(self._recent.doubted[0])] if self._recent.doubted else []
        self._recent.clear()
        self._held.clear()
        self._filled = None
        through = max((p for p in (self._last_emitted, last_received) if p is not None), default=None)
        return (
            events
            if through is None
            else [*events, GapLost(Gap(self.coin, self._last_emitted, through, Reason.REWRITTEN))]
        )

    def _release(self) -> Iterator[RecoveryEvent]:
        """Emit held quotes if nothing before them is missing and the history knows their epoch."""
        if self._is_starting:
            return
        is_start = not self._has_begun and (bool(self._held) or self._feed.has_begun)
        if is_start:  # without the history, which confirms it once it answers
            self._last_emitted = self._held[0].before if self._held else self._feed.last_received
            self._has_begun = self._is_catching_up = True
        while self._held and self._last_emitted is not None and self._held[0].position <= self._last_emitted:
            self._held.popleft()
        if self._filled is not None and (self._is_next_held(is_start) or not self._is_behind):
            yield GapFilled(self.coin, self._gap_after, self._last_emitted, self._filled)
            self._filled = None
        while self._is_next_held(is_start):
            quote = self._held.popleft()
            self._last_emitted = quote.position
            self._recent.add(quote)
            is_start = False
            yield QuoteReceived(quote)

    def _is_next_held(self, is_start: bool) -> bool:
        """Whether the first held quote can be emitted."""
        if not self._held or self._held[0].before != self._last_emitted:
            return False
        return is_start or (self._last_emitted is not None and self._last_emitted.epoch == self._held[0].epoch)
