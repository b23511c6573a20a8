"""The HTTP routes of gateway_service: the front page, and what quote_service says, passed on as it is.

The current quote alone is answered without quote_service too: with its last answer, and what its age is by now.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from cotacoes.client import GuardedClient, aged
from cotacoes.config import Settings
from cotacoes.errors import (
    ForbiddenError,
    HistoryUnavailableError,
    NoQuoteError,
    PositionBeyondEndError,
    PositionGoneError,
    ProblemError,
    ServiceUnavailableError,
    UnknownCoinError,
)
from cotacoes.gateway_service import event_stream, front_page
from cotacoes.patterns import CallResult, Source
from cotacoes.payloads import CandlesJson, CurrentJson, PageJson
from cotacoes.quote import COIN_PATTERN, AgeLimits
from cotacoes.service.document import answering
from cotacoes.service.requests import require_coin

Text = Annotated[str | None, Query(description="as quote_service takes it")]
PASSED_ON = (UnknownCoinError, NoQuoteError, ServiceUnavailableError)
READ = (HistoryUnavailableError, PositionGoneError, PositionBeyondEndError)
From = Annotated[str | None, Query(alias="from", description="RFC 3339, inclusive")]
To = Annotated[str | None, Query(alias="to", description="RFC 3339, exclusive")]
_encode = msgspec.json.Encoder().encode


async def known_coins(client: GuardedClient, settings: Settings) -> list[str]:
    """All coins, or those of the settings where quote_service can not say."""
    try:
        return list(await client.positions())
    except ProblemError:
        return list(settings.seed_placement)


def routes(settings: Settings, client: GuardedClient) -> APIRouter:
    """All routes of the service but its streams and those that every service has."""
    router = APIRouter(tags=["quotes"])

    @router.get("/", summary="What runs here, where, and what to ask it", **answering("text/html"))
    async def front(request: Request) -> HTMLResponse:
        page = front_page.render(settings, await known_coins(client, settings), request.url.hostname or settings.host)
        return HTMLResponse(page, headers={"content-security-policy": front_page.CONTENT_SECURITY_POLICY})

    @router.get(
        "/v1/quotes/{coin}/current",
        summary="The current quote, with its honest age",
        **answering(CurrentJson, *PASSED_ON),
    )
    async def current(coin: str) -> Response:
        """As `/cotacao_atual/{coin}` of quote_service, or, while that is away, its last answer, `source` cache."""
        return _json(_aged(await client.current(_coin(coin, settings)), settings))

    @router.get(
        "/v1/quotes/{coin}", summary="The history, in order, without a hole", **answering(PageJson, *PASSED_ON, *READ)
    )
    async def quotes(
        coin: str, after: Text = None, limit: Text = None, last: Text = None, start: From = None, end: To = None
    ) -> Response:
        """As `/v1/quotes/{coin}` of quote_service."""
        asked = {"after": after, "limit": limit, "last": last, "start": start, "end": end}
        return _json(await client.quotes(_coin(coin, settings), **asked))

    @router.get(
        "/v1/candles/{coin}",
        summary="Candles, the open one included, exact",
        **answering(CandlesJson, *PASSED_ON, *READ),
    )
    async def candles(
        coin: str,
        interval: str = "1m",
        limit: Text = None,
        empty: bool = False,
        origin: Text = None,
        currency: Text = None,
        start: From = None,
        end: To = None,
    ) -> Response:
        """As `/v1/candles/{coin}` of quote_service."""
        asked = {"limit": limit, "empty": empty, "origin": origin, "currency": currency, "start": start, "end": end}
        return _json(await client.candles(_coin(coin, settings), interval, **asked))

    @router.get(
        event_stream.PATH,
        summary="The live stream, as server-sent events; `/v1/ws` has it as a WebSocket",
        **answering(event_stream.MEDIA_TYPE, UnknownCoinError, ForbiddenError),
    )
    async def stream(
        coins: Annotated[str, Query(description="by commas")],
        mode: Annotated[str, Query(description="every quote, or the newest")] = "every",
        since: Annotated[str | None, Query(description="an `id` of an event, after which it resumes")] = None,
    ) -> None:
        """It also resumes after `Last-Event-ID`. The events are described in docs/asyncapi.yaml."""
        raise AssertionError("the edge answers it")

    return router


def _coin(coin: str, settings: Settings) -> str:
    """The name as it is, where it can be one; else it is refused here."""
    return coin if COIN_PATTERN.match(coin) else require_coin(coin, settings.seed_placement)


def _json(answer: dict[str, Any]) -> Response:
    return Response(_encode(answer), media_type="application/json", headers={"cache-control": "no-store"})


def _aged(answer: CallResult[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """The quote as it is now: one of before is as much older as the answer is."""
    if answer.source is not Source.CACHE:
        return answer.value
    told = aged(answer.value, round(answer.age * 1000), AgeLimits.of(settings.fresh_s, settings.age_max_s))
    if told is None:
        age_ms = answer.value["age_ms"] + round(answer.age * 1000)
        raise ServiceUnavailableError(
            f"quote_service is away, and the last quote is {age_ms // 1000} s old", age_ms=age_ms
        )
    return told | {
        "source": "cache",
        "breaker": None if answer.breaker_state is None else answer.breaker_state.value,
    }
