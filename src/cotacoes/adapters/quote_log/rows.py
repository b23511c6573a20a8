"""What the local log tells of its coins, and how its rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cotacoes.model.quote import Position, Quote, from_microseconds


@dataclass(frozen=True)
class LoggedCoin:
    """What the log knows of a coin at opening.

    `epoch` is the last era begun, `newest` its newest entry, `delivered` how far a shard is known to have answered,
    `floor` the oldest position held anywhere, as last told by the shard, `cursor` where the tape was taken to.
    """

    epoch: int
    newest: Quote | None
    delivered: Position | None
    floor: Position | None
    cursor: str | None = None


@dataclass(frozen=True)
class Mark:
    """How far delivery has come, the oldest position held, where the tape was taken to; written with an append."""

    delivered: Position | None
    floor: Position | None
    cursor: str | None = None


def position_of(epoch: int | None, seq: int | None) -> Position | None:
    return None if epoch is None or seq is None else Position(epoch, seq)


def quote_of(row: tuple[Any, ...]) -> Quote:
    coin, currency, price, epoch, seq, observed_at, at, origin, *prev = row
    times = from_microseconds(observed_at), from_microseconds(at)
    return Quote(coin, currency, Decimal(price), epoch, seq, *times, origin, position_of(*prev))
