"""What routes share: the check of the admin token, numbers in a query, ETags, answers of JSON."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import Depends, Request, Response

from cotacoes import config
from cotacoes.errors import BadRequestError, UnauthorizedError


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


def whole_number(name: str, text: str, least: int, most: int) -> int:
    """The number that a parameter of the query gives; BadRequestError for anything else, or beyond these bounds."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise BadRequestError(f"{name} must be a number from {least} to {most}")
    return int(text)


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the caller has the answer with this ETag, by the weak comparison of RFC 9110."""
    return any(one.strip().removeprefix("W/") in ("*", etag.removeprefix("W/")) for one in if_none_match.split(","))


def json_answer(body: bytes) -> Response:
    """The answer with this JSON, which no cache may keep, since its ages would be served unchanged."""
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
