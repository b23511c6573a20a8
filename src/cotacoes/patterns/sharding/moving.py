"""Moving: how a coin goes from one shard to another while its writer and its readers are at work.

    step       source S, placement p     target T, placement p + 1
    begun      open                      incoming                      nobody but the mover sees the copy
    copied     open                      incoming                      what is stored stays; only the end grows
    verified   open                      incoming                      by content: count and digest of every day
    closed     closed: quotes wait in    incoming                      the rest, which is small, is copied and verified
               the log, reads go on
    opened     closed                    open                          refused unless all of it was verified
    left       moved, to T under p + 1   open                          writers and readers follow
    placed     moved                     open                          the directory on shard1 says so too

The fences say how far a move has come, so it can be killed at any moment and run again: `plan` reads them. What makes
that safe: a copy can be opened only by the mover that holds the coin's claim on both shards, and only while the source
is closed; the source is opened again only while the copy is certain not to be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Literal, NamedTuple, Protocol

from cotacoes.errors import SettingError, ShardUnavailableError
from cotacoes.model.quote import Position, Quote, exact_sum

CopyState = Literal["open", "closed", "moved", "incoming"]


@dataclass(frozen=True, slots=True)
class Copy:
    """What a shard's fence says of its copy of a coin, in whatever state; `age` is that of the state."""

    coin_id: int
    state: CopyState
    placement: int
    last: Position | None
    last_at: datetime | None
    floor: Position | None
    writer_epoch: int
    writer: str
    moved_to: str | None
    age: timedelta


@dataclass(frozen=True, slots=True)
class Content:
    """What quotes say, in any order: the sum of parts is the whole."""

    count: int
    sum: Decimal
    digest: Decimal

    def __add__(self, other: Content) -> Content:
        return Content(
            self.count + other.count, exact_sum([self.sum, other.sum]), exact_sum([self.digest, other.digest])
        )


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day of a coin. `manifest` is there where it is sealed; its quotes are gone where it is dropped."""

    day: date
    first: Position
    last: Position
    count: int
    manifest: Content | None = None
    sealed_at: datetime | None = None
    dropped_at: datetime | None = None

    @property
    def extent(self) -> tuple[date, Position, Position, int, bool]:
        """What two copies of a day have in common, sealed or not."""
        return self.day, self.first, self.last, self.count, self.dropped_at is not None


@dataclass(frozen=True, slots=True)
class CopyPage:
    """`count` things that follow a position, up to `last`; `rows` is what the other side's adapter makes of them."""

    count: int
    last: Position | None
    rows: object


class AsideCount(NamedTuple):
    """How much is kept aside of a coin; `accepted` is of orphans and holes together."""

    conflicts: int
    orphans: int = 0
    holes: int = 0
    accepted: int = 0


class MovingShard(Protocol):
    """A shard as the mover sees it: every copy, in whatever state. One connection, and one call at a time.

    All raise ShardUnavailableError; what changes a copy raises CopyRefusedError and can be sent again.
    """

    name: str

    async def claim(self, coin_id: int) -> bool:
        """Whether this connection, while it lasts, is the only one that moves the coin."""

    async def copy(self, coin: str) -> Copy | None:
        """The coin's copy here."""

    async def days(self, coin_id: int) -> list[Day]:
        """Every day of the coin, ascending."""

    async def content(self, coin_id: int, after: Position, through: Position) -> dict[date, Content]:
        """What the quotes after a position up to another say, of each day that has one."""

    async def candle_content(self, coin_id: int, day: date) -> Content:
        """What the candles of a day say."""

    async def quote(self, coin: str, coin_id: int, after: Position) -> Quote | None:
        """The first quote after a position."""

    async def page(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        """The first quotes after a position."""

    async def dropped(self, coin_id: int, day: date) -> object | None:
        """What is known of a day whose quotes were dropped, and its candles; None where they were not."""

    async def eras(self, coin_id: int) -> object:
        """Every era of the coin."""

    async def asides(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        """What is kept aside (conflicts, orphans, holes) at the first positions after one."""

    async def aside_count(self, coin_id: int) -> AsideCount:
        """How much is kept aside."""

    async def begin(self, coin_id: int, coin: str, placement: int) -> None:
        """Begin an incoming copy, or go on with it."""

    async def receive(self, coin_id: int, placement: int, after: Position, page: CopyPage) -> None:
        """Store a page of quotes behind `after`, which must have come before."""

    async def receive_dropped(self, coin_id: int, placement: int, dropped: object) -> None:
        """Store what is known of a dropped day."""

    async def receive_eras(self, coin_id: int, placement: int, eras: object) -> None:
        """Store eras."""

    async def receive_asides(self, coin_id: int, placement: int, page: CopyPage) -> None:
        """Keep aside what is kept aside there."""

    async def receive_manifest(self, coin_id: int, placement: int, day: Day) -> None:
        """Seal a day, of which the quotes were compared with its manifest."""

    async def close(self, coin_id: int, placement: int) -> None:
        """Close the source's fence."""

    async def reopen(self, coin_id: int, placement: int) -> None:
        """Open the source's fence again."""

    async def open(self, coin_id: int, placement: int, source: Copy, count: int) -> None:
        """Open the copy with the source's writer and floor, if it holds `count` quotes up to the source's last."""

    async def leave(self, coin_id: int, placement: int, to: str) -> None:
        """Say in the source's closed fence that the coin lives on `to`, under the next placement."""

    async def give_up(self, coin_id: int, placement: int) -> None:
        """Make an incoming copy one that can be neither filled nor opened any more."""

    async def purge(self, coin_id: int, placement: int, limit: int) -> bool:
        """Delete up to `limit` quotes of a copy that is nobody's home; whether something is left of it."""

    async def place(self, coin: str, shard: str, placement: int) -> None:
        """Write into the directory where the coin lives, unless it knows of a later placement."""


class MoveStage(Enum):
    """How much of a move is left to do."""

    COPY = "copy"
    FINISH = "finish"  # the target is open, the source has not been told
    DONE = "done"


@dataclass(frozen=True, slots=True)
class MovePlan:
    """From where a coin goes, and what is left to do; `source` is the shard itself where all is done."""

    stage: MoveStage
    source: str
    copy: Copy


def home_of(coin: str, copies: Mapping[str, Copy], away: Collection[str]) -> str:
    """On which shard the coin lives. ShardUnavailableError where that one does not answer, SettingError without one."""
    homes = {shard: copy for shard, copy in copies.items() if copy.state in ("open", "closed")}
    if homes:
        return max(homes, key=lambda shard: homes[shard].placement)
    if away:
        raise ShardUnavailableError(f"{coin} lives on none of the shards that answer; {_names(away)} did not")
    raise SettingError(f"{coin} lives on no shard: `cotacoes coins list` names those that do")


def plan_move(coin: str, to: str, copies: Mapping[str, Copy], away: Collection[str]) -> MovePlan:
    """What is left of the move of `coin` to `to`, from what the shards that answer say of it.

    SettingError where another move comes first; ShardUnavailableError where one has to be asked that is `away`.
    """
    home = home_of(coin, copies, away)
    here = copies[home]
    behind = [shard for shard, copy in copies.items() if copy.state == "closed" and shard != home]
    if home == to:
        return (
            MovePlan(MoveStage.FINISH, behind[0], copies[behind[0]]) if behind else MovePlan(MoveStage.DONE, home, here)
        )
    if behind:
        raise SettingError(
            f"the move of {coin} to {home} is not finished: run `cotacoes shards move {coin} --to {home}` first"
        )
    _refuse_doubt(coin, here, away)
    for shard in _incoming(copies, here):
        if shard != to:
            raise SettingError(
                f"a move of {coin} to {shard} is under way: finish it with `cotacoes shards move {coin} --to {shard}`, "
                f"or give it up with `--abort`"
            )
    return MovePlan(MoveStage.COPY, home, here)


def plan_abort(coin: str, to: str, copies: Mapping[str, Copy], away: Collection[str]) -> MovePlan:
    """From where the coin does not go to `to` after all; SettingError where that can not be stopped any more."""
    home = home_of(coin, copies, away)
    here = copies[home]
    if home == to:
        raise SettingError(
            f"{to} has been opened for {coin}, which lives there now, so there is nothing left to abort: "
            "run the move without --abort, which finishes what is left of it, and move the coin back if that is wanted"
        )
    _refuse_doubt(coin, here, away)
    incoming = _incoming(copies, here)
    if incoming and to not in incoming:
        raise SettingError(f"the move of {coin} that is under way goes to {_names(incoming)}: name that with --to")
    if not incoming and here.state == "open" and not (to in copies and copies[to].state == "incoming"):
        raise SettingError(f"no move of {coin} to {to} is under way: it lives on {home}")
    return MovePlan(MoveStage.COPY, home, here)


def is_left_behind(copy: Copy, home: Copy) -> bool:
    """Whether a copy is nobody's home any more, nor going to be."""
    return copy.state == "moved" or (copy.state == "incoming" and copy.placement <= home.placement)


def _incoming(copies: Mapping[str, Copy], home: Copy) -> list[str]:
    return [
        shard for shard, copy in copies.items() if copy.state == "incoming" and copy.placement == home.placement + 1
    ]


def _refuse_doubt(coin: str, home: Copy, away: Collection[str]) -> None:
    """A closed source may have been left for a shard that is away now, and open there."""
    if home.state == "closed" and away:
        raise ShardUnavailableError(
            f"the fence of {coin} is closed, and {_names(away)}, where it may be open already, did not answer: "
            "try again when every shard answers"
        )


def _names(shards: Collection[str]) -> str:
    return ", ".join(sorted(shards))
