"""gateway_service: the front door.

GET /                              what runs where
GET /v1/quotes/{coin}/current      the current quote, asked of quote_service, its refusals passed on as they are

While quote_service is away the last answer about a coin is given instead, with what its age is by now.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from cotacoes.breaker_routes import breaker_routes
from cotacoes.client import Addresses, GuardedClient, ServiceClient
from cotacoes.config import Settings
from cotacoes.endpoints import new_endpoints
from cotacoes.errors import ProblemError, ServiceUnavailableError
from cotacoes.gateway_service import front_page
from cotacoes.patterns import CallResult, Source
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
    client = ServiceClient(Addresses(quote_service=settings.url("quote_service")), deadline_s=ask_deadline_s(settings))

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with client:
            yield

    return wire(settings, client, resources)


def ask_deadline_s(settings: Settings) -> float:
    """Of one question to quote_service, further tries included."""
    return min(ASK_S_MAX, settings.request_deadline_s * ASK_SHARE_MAX)


def _aged(answer: CallResult[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """The quote as it is now: one of before is as much older as the answer is."""
    if answer.source is not Source.CACHE:
        return answer.value
    age_ms = int(answer.value["age_ms"]) + round(answer.age * 1000)
    if age_ms > settings.age_max_s * 1000:
        raise ServiceUnavailableError(
            f"quote_service is away, and the last quote is {age_ms // 1000} s old", age_ms=age_ms
        )
    return answer.value | {
        "age_ms": age_ms,
        "status": "fresh" if age_ms <= settings.fresh_s * 1000 else "stale",
        "source": "cache",
        "breaker": None if answer.breaker_state is None else answer.breaker_state.value,
    }


async def _coins(client: GuardedClient, settings: Settings) -> list[str]:
    """All coins, or those of the settings where quote_service can not say."""
    try:
        return list(await client.positions())
    except ProblemError:
        return list(settings.seed_placement)


def wire(
    settings: Settings,
    client: ServiceClient,
    resources: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
) -> Service:
    """The service over a client that is open while `resources` is."""
    metrics = Metrics()
    endpoints = new_endpoints(metrics)
    guarded = GuardedClient(
        client,
        endpoints,
        questions=("current", "positions"),
        deadline_s=ask_deadline_s(settings),
        clock=time.monotonic,
        attempts=2,
        age_max_s=settings.age_max_s,
    )
    router = APIRouter(tags=["quotes"])

    @router.get("/", summary="What runs here, where, and what to ask it", response_class=HTMLResponse)
    async def front(request: Request) -> HTMLResponse:
        page = front_page.render(settings, await _coins(guarded, settings), request.url.hostname or settings.host)
        return HTMLResponse(page, headers={"content-security-policy": front_page.CONTENT_SECURITY_POLICY})

    @router.get("/v1/quotes/{coin}/current", summary="The current quote, with its honest age", response_model=None)
    async def current(coin: str) -> Response:
        """As `/cotacao_atual/{coin}` of quote_service, or, while that is away, its last answer, `source` cache."""
        if not COIN_PATTERN.match(coin):
            require_coin(coin, settings.seed_placement)
        quote = _aged(await guarded.current(coin), settings)
        return Response(_encode(quote), media_type="application/json", headers={"cache-control": "no-store"})

    async def quote_service_answers() -> str | None:
        await client.check_alive("quote_service")  # an error's detail becomes the reason
        return None

    router.include_router(breaker_routes(NAME, settings, endpoints))
    checks = {"quote_service": Check(quote_service_answers, required=True)}
    return Service(NAME, build_app(NAME, settings, metrics, router, checks=checks), resources)
