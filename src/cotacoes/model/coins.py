"""Known coins, and suggestions for unknown names.

This is apart from `requests`, since commands without a server need it, and FastAPI takes a third of a second to import.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable

from cotacoes.errors import UnknownCoinError
from cotacoes.model.quote import COIN_PATTERN

COMPARED_MAX = 1_000  # some 2 ms, during which the whole process stands still


def require_coin(coin: str, coins: Collection[str]) -> str:
    """Return the coin if it is known; UnknownCoinError with the nearest names otherwise."""
    if coin in coins:
        return coin
    shown = coin if COIN_PATTERN.match(coin) else "that name"
    raise UnknownCoinError(f"{shown} is not quoted here", did_you_mean=nearest(coin, coins))


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """At most three similar names among the first `COMPARED_MAX` known ones."""
    compared = list(itertools.islice(known, COMPARED_MAX))
    return difflib.get_close_matches(name[:64].lower(), compared, n=3, cutoff=0.5)
