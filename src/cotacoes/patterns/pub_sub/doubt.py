"""Doubt: a listener does not believe everything that anyone can publish on its channel.

Two small memories of one coin, both bounded, both without a clock:

* `RecentQuotes` holds the last quotes that were emitted, and which of them the history has confirmed. A second quote
  under one of their positions proves that one of the two is false, and so does a heartbeat that lies before them; the
  history decides. It is asked at most once for each emitted quote.
* `Dismissals` holds positions that were announced although the history ends before them. Lines at or beyond them are
  ignored until they are pardoned, so a mistake does not last for ever. After a pardon, the next dismissal is silent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cotacoes.model.live_message import Heartbeat
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.recovery_events import Ignored

RECENT_QUOTES = 32  # some 13 KB for each coin
DISMISSED_EPOCHS_MAX = 16


class RecentQuotes:
    """The last emitted quotes of one coin. The history has yet to confirm or refute those in `doubted`."""

    def __init__(self) -> None:
        self.doubted: list[Quote] = []
        self._quotes: deque[Quote] = deque(maxlen=RECENT_QUOTES)
        self._confirmed: set[Position] = set()

    def add(self, quote: Quote) -> None:
        """Add a quote from the wire; positions rise."""
        self._quotes.append(quote)

    def add_confirmed(self, quotes: Sequence[Quote]) -> None:
        """Add quotes from the history."""
        self._quotes.extend(quotes[-RECENT_QUOTES:])
        self._confirm(quotes[-RECENT_QUOTES:])

    def judge(self, line: Quote | Heartbeat, last_emitted: Position) -> list[Ignored]:
        """Why a line at or before `last_emitted` is ignored.

        The list is empty if the history must decide, or if the line is a sign of life.
        """
        if isinstance(line, Heartbeat):
            return self._judge_heartbeat(line, last_emitted)
        if next((quote for quote in self._quotes if quote.position == line.position), line) == line:
            return [Ignored.OLD]
        if line.position in self._confirmed:
            return [Ignored.CONTRADICTED]
        self.doubt()
        return []

    def doubt(self) -> bool:
        """Doubt everything that is not confirmed; False if there is nothing, or if it is doubted already."""
        is_new = not self.doubted
        self.doubted = self.doubted or self._unconfirmed
        return is_new and bool(self.doubted)

    def _judge_heartbeat(self, beat: Heartbeat, last_emitted: Position) -> list[Ignored]:
        """The writer's own heartbeat is never behind a quote of the same epoch that the wire brought before."""
        if beat.position is None or beat.position.epoch < last_emitted.epoch:
            return [Ignored.OLD]
        if beat.position < last_emitted and any(quote.position > beat.position for quote in self._unconfirmed):
            self.doubt()
        return []

    def first_false(self, held: Iterable[Quote], through: Position | None) -> Quote | None:
        """The first doubted quote up to a position (None: of all) that the history does not hold."""
        by_position = {quote.position: quote for quote in held}
        checked = (quote for quote in self.doubted if through is None or quote.position <= through)
        return next((quote for quote in checked if by_position.get(quote.position) != quote), None)

    def confirm(self, through: Position | None) -> None:
        """Note that the history holds the doubted quotes up to a position (None: all of them)."""
        good = [quote for quote in self.doubted if through is None or quote.position <= through]
        self.doubted = self.doubted[len(good) :]
        self._confirm(good)

    def cut(self, position: Position) -> None:
        """Forget this position and all later ones, and doubt nothing any more."""
        self.confirm(None)
        while self._quotes and self._quotes[-1].position >= position:
            self._confirmed.discard(self._quotes.pop().position)

    def clear(self) -> None:
        """Forget everything."""
        self.doubted = []
        self._quotes.clear()
        self._confirmed.clear()

    def _confirm(self, quotes: Iterable[Quote]) -> None:
        self._confirmed.update(quote.position for quote in quotes)
        if len(self._confirmed) > 2 * RECENT_QUOTES:
            self._confirmed.intersection_update({quote.position for quote in self._quotes})

    @property
    def _unconfirmed(self) -> list[Quote]:
        return [quote for quote in self._quotes if quote.position not in self._confirmed]


@dataclass(slots=True)
class _Dismissal:
    from_seq: int
    is_pardoned: bool = False


class Dismissals:
    """Announced positions that the history does not reach, by epoch."""

    def __init__(self) -> None:
        self._by_epoch: OrderedDict[int, _Dismissal] = OrderedDict()

    def add(self, claim: Position, last_emitted: Position | None) -> bool:
        """Dismiss positions from `claim` on, since the history ends at `last_emitted`; True if its epoch is new here.

        In an epoch that the history has reached, only positions at least as far ahead are dismissed; in another, all.
        """
        is_new = self._by_epoch.pop(claim.epoch, None) is None
        is_present = last_emitted is not None and last_emitted.epoch == claim.epoch
        self._by_epoch[claim.epoch] = _Dismissal(claim.seq if is_present else 0)
        if len(self._by_epoch) > DISMISSED_EPOCHS_MAX:
            self._by_epoch.popitem(last=False)
        return is_new

    def covers(self, position: Position, last_emitted: Position | None) -> bool:
        """Whether this position is dismissed."""
        found = self._by_epoch.get(position.epoch)
        if found is None or found.is_pardoned:
            return False
        if last_emitted is not None and last_emitted.epoch == position.epoch and last_emitted.seq >= found.from_seq:
            del self._by_epoch[position.epoch]  # the history has come that far after all
            return False
        return position.seq >= found.from_seq

    def knows(self, position: Position | None) -> bool:
        """Whether any position of its epoch was dismissed, pardoned or not."""
        return position is not None and position.epoch in self._by_epoch

    def pardon(self) -> None:
        """Believe every position again, until it is dismissed again."""
        for dismissal in self._by_epoch.values():
            dismissal.is_pardoned = True
