"""What a Recovery asks for and hands on, and why a line of the wire counts for nothing; `recovery.py` decides."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap


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


@dataclass(frozen=True, slots=True)
class Retracted:
    """These were handed on, and the history holds others under their positions, or none: they do not count.

    What the history holds after `gap.after` comes next.
    """

    gap: Gap


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The wire announced positions up to `gap.through`, and the history ends before them: they do not exist."""

    gap: Gap


Event = Seen | Missed | Recovered | Lost | Retracted | Dismissed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask the history for: the quotes after a position (None: from the first), or the `last` ones."""

    after: Position | None
    last: int | None = None


class HistoryHoleError(ValueError):
    """An answer of the history that does not follow the position it was asked for."""


def require_no_hole(coin: str, quotes: Sequence[Quote], before: Position | None, gaps: Sequence[Gap] = ()) -> None:
    """HistoryHoleError unless these follow a position, and one another, or a gap."""
    ends = {gap.through for gap in gaps}
    for quote in quotes:
        if quote.before != before and quote.before not in ends:
            raise HistoryHoleError(f"the history of {coin} goes on with {quote.position} after {before}")
        before = quote.position


class Ignored(enum.StrEnum):
    """Why a line, or a whole message, counts for nothing."""

    MALFORMED = "malformed"
    OTHER_COIN = "other_coin"
    OLD = "old"  # at or before what was handed on
    CONTRADICTED = "contradicted"  # another price under a position whose quote the history has confirmed
    FOREIGN = "foreign"  # of positions that were dismissed
