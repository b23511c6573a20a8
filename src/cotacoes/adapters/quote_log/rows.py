"""The rows of the local log: the one place that knows how a quote is stored in SQLite."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cotacoes.adapters import named_queries
from cotacoes.model.quote import (
    Agreement,
    Position,
    Quote,
    format_price,
    from_microseconds,
    position_of,
    to_microseconds,
)

PLAIN_COLUMNS = "coin, currency, price, epoch, seq, observed_at, at, origin, prev_epoch, prev_seq"
QUOTE_COLUMNS = f"{PLAIN_COLUMNS}, agreement"
QUERIES = named_queries.read(__package__, "quote_log.sql", plain_columns=PLAIN_COLUMNS, quote_columns=QUOTE_COLUMNS)


@dataclass(frozen=True)
class LoggedCoin:
    """What the log knows of a coin when it is opened.

    `epoch` is the last epoch begun and `newest` the newest entry. `delivered` is the last position that the shard is
    known to hold, `floor` the oldest position held anywhere, `cursor` the source's cursor up to which prices were read.
    """

    epoch: int
    newest: Quote | None
    delivered: Position | None
    floor: Position | None
    cursor: str | None = None


@dataclass(frozen=True)
class Mark:
    """A coin's `delivered`, `floor` and `cursor`, as in `LoggedCoin`; written together with an append."""

    delivered: Position | None
    floor: Position | None
    cursor: str | None = None


def quote_of(row: tuple[Any, ...]) -> Quote:
    """The quote in a row of QUOTE_COLUMNS."""
    coin, currency, price, epoch, seq, observed_at, at, origin, prev_epoch, prev_seq, agreement = row
    times = from_microseconds(observed_at), from_microseconds(at)
    prev = position_of(prev_epoch, prev_seq)
    agreed = None if agreement is None else Agreement.parse(agreement)
    return Quote(coin, currency, Decimal(price), epoch, seq, *times, origin, prev, agreed)


def row_of(quote: Quote) -> tuple[Any, ...]:
    """The row of a quote, in the order of QUOTE_COLUMNS."""
    return (*plain_row_of(quote), None if quote.agreement is None else str(quote.agreement))


def plain_row_of(quote: Quote) -> tuple[Any, ...]:
    """The row of a quote without an agreement, in the order of PLAIN_COLUMNS."""
    times = to_microseconds(quote.observed_at), to_microseconds(quote.at)
    prev = quote.prev or (None, None)
    return (quote.coin, quote.currency, format_price(quote.price), quote.epoch, quote.seq, *times, quote.origin, *prev)
