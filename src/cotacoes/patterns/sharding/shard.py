"""Sharding: which shard holds a coin's history, and what a shard promises.

A coin lives on one shard, by an explicit directory and never by a hash of its name, so that a coin can be moved alone
and a person can read its placement. The shard itself has the last word: it has a *fence* for each coin, which says
under which placement and for which writer it takes quotes. A caller that missed a change is refused:

    the coin left, or has another placement      CoinMovedError           go where it says, or read the directory again
    the fence names a newer writer               WriterSupersededError    stop
    the fence is closed                          FenceClosedError         keep the batch and try again
    the shard's end is not the one expected      ShardRewoundError        become its writer again, continue at its end

A shard holds a prefix of what the coin's writer recorded, up to the position `through`. A batch sent twice changes
nothing, because the key of a quote is its position. Two things can break this. Both are noted as a *discrepancy*, in
the transaction that finds it, and reported until an administrator accepts it:

    hole      positions that the writer can no longer send; the history continues behind them
    orphan    a quote that lies before `through` and was never stored: it was published, but is not in the history
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from cotacoes.model.candle import Candle
from cotacoes.model.quote import Position, Quote
from cotacoes.model.window import Window, WindowView

BATCH_QUOTES_MAX = 1_000  # beyond it a batch gains little speed and holds its locks longer
READ_QUOTES_MAX = 10_000
Kind = Literal["coin", "venue"]  # of an entry of the directory


@dataclass(frozen=True, slots=True)
class Home:
    """Where a coin lives. `placement` counts its moves.

    Quotes are kept for `retention_days`, or for ever if that is None. `currency` is that of all its prices; if it is
    None, the first price decides. A `venue` is the series of one venue's prices, which is like a coin in all but this:
    lists leave it out unless it is asked for.
    """

    coin_id: int
    shard: str
    placement: int
    retention_days: int | None = None
    currency: str | None = None
    kind: Kind = "coin"


@dataclass(frozen=True)
class Directory:
    """The home of every coin, in the order of their ids, and the DSNs of the shards that are not settings."""

    homes: Mapping[str, Home]
    shards: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fence:
    """A shard's fence for one coin.

    `newest` is the last quote that the shard holds and `floor` the position of the first; both are None if it has none.
    """

    placement: int
    writer_epoch: int
    newest: Quote | None
    floor: Position | None
    writer: str = ""

    @property
    def through(self) -> Position | None:
        """The last position that the shard holds."""
        return None if self.newest is None else self.newest.position

    @property
    def epoch(self) -> int:
        """The highest epoch that the shard knows of, 0 if it knows none."""
        return max(self.writer_epoch, 0 if self.newest is None else self.newest.epoch)


class Stored(NamedTuple):
    """What became of the quotes of a batch.

    `stored` are new, `already` were stored before. `refused` ones are orphans and `conflicts` have the position of
    another quote: neither are in the history, and both are kept aside.
    """

    stored: int
    already: int = 0
    refused: int = 0
    conflicts: int = 0

    @property
    def held(self) -> int:
        """How many are in the history."""
        return self.stored + self.already


class Unaccepted(NamedTuple):
    """The discrepancies of a coin that have not been accepted yet."""

    holes: int
    orphans: int


@dataclass(frozen=True)
class ShardView:
    """The end of one coin's history on a shard, under the placement that it has there.

    `through` is the last position and `through_at` the `at` recorded for it; the newest quotes are ascending. There is
    a window if one was requested.
    """

    through: Position | None
    through_at: datetime | None
    placement: int
    quotes: list[Quote] = field(default_factory=list)
    window: WindowView | None = None


@dataclass(frozen=True)
class CandleView:
    """Candles, ascending, of all quotes of their kind up to `through`, for which `through_at` was recorded."""

    through: Position | None
    through_at: datetime | None
    candles: Sequence[Candle]


class Shard(Protocol):
    """What a shard does. Every call ends by the shard's own deadline.

    Every call raises ShardUnavailableError if the shard does not answer or has another schema version, and
    CoinMovedError if it has no fence for the coin.
    """

    name: str

    async def ping(self) -> None:
        """Return if the shard can answer."""

    async def check_writable(self) -> None:
        """Return if the shard can answer and takes writes."""

    async def directory(self) -> Directory:
        """The directory of coins and shards; kept on the first shard only."""

    async def learn_currencies(self, currencies: Mapping[str, str]) -> None:
        """Note in the directory the currencies of coins that have none yet; on the first shard only."""

    async def fence(self, coin: str) -> Fence:
        """The coin's fence."""

    async def claim(self, coin: str, least: int, writer: str, *, held: int | None) -> Fence:
        """Make `writer` the coin's only writer, under a new epoch above all that the shard knows and at least `least`.

        The epoch is the fence's `writer_epoch`, and its first quote follows the fence's `through`, as no other writer
        can add to the history any more. WriterSupersededError if another writer came after `held`, this one's epoch.
        """

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        """Make (`epoch`, `writer`) the coin's only writer; WriterSupersededError if there is a newer one."""

    async def append(
        self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote], *, end: Position | None = None
    ) -> Stored:
        """Store a batch, all or nothing; stored quotes stay as they are. ShardRefusedError if the fence refuses it.

        The counts returned add up to the length of the batch. An epoch whose first quote names an earlier `prev` than
        the shard's end follows that end. A batch that begins further on leaves a hole if the shard ends at `end`;
        otherwise it raises ShardRewoundError and stores nothing.
        """

    async def unaccepted(self) -> dict[str, Unaccepted]:
        """The coins with discrepancies that have not been accepted yet."""

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        """The quotes after `position`, or from the first if it is None, ascending."""

    async def last(self, coin: str, count: int) -> list[Quote]:
        """The newest quotes, ascending."""

    async def between(
        self, coin: str, start: datetime, end: datetime, position: Position | None, limit: int
    ) -> list[Quote]:
        """The quotes with `at` in [start, end) after `position`, or from the first of them if it is None, ascending."""

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        """The end of the history of several coins, in one call; a coin that does not live here is absent.

        Each coin's view is of a single moment.
        """

    async def candles(
        self, coin: str, minutes: int, start: datetime, end: datetime, limit: int, kind: tuple[str, str] | None = None
    ) -> CandleView:
        """The first `limit` candles that begin in [start, end) and have a quote.

        They are of one `kind`, which is an origin and a currency; if it is None, that of the newest quote here.
        """
