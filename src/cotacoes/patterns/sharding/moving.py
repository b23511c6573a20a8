"""Moving: how a coin goes from one shard to another while its writer and its readers are at work.

    step       source S, placement p     target T, placement p + 1
    begun      open                      incoming                      only the mover sees the copy
    copied     open                      incoming                      what is stored stays; only the end grows
    verified   open                      incoming                      by content: count and digest of each day
    closed     closed: quotes wait in    incoming                      the small rest is copied and verified
               the log, reads continue
    opened     closed                    open                          refused unless all of it was verified
    left       moved, to T under p + 1   open                          writers and readers follow
    placed     moved                     open                          the directory on shard1 says so too

The fences say how far a move has come, so it can be killed at any moment and run again: `plan_move` reads them. Two
rules make that safe: a copy can be opened only by the mover that holds the coin's claim on both shards, and only while
the source is closed; the source is opened again only while the copy is certainly not open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import NamedTuple, Protocol

from cotacoes.errors import SettingError, ShardUnavailableError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.sharding.ledger_facts import AT_HOME, CoinCopy, Content, DayRow


@dataclass(frozen=True, slots=True)
class CopyPage:
    """`count` things that follow a position, up to `last`; only the adapters know the type of `rows`."""

    count: int
    last: Position | None
    rows: object


class AsideCount(NamedTuple):
    """How much of a coin is kept aside; `accepted` counts orphans and holes together."""

    conflicts: int
    orphans: int = 0
    holes: int = 0
    accepted: int = 0


class MovingShard(Protocol):
    """A shard as the mover sees it, with every copy in whatever state. One connection, and one call at a time.

    Every call raises ShardUnavailableError. Calls that change a copy raise CopyRefusedError and can be sent again.
    """

    name: str

    async def claim(self, coin_id: int) -> bool:
        """Whether this connection, while it lasts, is the only one that moves the coin."""

    async def copy(self, coin: str) -> CoinCopy | None:
        """The coin's copy on this shard."""

    async def days(self, coin_id: int) -> list[DayRow]:
        """Every day of the coin, ascending."""

    async def content(self, coin_id: int, after: Position, through: Position) -> dict[date, Content]:
        """The content of the quotes after a position up to another, by day; days without a quote are absent."""

    async def candle_content(self, coin_id: int, day: date) -> Content:
        """The content of a day's candles."""

    async def quote(self, coin: str, coin_id: int, after: Position) -> Quote | None:
        """The first quote after a position."""

    async def page(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        """The first quotes after a position."""

    async def dropped(self, coin_id: int, day: date) -> object | None:
        """The row and the candles of a dropped day; None if the day is not dropped."""

    async def epochs(self, coin_id: int) -> object:
        """Every epoch of the coin."""

    async def asides(self, coin_id: int, after: Position, limit: int) -> CopyPage:
        """The first conflicts, orphans and holes after a position."""

    async def aside_count(self, coin_id: int) -> AsideCount:
        """How much is kept aside."""

    async def begin(self, coin_id: int, coin: str, placement: int) -> None:
        """Begin an incoming copy, or continue one."""

    async def receive(self, coin_id: int, placement: int, after: Position, page: CopyPage) -> None:
        """Store a page of quotes behind `after`, which must have been received before."""

    async def receive_dropped(self, coin_id: int, placement: int, dropped: object) -> None:
        """Store the row and the candles of a dropped day."""

    async def receive_epochs(self, coin_id: int, placement: int, epochs: object) -> None:
        """Store epochs."""

    async def receive_asides(self, coin_id: int, placement: int, page: CopyPage) -> None:
        """Keep aside a page of conflicts, orphans and holes."""

    async def receive_manifest(self, coin_id: int, placement: int, day: DayRow) -> None:
        """Seal a day whose quotes were compared with its manifest."""

    async def close(self, coin_id: int, placement: int) -> None:
        """Close the source's fence."""

    async def reopen(self, coin_id: int, placement: int) -> None:
        """Open the source's fence again."""

    async def open(self, coin_id: int, placement: int, source: CoinCopy, count: int) -> None:
        """Open the copy with the source's writer and floor, if it holds `count` quotes up to the source's last."""

    async def leave(self, coin_id: int, placement: int, to: str) -> None:
        """Note in the source's closed fence that the coin lives on `to`, under the next placement."""

    async def give_up(self, coin_id: int, placement: int) -> None:
        """Give up an incoming copy, which can then be neither filled nor opened."""

    async def purge(self, coin_id: int, placement: int, limit: int) -> bool:
        """Delete up to `limit` quotes of a copy that is not the coin's home; whether anything is left of it."""

    async def place(self, coin: str, shard: str, placement: int) -> None:
        """Write into the directory where the coin lives, unless it has a later placement already."""


class MoveStage(Enum):
    """How much of a move is left to do."""

    COPY = "copy"
    FINISH = "finish"  # the target is open, the source does not know it yet
    DONE = "done"


@dataclass(frozen=True, slots=True)
class MovePlan:
    """The shard from which a coin goes, and what is left to do; `source` is the target itself if all is done."""

    stage: MoveStage
    source: str
    copy: CoinCopy


def home_of(coin: str, copies: Mapping[str, CoinCopy], away: Collection[str]) -> str:
    """The shard on which the coin lives. ShardUnavailableError if that may be one that is away, else SettingError."""
    homes = {shard: copy for shard, copy in copies.items() if copy.state in AT_HOME}
    if homes:
        return max(homes, key=lambda shard: homes[shard].placement)
    if away:
        raise ShardUnavailableError(f"{coin} lives on none of the shards that answer; {_names(away)} did not")
    raise SettingError(f"{coin} lives on no shard: `cotacoes coins list` shows the coins")


def plan_move(coin: str, to: str, copies: Mapping[str, CoinCopy], away: Collection[str]) -> MovePlan:
    """Plan what is left of the move of `coin` to `to`, from the copies on the shards that answer.

    SettingError if another move has to be finished first; ShardUnavailableError if a shard that is `away` is needed.
    """
    home = home_of(coin, copies, away)
    here = copies[home]
    behind = [shard for shard, copy in copies.items() if copy.state == "closed" and shard != home]
    if home == to:
        if behind:
            return MovePlan(MoveStage.FINISH, behind[0], copies[behind[0]])
        return MovePlan(MoveStage.DONE, home, here)
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


def plan_abort(coin: str, to: str, copies: Mapping[str, CoinCopy], away: Collection[str]) -> MovePlan:
    """Plan how to abort the move of `coin` to `to`; SettingError if it can no longer be stopped."""
    home = home_of(coin, copies, away)
    here = copies[home]
    if home == to:
        raise SettingError(
            f"{coin} lives on {to} already, so there is nothing left to abort: run the move without --abort to "
            "finish what is left of it, then move the coin back if you want that"
        )
    _refuse_doubt(coin, here, away)
    incoming = _incoming(copies, here)
    if incoming and to not in incoming:
        raise SettingError(f"the move of {coin} that is under way goes to {_names(incoming)}: name that with --to")
    if not incoming and here.state == "open" and not (to in copies and copies[to].state == "incoming"):
        raise SettingError(f"no move of {coin} to {to} is under way: it lives on {home}")
    return MovePlan(MoveStage.COPY, home, here)


def is_left_behind(copy: CoinCopy, home: CoinCopy) -> bool:
    """Whether a copy is not the coin's home, and will not become it."""
    return copy.state == "moved" or (copy.state == "incoming" and copy.placement <= home.placement)


def _incoming(copies: Mapping[str, CoinCopy], home: CoinCopy) -> list[str]:
    return [
        shard for shard, copy in copies.items() if copy.state == "incoming" and copy.placement == home.placement + 1
    ]


def _refuse_doubt(coin: str, home: CoinCopy, away: Collection[str]) -> None:
    """ShardUnavailableError if the source is closed and a shard is away: the coin may be open there already."""
    if home.state == "closed" and away:
        raise ShardUnavailableError(
            f"the fence of {coin} is closed, and {_names(away)}, where it may be open already, did not answer: "
            "try again when every shard answers"
        )


def _names(shards: Collection[str]) -> str:
    return ", ".join(sorted(shards))
