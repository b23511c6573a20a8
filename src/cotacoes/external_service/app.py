"""external_service: wires the feed, its faults and the routes.

GET /quote    the newest price of each coin, or what the faults make of it
GET /quotes   every price after a cursor; errors, delays and bad answers apply here too, but no price is altered
GET /faults   the setting in force        PUT /faults      another one (administrators)
GET /venues   the simulated venues   PUT /venues/…     their faults, and shocks of their market (administrators)
GET /coins    the coins that it quotes    PUT /coins/…     one more, of the simulated market (administrators)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter
from fastapi import Path as InPath
from fastapi.responses import Response

from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, UnauthorizedError
from cotacoes.external_service import answers
from cotacoes.external_service.faults import PRICE_KINDS, FaultKind, Faults, FaultSetting, FaultVerdict, render
from cotacoes.external_service.feed import open_feed
from cotacoes.external_service.market import Market
from cotacoes.external_service.playback_session import CURSOR_RULE
from cotacoes.external_service.simulation import Simulation
from cotacoes.external_service.venues.exchange import open_exchanges
from cotacoes.external_service.venues.registry import KINDS
from cotacoes.external_service.venues.routes import venue_routes
from cotacoes.external_service.venues.stream import VenueStreams
from cotacoes.model.payloads import SourceCoins, SourceQuoteJson
from cotacoes.model.quote import COIN_RULE
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import ExternalMetrics, Metrics
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import background
from cotacoes.web.document import answering, refusing
from cotacoes.web.process import HttpService, Stop, serve_http
from cotacoes.web.requests import admins_only, json_answer
from cotacoes.web.source import TAPE_PATH, TapeRoute, document_tape

NAME = "external_service"
HOLD_S_MAX = 60.0
HOLD_SHARE = 0.9  # of the request's deadline: a bad answer ends as it means to, not as our 504
FAILURES = dict.fromkeys(("4XX", "5XX"), "A failure on purpose, as set at /faults; it may not even be HTTP")
_encode = msgspec.json.Encoder().encode


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped; SettingError if the recording or a coin's name cannot be used."""
    await serve_http(build(settings, stop.event), settings, stop)


def build(settings: Settings, stopping: asyncio.Event) -> HttpService:
    """The wired service; bad answers that hold a connection end when `stopping` is set."""
    metrics = Metrics()
    counted = ExternalMetrics(metrics)
    feed = open_feed(settings, settings.data / NAME, counted)
    market = feed.market
    faults = Faults(
        FaultSetting(error_rate=settings.failure_rate),
        clock=time.monotonic,
        random=random.Random(f"{settings.seed}/faults"),  # noqa: S311  # dice, not a secret
        on_end=lambda ended: get_logger().info("faults.ended", **_logged(ended)),
    )
    router = APIRouter()
    bad = _BadAnswers(settings, faults, counted, stopping)
    _add_quote(router, market, faults, bad)

    async def page(after: str | None, limit: int, wait_s: float) -> Response:
        _, answer = await bad.judge(market)
        return answer or json_answer(_encode(await feed.pages().page(after, limit, wait_s)))

    document_tape(router, first="the first price", cursor_rule=CURSOR_RULE, also=FAILURES)
    _add_faults(router, settings, market, faults)
    _add_coins(router, settings, market)
    exchanges = open_exchanges(
        KINDS,
        market if isinstance(market, Simulation) else None,
        count=lambda venue, outcome: counted.venue_books.labels(venue=venue, outcome=outcome).inc(),
    )
    router.include_router(venue_routes(settings, exchanges))

    async def has_price() -> str | None:
        return None if market.quotes() else "no price yet"

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with background(*(task() for task in [*feed.tasks, *exchanges.tasks])):
            yield

    checks = {"market": Check(has_price, required=True)}
    direct = {TAPE_PATH: TapeRoute(page, wait_s_max=settings.request_deadline_s / 2)}
    app = build_app(NAME, settings, metrics, router, checks=checks, direct=direct)
    return HttpService(NAME, app, metrics, resources, VenueStreams(exchanges).protocol)


class _BadAnswers:
    """What the faults do to a request before it gets its prices: an error, a delay, or a bad answer."""

    def __init__(self, settings: Settings, faults: Faults, metrics: ExternalMetrics, stopping: asyncio.Event) -> None:
        self._faults = faults
        self._metrics = metrics
        self._stopping = stopping
        self._hold_s = min(HOLD_S_MAX, settings.request_deadline_s * HOLD_SHARE)

    async def judge(self, market: Market) -> tuple[FaultVerdict, Response | None]:
        """The verdict on this request, and the bad answer if it gets one."""
        verdict = self._faults.judge()
        if verdict.status is not None:
            self._metrics.source_requests.labels(fault="error").inc()
            return verdict, answers.refusal(verdict.status, verdict.retry_after_s)
        if verdict.delay_s:
            await asyncio.sleep(verdict.delay_s)
        kind = verdict.kind
        self._metrics.source_requests.labels(fault=kind.value if kind is not None else "none").inc()
        if kind is None or kind in PRICE_KINDS:
            return verdict, None
        if kind is FaultKind.TOO_MANY_REQUESTS:
            return verdict, answers.refusal(429, verdict.retry_after_s)
        body = render(market.quotes(), market.origin)
        return verdict, answers.BadAnswer(kind, body, hold_s=self._hold_s, stopping=self._stopping)


def _add_quote(router: APIRouter, market: Market, faults: Faults, bad: _BadAnswers) -> None:
    @router.get(
        "/quote", summary="The newest price of each coin; fails on purpose", **answering(SourceQuoteJson, also=FAILURES)
    )
    async def quote() -> Response:
        verdict, answer = await bad.judge(market)
        if answer is not None:
            return answer
        quotes = market.quotes()
        if verdict.kind is FaultKind.FROZEN_PRICE:
            frozen = {coin: observed for coin, observed in quotes.items() if verdict.hits(coin)}
            quotes = {**quotes, **faults.freeze(frozen)}
        return json_answer(render(quotes, market.origin, verdict))


def _add_faults(router: APIRouter, settings: Settings, market: Market, faults: Faults) -> None:
    @router.get("/faults", summary="The faults in force")
    async def show_faults() -> FaultSetting:
        return faults.current()

    @router.put(
        "/faults",
        summary="Replace all faults in force (administrators)",
        dependencies=[admins_only(settings)],
        **refusing(UnauthorizedError),
    )
    async def set_faults(setting: FaultSetting) -> FaultSetting:
        unknown = [coin for coin in setting.coins if coin not in market.quotes()]
        if unknown:
            raise BadRequestError(f"coins: {unknown[0]} is not quoted here")
        faults.set(setting)
        get_logger().info("faults.set", **_logged(setting))
        return faults.current()


def _add_coins(router: APIRouter, settings: Settings, market: Market) -> None:
    @router.get("/coins", summary="The coins that it quotes", **answering(SourceCoins))
    async def show_coins() -> Response:
        """`open` if any other coin can be added, as in the simulated market."""
        return json_answer(_encode(SourceCoins(list(market.quotes()), isinstance(market, Simulation))))

    @router.put(
        "/coins/{coin}",
        summary="Add a coin to the simulated market, which begins a new run (administrators)",
        dependencies=[admins_only(settings)],
        **answering(SourceCoins, UnauthorizedError),
    )
    async def add_coin(coin: Annotated[str, InPath(json_schema_extra={"pattern": COIN_RULE})]) -> Response:
        if not isinstance(market, Simulation):
            raise BadRequestError("a replay has only the recorded coins: name further pairs in COTACOES_REPLAY_PAIRS")
        market.add(coin)
        return json_answer(_encode(SourceCoins(market.coins, open=True)))


def _logged(setting: FaultSetting) -> dict[str, object]:
    """The fields of a setting that are not the defaults."""
    return setting.model_dump(mode="json", exclude_defaults=True)
