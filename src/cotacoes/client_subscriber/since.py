"""The option `--since`: the position after which each coin begins."""

from __future__ import annotations

from collections.abc import Sequence

from cotacoes.errors import SettingError
from cotacoes.model.quote import Position


def read_since(texts: Sequence[str], coins: Sequence[str]) -> dict[str, Position]:
    """Read `COIN=E-S`, or `E-S` if only one coin is shown; SettingError names an invalid text."""
    since: dict[str, Position] = {}
    for text in texts:
        coin, is_named, position = text.rpartition("=")
        coin = coin.lower()
        if not is_named:
            if len(coins) != 1:
                raise SettingError(f"--since {text}: {len(coins)} coins are shown: write --since COIN={text}")
            coin = coins[0]
        if coin not in coins:
            raise SettingError(
                f"--since {text}: {coin or 'an empty name'} is not shown; the coins are {', '.join(coins)}"
            )
        if coin in since:
            raise SettingError(f"--since {text}: {coin} was given twice")
        try:
            since[coin] = Position.parse(position)
        except ValueError as error:
            raise SettingError(f"--since {text}: {error}") from error
    return since
