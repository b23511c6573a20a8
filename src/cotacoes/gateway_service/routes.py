"""The HTTP routes of gateway_service that pass the answers of quote_service on, unchanged.

Only the current quote is answered without quote_service too: from its last answer or the newest quote of the live
stream, whichever is newer, with its present age.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query, Response

from cotacoes.config import Settings
from cotacoes.errors import (
    ForbiddenError,
    HistoryUnavailableError,
    MalformedRequestError,
    MisdirectedRequestError,
    NoQuoteError,
    PositionBeyondEndError,
    PositionGoneError,
    ServiceUnavailableError,
    UnknownCoinError,
    UpgradeRequiredError,
)
from cotacoes.gateway_service import event_stream, websocket
from cotacoes.gateway_service.coin_names import CoinNames
from cotacoes.model.coins import require_coin
from cotacoes.model.payloads import CandlesJson, CurrentJson, PageJson
from cotacoes.model.quote import COIN_PATTERN, AgeLimits, Quote, QuoteJson
from cotacoes.patterns.resilience import CallResult, ServedFrom
from cotacoes.web.document import answering, refusing
from cotacoes.web.requests import json_answer
from cotacoes.web.resilient_client import NO_ANSWER, ResilientClient

Text = Annotated[str | None, Query(description="as on quote_service")]
PASSED_ON = (UnknownCoinError, NoQuoteError, ServiceUnavailableError)
READ = (HistoryUnavailableError, PositionGoneError, PositionBeyondEndError)
From = Annotated[str | None, Query(alias="from", description="RFC 3339, inclusive")]
To = Annotated[str | None, Query(alias="to", description="RFC 3339, exclusive")]
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


Newest = Callable[[str], tuple[Quote, float] | None]


def routes(settings: Settings, client: ResilientClient, names: CoinNames, newest: Newest) -> APIRouter:
    """The routes of this service alone, without its streams.

    `newest` returns the newest quote of a coin's live stream, with its age in seconds.
    """
    router = APIRouter(tags=["quotes"])

    async def ask(coin: str, question: Callable[[str], Awaitable[T]]) -> T:
        """Ask quote_service about a coin, if the name is worth it."""
        name = _coin(coin, settings)
        names.check(name)
        try:
            return await question(name)
        except UnknownCoinError as error:
            names.note_unknown(name, error)
            raise

    @router.get(
        "/v1/quotes/{coin}/current",
        summary="The current quote, with its honest age",
        **answering(CurrentJson, *PASSED_ON),
    )
    async def current(coin: str) -> Response:
        """Like `/cotacao_atual/{coin}` of quote_service; while that is away, the newest known quote, `source` cache."""
        try:
            answer = await ask(coin, client.current)
        except NO_ANSWER:
            if (streamed := _streamed(newest(coin), settings)) is not None:
                return _json(streamed)
            raise
        if answer.served_from is not ServedFrom.CACHE:
            return _json(answer.value)
        return _json(_newer(answer, newest(coin), settings))

    @router.get(
        "/v1/quotes/{coin}", summary="The history, in order, without a hole", **answering(PageJson, *PASSED_ON, *READ)
    )
    async def quotes(
        coin: str, after: Text = None, limit: Text = None, last: Text = None, start: From = None, end: To = None
    ) -> Response:
        """Like `/v1/quotes/{coin}` of quote_service."""
        asked = {"after": after, "limit": limit, "last": last, "start": start, "end": end}
        return _json(await ask(coin, lambda name: client.quotes(name, **asked)))

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
        """Like `/v1/candles/{coin}` of quote_service."""
        asked = {"limit": limit, "empty": empty, "origin": origin, "currency": currency, "start": start, "end": end}
        return _json(await ask(coin, lambda name: client.candles(name, interval, **asked)))

    @router.get(
        event_stream.PATH,
        summary="The live stream as server-sent events; `/v1/ws` has it as a WebSocket",
        **answering(event_stream.MEDIA_TYPE, UnknownCoinError, ForbiddenError),
    )
    async def stream(
        coins: Annotated[str, Query(description="separated by commas")],
        mode: Annotated[str, Query(description="every, conflate or interval:MS")] = "every",
        since: Annotated[str | None, Query(description="the `id` of an event after which to resume")] = None,
    ) -> None:
        """Also resumes after `Last-Event-ID`. docs/asyncapi.yaml describes the events."""
        raise AssertionError("the edge answers it")

    @router.get(
        websocket.PATH,
        summary="The live stream as a WebSocket",
        status_code=101,
        response_description="The connection becomes a WebSocket",
        **refusing(UpgradeRequiredError, ForbiddenError, MisdirectedRequestError, MalformedRequestError),
    )
    async def open_websocket() -> None:
        """docs/asyncapi.yaml describes the messages. A proxy must pass the headers Upgrade and Connection on."""
        raise AssertionError("the edge answers it")

    return router


def _coin(coin: str, settings: Settings) -> str:
    """The name, if it is a possible coin name; UnknownCoinError otherwise."""
    return coin if COIN_PATTERN.match(coin) else require_coin(coin, settings.seed_placement)


def _json(answer: dict[str, Any] | CurrentJson) -> Response:
    return json_answer(_encode(answer))


def _streamed(newest: tuple[Quote, float] | None, settings: Settings) -> CurrentJson | None:
    """The newest quote of the live stream as a current quote; None if there is none, or it exceeds the age limit."""
    if newest is None:
        return None
    quote, age_s = newest
    fields = msgspec.structs.asdict(QuoteJson.from_quote(quote))
    del fields["prev"]
    return CurrentJson(**fields, age_ms=0, status="fresh", source="cache").with_age(
        math.ceil(age_s * 1000), AgeLimits.of(settings.fresh_s, settings.age_max_s)
    )


def _newer(answer: CallResult[CurrentJson], newest: tuple[Quote, float] | None, settings: Settings) -> CurrentJson:
    """The newest quote that is known: an earlier answer with its present age, or a newer quote of the live stream."""
    quote = answer.value
    is_newer = newest is not None and newest[0].position > (quote.epoch, quote.seq)
    shown = _streamed(newest, settings) if is_newer else None
    if shown is None:
        added_ms = round(answer.age * 1000)
        shown = quote.with_age(added_ms, AgeLimits.of(settings.fresh_s, settings.age_max_s))
        if shown is None:
            age_ms = quote.age_ms + added_ms
            raise ServiceUnavailableError(
                f"quote_service is away, and the last quote is {age_ms // 1000} s old", age_ms=age_ms
            )
    breaker = None if answer.breaker_state is None else answer.breaker_state.value
    return msgspec.structs.replace(shown, source="cache", breaker=breaker)
