"""Answers for pages of other origins that are listed in `COTACOES_ALLOWED_ORIGINS` (CORS).

A browser lets such a page read an answer only if the answer allows its origin. Before a request with a header that is
not harmless by itself, such as `Last-Event-ID`, it asks first, with OPTIONS. Streams allow an origin themselves.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import Any

from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send

HEADERS = b"cache-control, last-event-id, x-deadline-ms"
KEPT_S = 600  # by the browser, which does not ask again meanwhile


class CrossOrigin:
    """The app, with its answers readable for pages of these origins; nothing but GET is allowed to them."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        origin = headers.get(b"origin")
        if origin not in self._origins:
            await self._app(scope, receive, send)
            return
        allowed = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            answer = [
                *allowed,
                (b"access-control-allow-methods", b"GET"),
                (b"access-control-allow-headers", HEADERS),
                (b"access-control-max-age", b"%d" % KEPT_S),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": answer})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_allowed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        await self._app(scope, receive, send_allowed)
