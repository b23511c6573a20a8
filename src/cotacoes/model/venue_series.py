"""The series of venues: the prices of a coin at one venue, recorded beside the price on which the venues agree.

    bitcoin at kraken ──▶ bitcoin-kraken, in USD

A series is named like a coin, and is one wherever it is asked for by its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cotacoes.model.quote import COIN_PATTERN
from cotacoes.model.venue_symbols import VENUE_NAMES, Overrides, symbol_at


@dataclass(frozen=True)
class VenueSeries:
    """The series of one coin at one venue, which quotes it in `currency`."""

    coin: str
    venue: str
    currency: str

    @property
    def name(self) -> str:
        return f"{self.coin}-{self.venue}"

    @property
    def has_valid_name(self) -> bool:
        """Whether a directory can have the name; otherwise it is too long."""
        return COIN_PATTERN.match(self.name) is not None


def series_of(coin: str, venues: Iterable[str], overrides: Overrides) -> list[VenueSeries]:
    """The series of a coin at those of these venues that list it."""
    found = {venue: symbol_at(venue, coin, overrides) for venue in venues}
    return [VenueSeries(coin, venue, symbol.currency) for venue, symbol in found.items() if symbol]


def venue_of(name: str, known: Collection[str]) -> str | None:
    """The venue of a series by its name; None for a coin. `known` are all names, since a series has its coin there."""
    coin, _, venue = name.rpartition("-")
    return venue if venue in VENUE_NAMES and coin in known else None
