"""What a shard stores of a coin, as it was read: by a move, which copies it, and by the audit, which judges it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple

from cotacoes.model.quote import Position, exact_sum, format_price, format_time

NONE = "none"
Fact = str | int | Position | datetime | Decimal | None

CopyState = Literal["open", "closed", "moved", "incoming"]
AT_HOME = ("open", "closed")  # the states in which a shard answers for the coin


@dataclass(frozen=True, slots=True)
class CoinCopy:
    """What a shard's fence says of its copy of a coin, in whatever state; `age` is how long it has been in that state.

    `floor` is the first position held, `last` the last one, and `last_at` the `at` recorded for that.
    """

    coin_id: int
    state: CopyState
    placement: int
    last: Position | None = None
    last_at: datetime | None = None
    floor: Position | None = None
    writer_epoch: int = 0
    writer: str = ""
    moved_to: str | None = None
    age: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Content:
    """The count, the sum and the digest of some quotes, in any order; contents of disjoint quotes can be added."""

    count: int = 0
    sum: Decimal = Decimal(0)
    digest: Decimal = Decimal(0)

    def __add__(self, other: Content) -> Content:
        return Content(
            self.count + other.count, exact_sum([self.sum, other.sum]), exact_sum([self.digest, other.digest])
        )


@dataclass(frozen=True, slots=True)
class DayRow:
    """The row of one UTC day of a coin. A sealed day has a `manifest`; the quotes of a dropped day are gone."""

    day: date
    first: Position
    last: Position
    count: int
    manifest: Content | None = None
    sealed_at: datetime | None = None
    dropped_at: datetime | None = None

    @property
    def is_dropped(self) -> bool:
        return self.dropped_at is not None

    @property
    def extent(self) -> tuple[date, Position, Position, int, bool]:
        """What two copies of a day have in common, whether sealed or not."""
        return self.day, self.first, self.last, self.count, self.is_dropped


@dataclass(frozen=True, slots=True)
class Piece:
    """The quotes of one epoch in one day; `nameless` counts those of an unknown origin."""

    first: Position
    last: Position
    count: int
    last_at: datetime | None = None
    nameless: int = 0


class Discontinuity(NamedTuple):
    """Two neighbouring quotes of a day, between which a position is missing or `at` falls."""

    before: Position
    before_at: datetime
    position: Position
    at: datetime


@dataclass(frozen=True, slots=True)
class CandleTotal:
    """The sum of the stored candles of one length in a day, over all origins."""

    minutes: int
    candles: int
    count: int
    sum: Decimal


class Breach(NamedTuple):
    """One thing that is wrong: its place, what it is about, how it is and how it should be."""

    place: str
    what: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.place}  {self.what}: {self.found}, not {self.wanted}"


def differences(place: str, *facts: tuple[str, Fact, Fact]) -> Iterator[Breach]:
    """A breach for each fact, given as what it is about, how it is and how it should be, of which the two differ."""
    for what, found, wanted in facts:
        if found != wanted:
            yield Breach(place, what, text_of(found), text_of(wanted))


def text_of(fact: Fact) -> str:
    """A fact as it is shown in a breach."""
    if isinstance(fact, datetime):
        return format_time(fact)
    if isinstance(fact, Decimal):
        return format_price(fact)
    return NONE if fact is None else str(fact)


@dataclass(frozen=True)
class StoredDay:
    """All that is stored of a day. `content` is computed from the quotes of a sealed day that are still held.

    `candle_breaches` are the first differences between candles and quotes, `candle_breach_count` is their number.
    """

    day: date
    row: DayRow | None
    pieces: Sequence[Piece] = ()
    discontinuities: Sequence[Discontinuity] = ()
    content: Content | None = None
    candle_totals: Sequence[CandleTotal] = ()
    candle_breaches: Sequence[Breach] = ()
    candle_breach_count: int = 0
