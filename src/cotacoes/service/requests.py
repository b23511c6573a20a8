"""What routes ask of a request: a coin that is quoted here, and the admin token."""

from __future__ import annotations

import difflib
import hmac
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import Depends, Request

from cotacoes import config
from cotacoes.errors import UnauthorizedError, UnknownCoinError
from cotacoes.quote import COIN_PATTERN


def require_coin(coin: str, coins: Collection[str]) -> str:
    """The coin, where it is quoted here; UnknownCoinError with the nearest names otherwise."""
    if coin in coins:
        return coin
    shown = coin if COIN_PATTERN.match(coin) else "that name"
    raise UnknownCoinError(f"{shown} is not quoted here", did_you_mean=nearest(coin, list(coins)))


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The names that may have been meant, at most three."""
    return difflib.get_close_matches(name[:64].lower(), known, n=3, cutoff=0.5)


def require_admin(request: Request, settings: config.Settings) -> None:
    """UnauthorizedError unless the request carries the admin token."""
    token = settings.admin_token.get_secret_value()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # compared in full whatever the first difference, so that the time it takes tells nothing
    is_right = hmac.compare_digest(given.strip(" ").encode(), token.encode())
    if not token or scheme.lower() != "bearer" or not is_right:
        raise UnauthorizedError("send Authorization: Bearer with the admin token (COTACOES_ADMIN_TOKEN)")


def admins_only(settings: config.Settings) -> Any:
    """What stands among the `dependencies` of an administrative route."""

    async def check(request: Request) -> None:  # a coroutine: else each request would be checked in a thread
        require_admin(request, settings)

    return Depends(check)
