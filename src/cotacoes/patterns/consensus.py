"""One price from the books of several venues: pure, exact, and hard to move by a minority."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal


class ConsensusState(enum.StrEnum):
    """How far the venues agree. Only `agreed` and `thin` come with a price."""

    AGREED = "agreed"
    THIN = "thin"
    DISPUTED = "disputed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class VenueBook:
    """The best bid and ask of one venue, in `currency`; `as_of_s` is a time on the monotonic clock."""

    venue: str
    currency: str
    bid: Decimal
    ask: Decimal
    as_of_s: float
