"""The peers of the HTTP figure, on the same server: a bare ASGI function, a plain FastAPI handler."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastapi import FastAPI

from cotacoes.adapters import http_server

BODY = b'{"coin":"bitcoin","currency":"USD","price":"67012.34","epoch":1732400000000,"seq":42}'


async def bare(_: Any, __: Any, send: Any) -> None:
    """The least that answers."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def fastapi() -> FastAPI:
    """What a newcomer writes."""
    app = FastAPI()

    @app.get("/cotacao_atual/{coin}")
    async def current(coin: str) -> dict[str, str | int]:
        return {"coin": coin, "currency": "USD", "price": "67012.34", "epoch": 1732400000000, "seq": 42}

    return app


async def main(kind: str, port: int) -> None:
    """Serve until ended."""
    app: Any = bare if kind == "bare" else fastapi()
    await http_server.serve(app, http_server.listen("127.0.0.1", port), asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
