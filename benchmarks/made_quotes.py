"""Quotes for the ledger's figures: made beforehand from a seed, an era a day, at a steady pace, 5 % of them doubled."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from cotacoes.model.quote import Agreement, Position, Quote

SEED = 5
FIRST_DAY = datetime(2024, 1, 8, tzinfo=UTC)
FIRST_EPOCH = 1_704_672_000_000
FIRST_CENTS = 6_701_234
DOUBLED_EVERY = 20  # of so many batches one is sent again
_SOURCE_DELAY = timedelta(milliseconds=3)


def make_quotes(
    count: int,
    *,
    coin: str = "bitcoin",
    day: int = 0,
    rate: float = 50.0,
    prev: Position | None = None,
    agreed: bool = False,
) -> list[Quote]:
    """An epoch of quotes on the day with this number, from one hour past midnight on, `rate` a second.

    `agreed`: each with how six venues agreed on it.
    """
    chance = random.Random(f"{SEED} {coin} {day}")
    epoch, first = FIRST_EPOCH + day, FIRST_DAY + timedelta(days=day, hours=1)
    cents, quotes = FIRST_CENTS, []
    for seq in range(1, count + 1):
        cents += chance.randint(-200, 200)
        at = first + timedelta(microseconds=int((seq + chance.random() / 2) * 1_000_000 / rate))
        price = Decimal(cents).scaleb(-2)
        before = prev if seq == 1 else None
        agreement = Agreement("agreed", Decimal(100 + cents % 2_900).scaleb(-2), 5 + seq % 2, 6) if agreed else None
        quotes.append(Quote(coin, "USD", price, epoch, seq, at - _SOURCE_DELAY, at, "sim", before, agreement))
    return quotes


def batches(quotes: Sequence[Quote], size: int) -> Iterator[Sequence[Quote]]:
    """In order, `size` at a time."""
    return (quotes[start : start + size] for start in range(0, len(quotes), size))


def doubled(quotes: Sequence[Quote], size: int) -> Iterator[Sequence[Quote]]:
    """The same, one batch in twenty twice, the first to begin with."""
    for number, batch in enumerate(batches(quotes, size), start=1):
        yield batch
        if number % DOUBLED_EVERY == 1:
            yield batch
