"""The coins that are followed: those of the settings and those that were added, which a restart remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cotacoes.errors import BadRequestError
from cotacoes.model.venue_symbols import Overrides, VenueSymbol, rate_symbols_at, symbol_at
from cotacoes.web.source import AddableCoins

COINS_MAX = 500  # a price of each may be computed 20 times a second; more need a second feed_service


class FollowedCoins:
    """The coins, and the symbol of each at each venue. `overrides` are the symbols of the settings.

    `file` remembers coins that are added; None: none is remembered.
    """

    def __init__(self, seed: Sequence[str], venues: Sequence[str], overrides: Overrides, file: Path | None) -> None:
        self._venues = venues
        self._overrides = overrides
        self._coins = AddableCoins(seed, file, limit=COINS_MAX)
        self._venues_of: dict[str, dict[str, str]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._coins)

    def __contains__(self, coin: object) -> bool:
        return coin in self._coins

    def venues_of(self, coin: str) -> Mapping[str, str]:
        """The venues that list a coin, each with the currency in which it quotes the coin."""
        if coin not in self._venues_of:
            self._venues_of[coin] = {venue: symbol.currency for venue, symbol in self._listed(coin).items()}
        return self._venues_of[coin]

    def symbols_of(self, coin: str) -> dict[str, str]:
        """The symbol of a coin, followed or not, at each venue that lists it."""
        return {venue: symbol.symbol for venue, symbol in self._listed(coin).items()}

    def symbols_at(self, venue: str) -> dict[str, VenueSymbol]:
        """The venue's symbols: of the coins that it lists, and of the stablecoins that it quotes in dollars."""
        rates = {name: VenueSymbol(symbol, "USD") for name, symbol in rate_symbols_at(venue, self._overrides).items()}
        coins = {coin: symbol for coin in self._coins if (symbol := symbol_at(venue, coin, self._overrides))}
        return rates | coins

    def add(self, coin: str) -> bool:
        """Follow this coin as well; False if it is followed already. BadRequestError if that is not possible."""
        if coin in self._coins:
            return False
        self._coins.check(coin)
        if not self.venues_of(coin):
            raise BadRequestError(
                f"coin: no venue is known to list {coin}: name its symbols in COTACOES_VENUE_SYMBOLS, "
                f"as in kraken:{coin}:SYMBOL/USD"
            )
        self._coins.add(coin, venues=list(self.venues_of(coin)))
        return True

    def _listed(self, coin: str) -> dict[str, VenueSymbol]:
        found = {venue: symbol_at(venue, coin, self._overrides) for venue in self._venues}
        return {venue: symbol for venue, symbol in found.items() if symbol}
