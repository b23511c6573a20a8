"""The check of the admin token."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import Depends, Request

from cotacoes import config
from cotacoes.errors import UnauthorizedError


def require_admin(request: Request, settings: config.Settings) -> None:
    """UnauthorizedError unless the request carries the admin token."""
    token = settings.admin_token.get_secret_value()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # compared in full wherever the first difference is, so that the time it takes reveals nothing
    is_right = hmac.compare_digest(given.strip(" ").encode(), token.encode())
    if not token or scheme.lower() != "bearer" or not is_right:
        raise UnauthorizedError("send Authorization: Bearer with the admin token (COTACOES_ADMIN_TOKEN)")


def admins_only(settings: config.Settings) -> Any:
    """The dependency that an administrative route declares."""

    async def check(request: Request) -> None:  # a coroutine, since FastAPI would run a function in a thread
        require_admin(request, settings)

    return Depends(check)
