"""The events that a Recovery emits, what it asks the history for, and why it ignores a line."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap


@dataclass(frozen=True, slots=True)
class QuoteReceived:
    """The next quote; `text` is its line on the wire, if the consumer may pass it on as it came."""

    quote: Quote
    text: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class GapDetected:
    """The wire lost quotes; they are being fetched."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class GapFilled:
    """All missing quotes were emitted: `quotes` of them, after one position (exclusive) through another."""

    coin: str
    after: Position | None
    through: Position | None
    quotes: int

    def fields(self) -> dict[str, str | int | None]:
        """The event as fields of a message or a log line, with positions as text."""
        after, through = (None if position is None else str(position) for position in (self.after, self.through))
        return {"coin": self.coin, "after": after, "through": through, "quotes": self.quotes}


@dataclass(frozen=True, slots=True)
class GapLost:
    """These positions will never come."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class Retracted:
    """These quotes were emitted but are false: the history holds others under their positions, or none.

    What the history holds after `gap.after` comes next.
    """

    gap: Gap


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The wire announced positions up to `gap.through` that do not exist: the history ends before them."""

    gap: Gap


RecoveryEvent = QuoteReceived | GapDetected | GapFilled | GapLost | Retracted | Dismissed


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request to the history: the quotes after a position (None: from the first), or the `last` ones."""

    after: Position | None
    last: int | None = None


class HistoryHoleError(ValueError):
    """An answer of the history does not follow the requested position."""


def require_no_hole(coin: str, quotes: Sequence[Quote], before: Position | None, gaps: Sequence[Gap] = ()) -> None:
    """Raise HistoryHoleError unless the quotes follow a position, each other, or a gap."""
    ends = {gap.through for gap in gaps}
    for quote in quotes:
        if quote.before != before and quote.before not in ends:
            raise HistoryHoleError(f"the history of {coin} continues with {quote.position} after {before}")
        before = quote.position


class Ignored(enum.StrEnum):
    """Why a line, or a whole message, is ignored."""

    MALFORMED = "malformed"
    OTHER_COIN = "other_coin"
    OLD = "old"  # at or before what was emitted
    CONTRADICTED = "contradicted"  # another price under a position whose quote the history has confirmed
    FOREIGN = "foreign"  # under a position that was dismissed
