"""gateway_service: the front door.

GET /                              what runs where
GET /v1/quotes/{coin}/current      the current quote, asked of quote_service, its refusals passed on as they are
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from cotacoes.client import Addresses, Client
from cotacoes.config import Settings
from cotacoes.errors import ProblemError
from cotacoes.gateway_service import front_page
from cotacoes.quote import COIN_PATTERN
from cotacoes.service import Check, Service, Stop, build_app, require_coin, serve_http
from cotacoes.telemetry import Metrics

NAME = "gateway_service"
ASK_S_MAX = 2.0  # quote_service answers from memory: what is not there by then is away
ASK_SHARE_MAX = 0.8  # of the request's deadline, so that being away is said before the time is up
_encode = msgspec.json.Encoder().encode


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped."""
    await serve_http(build(settings), settings, stop)


def build(settings: Settings) -> Service:
    """Wire the service; nothing is opened yet."""
    ask_s = min(ASK_S_MAX, settings.request_deadline_s * ASK_SHARE_MAX)
    client = Client(Addresses(quote_service=settings.url("quote_service")), deadline_s=ask_s)

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with client:
            yield

    return wire(settings, client, resources)


async def _coins(client: Client, settings: Settings) -> list[str]:
    """All coins, or those of the settings where quote_service can not say."""
    try:
        return list(await client.positions())
    except ProblemError:
        return list(settings.seed_placement)


def wire(
    settings: Settings,
    client: Client,
    resources: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
) -> Service:
    """The service over a client that is open while `resources` is."""
    router = APIRouter(tags=["quotes"])

    @router.get("/", summary="What runs here, where, and what to ask it", response_class=HTMLResponse)
    async def front(request: Request) -> HTMLResponse:
        page = front_page.render(settings, await _coins(client, settings), request.url.hostname or settings.host)
        return HTMLResponse(page, headers={"content-security-policy": front_page.CONTENT_SECURITY_POLICY})

    @router.get("/v1/quotes/{coin}/current", summary="The current quote, with its honest age", response_model=None)
    async def current(coin: str) -> Response:
        """As `/cotacao_atual/{coin}` of quote_service."""
        if not COIN_PATTERN.match(coin):
            require_coin(coin, settings.seed_placement)
        quote = await client.current(coin)
        return Response(_encode(quote), media_type="application/json", headers={"cache-control": "no-store"})

    async def quote_service_answers() -> str | None:
        await client.check_alive("quote_service")  # an error's detail becomes the reason
        return None

    checks = {"quote_service": Check(quote_service_answers, required=True)}
    return Service(NAME, build_app(NAME, settings, Metrics(), router, checks=checks), resources)
