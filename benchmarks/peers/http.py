"""The peers of the `http` figure, on the same server: a bare ASGI function, a plain FastAPI handler.

    python -m benchmarks.peers.http bare|fastapi      ─▶ the port that it listens on, as its first line

Both answer with the same fields as the route that they stand beside.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from fastapi import FastAPI

from cotacoes.adapters.http_server import server
from cotacoes.adapters.http_server.hosts import AllowedHosts

ANSWER: dict[str, str | int] = {
    "coin": "bitcoin",
    "currency": "USD",
    "price": "67012.34",
    "epoch": 1732400000000,
    "seq": 42,
    "observed_at": "2026-11-24T12:00:00.123456Z",
    "at": "2026-11-24T12:00:00.123456Z",
    "age_ms": 512,
    "status": "fresh",
    "source": "live",
    "origin": "sim",
    "breaker": "closed",
}
_BODY = json.dumps(ANSWER, separators=(",", ":")).encode()


async def bare(_: Any, __: Any, send: Any) -> None:
    """The least that answers."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


def fastapi() -> FastAPI:
    """What a newcomer writes."""
    app = FastAPI()

    @app.get("/cotacao_atual/{coin}")
    async def current(coin: str) -> dict[str, str | int]:
        return {**ANSWER, "coin": coin}

    return app


async def main(kind: str) -> None:
    """Serve until ended."""
    app: Any = bare if kind == "bare" else fastapi()
    listener = server.listen("127.0.0.1", 0)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve(app, listener, asyncio.Event(), hosts=AllowedHosts(["127.0.0.1"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
