"""What the audit holds against each other, as it was read; `ledger_chain.py` says what fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

from cotacoes.model.quote import Position

NONE = "none"


class Breach(NamedTuple):
    """One thing that is wrong: where, what is meant, how it is and how it should be."""

    place: str
    what: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.place}  {self.what}: {self.found}, not {self.wanted}"


@dataclass(frozen=True, slots=True)
class Piece:
    """The quotes of one era in one day; `nameless` are those of them whose origin has no name."""

    first: Position
    last: Position
    count: int
    last_at: datetime | None = None
    nameless: int = 0


class Discontinuity(NamedTuple):
    """Two quotes of a day, one right after the other, between which a position is missing or `at` falls."""

    before: Position
    before_at: datetime
    position: Position
    at: datetime


@dataclass(frozen=True, slots=True)
class Content:
    """What a number of quotes come to; `digest` does not depend on their order."""

    count: int
    sum: Decimal
    digest: Decimal


@dataclass(frozen=True, slots=True)
class CandleTotal:
    """What the stored candles of a day and of one length come to, over all origins."""

    minutes: int
    candles: int
    count: int
    sum: Decimal


@dataclass(frozen=True)
class Manifest:
    """The row of a day; `content` of a sealed one."""

    first: Position
    last: Position
    count: int
    content: Content | None = None
    is_dropped: bool = False


@dataclass(frozen=True)
class StoredDay:
    """All that is stored of a day. `content` is computed anew, for a sealed day that is still held."""

    day: date
    manifest: Manifest | None
    pieces: Sequence[Piece] = ()
    steps: Sequence[Discontinuity] = ()
    content: Content | None = None


@dataclass(frozen=True)
class Ends:
    """What a fence says of the history: the first position held, the last one, and when that was recorded."""

    floor: Position | None
    last: Position | None
    last_at: datetime | None
