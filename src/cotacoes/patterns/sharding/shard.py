"""Sharding: which shard holds a coin's history, and what a shard promises.

A coin lives on one shard, by an explicit directory, never by a hash of its name: a coin can be moved alone, and the
placement can be read by a person. The shard itself has the last word: each coin has a *fence* there, which says under
which placement and for which writer it takes quotes. Who missed a change is refused, never believed:

    not at home here, or another placement    CoinMovedError           go where it says, or read the directory again
    a newer writer is in the fence            WriterSupersededError    stop
    the fence is closed                       FenceClosedError         keep the batch, try again
    the shard is not where the writer left it ShardRewoundError        become its writer again, go on from its end

A shard holds a prefix of what the coin's writer recorded; `through` is how far. A batch sent twice changes nothing,
because the key of a quote is its position. Two things can break this, and both are noted as a *discrepancy*, in the
transaction that finds it, and reported until somebody accepts it:

    hole      positions that the writer cannot send any more; the history goes on behind them
    orphan    a quote that lies behind `through` and was never stored: it was published, and is not in the history
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from cotacoes.model.candle import Candle
from cotacoes.model.quote import Position, Quote
from cotacoes.model.window import Window, WindowView

BATCH_QUOTES_MAX = 1_000  # beyond it a batch gains little speed and holds its locks longer
READ_QUOTES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Home:
    """Where a coin lives. `placement` counts its moves; `retention_days` None: its quotes are kept for ever.

    `currency` is the one of all its prices; None: that of the first one to come.
    """

    coin_id: int
    shard: str
    placement: int
    retention_days: int | None = None
    currency: str | None = None


@dataclass(frozen=True)
class Directory:
    """Every coin's home, in the order of their ids, and the DSNs of shards beyond those that are settings."""

    homes: Mapping[str, Home]
    shards: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fence:
    """What a shard says of one coin.

    `newest` is the last quote that it holds and `floor` the position of the first, both None where it holds none.
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
        """The highest era that the shard knows of, 0 where it knows none."""
        return max(self.writer_epoch, 0 if self.newest is None else self.newest.epoch)


class Stored(NamedTuple):
    """What became of each quote of a batch.

    `stored` are new, `already` were there. Not in the history are `refused` ones, which are orphans, and `conflicts`,
    whose position another quote has; both are kept aside.
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
    """How many discrepancies of a coin nobody has accepted yet."""

    holes: int
    orphans: int


@dataclass(frozen=True)
class ShardView:
    """The end of one coin's history on a shard, under the placement under which it lives there.

    The last position and the `at` recorded for it; the newest quotes, ascending; a window, where one was asked for.
    """

    through: Position | None
    through_at: datetime | None
    placement: int
    quotes: list[Quote] = field(default_factory=list)
    window: WindowView | None = None


@dataclass(frozen=True)
class CandleView:
    """Candles, ascending, of all quotes of their kind up to `through`, which was recorded for `through_at`."""

    through: Position | None
    through_at: datetime | None
    candles: Sequence[Candle]


class Shard(Protocol):
    """What a shard does. Every call ends by the shard's own deadline.

    All raise ShardUnavailableError where it does not answer, is frozen, or is of another schema version, and
    CoinMovedError where the coin has no fence on it.
    """

    name: str

    async def ping(self) -> None:
        """Return where the shard can answer."""

    async def check_writable(self) -> None:
        """Return if the shard can answer, and takes writes."""

    async def fence(self, coin: str) -> Fence:
        """The coin's fence."""

    async def claim(self, coin: str, least: int, writer: str, *, held: int | None) -> Fence:
        """Make `writer` the coin's only writer under a new era, above all that the shard knows and not below `least`.

        The era is the fence's `writer_epoch`, and its first quote follows the fence's `through`: nobody else can add to
        the history any more. WriterSupersededError if another writer came after `held`, the era that this one has had.
        """

    async def become_writer(self, coin: str, epoch: int, writer: str) -> Fence:
        """Make (`epoch`, `writer`) the coin's only writer; WriterSupersededError where a newer one is."""

    async def append(
        self, coin: str, placement: int, writer_epoch: int, quotes: Sequence[Quote], *, end: Position | None = None
    ) -> Stored:
        """Store a batch, all or nothing; quotes already there stay as they are. ShardRefusedError by the fence.

        The counts of the answer come to the length of the batch. An era whose first quote names an earlier `prev` than
        the shard's end follows that end. A batch that begins further on leaves a hole, if `end` is where the shard
        ends; if it is not, ShardRewoundError, and nothing is stored.
        """

    async def unaccepted(self) -> dict[str, Unaccepted]:
        """The coins with discrepancies that nobody has accepted yet."""

    async def after(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        """The quotes after `position` (None: from the first), ascending."""

    async def last(self, coin: str, count: int) -> list[Quote]:
        """The newest quotes, ascending."""

    async def between(
        self, coin: str, start: datetime, end: datetime, position: Position | None, limit: int
    ) -> list[Quote]:
        """The quotes with `at` in [start, end) after `position` (None: from the first of them), ascending."""

    async def newest(self, coins: Sequence[str], count: int, window: Window | None = None) -> dict[str, ShardView]:
        """The end of the history of several coins, in one question; a coin that is not at home here is absent.

        All that is said of a coin is of one moment.
        """

    async def candles(
        self, coin: str, minutes: int, start: datetime, end: datetime, limit: int, kind: tuple[str, str] | None = None
    ) -> CandleView:
        """The first `limit` candles that begin in [start, end) and have a quote.

        Of one `kind`, which is origin and currency; None: that of the newest quote here.
        """
