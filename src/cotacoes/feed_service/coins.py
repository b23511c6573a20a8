"""The coins that are followed: those of the settings and those that were added, which a restart remembers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cotacoes.errors import BadRequestError
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS
from cotacoes.model.quote import COIN_PATTERN
from cotacoes.model.venue_symbols import Overrides, VenueSymbol, rate_symbols_at, symbol_at
from cotacoes.observability.logs import get_logger
from cotacoes.observability.whole_file import replace_file

COINS_MAX = 500  # a price of each may be computed 20 times a second; more need a second feed_service


class FollowedCoins:
    """The coins, and the symbol of each at each venue. `overrides` are the symbols of the settings.

    `file` remembers coins that are added; None: none is remembered.
    """

    def __init__(self, seed: Sequence[str], venues: Sequence[str], overrides: Overrides, file: Path | None) -> None:
        self._venues = venues
        self._overrides = overrides
        self._seed = tuple(seed)
        self._file = file
        self._coins = list(dict.fromkeys([*seed, *self._added()]))[: max(COINS_MAX, len(seed))]
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
        if not _can_be_added(coin):
            raise BadRequestError("coin: write 1 to 32 of a-z 0-9 -, and no field of /quote")
        if coin in self._coins:
            return False
        if len(self._coins) >= COINS_MAX:
            raise BadRequestError(f"coin: the limit of {COINS_MAX} coins is reached")
        if not self.venues_of(coin):
            raise BadRequestError(
                f"coin: no venue is known to list {coin}: name its symbols in COTACOES_VENUE_SYMBOLS, "
                f"as in kraken:{coin}:SYMBOL/USD"
            )
        self._coins.append(coin)
        self._remember()
        get_logger().info("coin.added", coin=coin, venues=list(self.venues_of(coin)))
        return True

    def _listed(self, coin: str) -> dict[str, VenueSymbol]:
        found = {venue: symbol_at(venue, coin, self._overrides) for venue in self._venues}
        return {venue: symbol for venue, symbol in found.items() if symbol}

    def _remember(self) -> None:
        added = [coin for coin in self._coins if coin not in self._seed]
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                replace_file(self._file, json.dumps(added).encode())
        except OSError as error:  # it is followed all the same, until a restart
            get_logger().warning("coin.forgotten", reason=error.strerror)

    def _added(self) -> list[str]:
        if self._file is None:
            return []
        try:
            names = msgspec.json.decode(self._file.read_bytes(), type=list[str])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return []
        return list(filter(_can_be_added, names))


def _can_be_added(coin: str) -> bool:
    return COIN_PATTERN.match(coin) is not None and coin not in SOURCE_QUOTE_FIELDS
