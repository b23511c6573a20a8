"""external_service: wires the market, its faults and the routes.

GET /quote    the newest price of each coin, or what the faults make of it
GET /faults   the setting in force        PUT /faults   another one (administrators)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from cotacoes import service, telemetry
from cotacoes.adapters import source_http
from cotacoes.adapters.source_replay import Replay, check
from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, SettingError
from cotacoes.external_service import answers
from cotacoes.external_service.faults import PRICE_KINDS, Faults, FaultSetting, Kind, render
from cotacoes.external_service.market import Market, SimulatedMarket

NAME = "external_service"
HOLD_S_MAX = 60.0
HOLD_SHARE = 0.9  # of the request's deadline: a bad answer ends as it means to, not as our 504


async def main(settings: Settings, stop: service.Stop) -> None:
    """Serve until stopped; SettingError where the recording or a coin's name can not be used."""
    await service.serve_http(build(settings, stop.event), settings, stop)


def build(settings: Settings, stopping: asyncio.Event) -> service.Service:
    """The wired service; bad answers that hold a connection let go when `stopping` is set."""
    metrics = telemetry.Metrics()
    counts = telemetry.ExternalMetrics(metrics)
    market, resources = _market(settings, counts)
    faults = Faults(
        FaultSetting(error_rate=settings.failure_rate),
        clock=time.monotonic,
        random=random.Random(f"{settings.seed}/faults"),  # noqa: S311  # dice, not a secret
        on_end=lambda ended: telemetry.get_logger().info("faults.ended", **_told(ended)),
    )
    router = APIRouter()
    _add_quote(router, settings, market, faults, counts, stopping)
    _add_faults(router, settings, market, faults)

    async def has_price() -> str | None:
        return None if market.quotes() else "no price yet"

    checks = {"market": service.Check(has_price, required=True)}
    return service.Service(NAME, service.build_app(NAME, settings, metrics, router, checks=checks), resources)


def _market(settings: Settings, counts: telemetry.ExternalMetrics) -> tuple[Market, service.Resources]:
    if settings.source == "sim":
        coins = list(settings.seed_placement)
        taken = sorted(source_http.RESERVED.intersection(coins))
        if taken:
            raise SettingError(f"COTACOES_COINS names {taken[0]}, which is a field of /quote: call the coin otherwise")
        simulated = SimulatedMarket(
            coins,
            seed=settings.seed,
            tick_s=settings.tick_ms / 1000 / settings.speed,
            clock=time.monotonic,
            now=lambda: datetime.now(UTC),
        )
        return simulated, contextlib.nullcontext
    paths = [Path(path) for path in settings.source.removeprefix("replay:").split(",")]
    check(paths)
    replay = Replay(
        paths, speed=settings.speed, clock=time.monotonic, now=lambda: datetime.now(UTC), frames=counts.replay_frames
    )

    @contextlib.asynccontextmanager
    async def replaying() -> AsyncIterator[None]:
        async with service.background(replay.run()):
            yield

    return replay, replaying


def _add_quote(
    router: APIRouter,
    settings: Settings,
    market: Market,
    faults: Faults,
    counts: telemetry.ExternalMetrics,
    stopping: asyncio.Event,
) -> None:
    hold_s = min(HOLD_S_MAX, settings.request_deadline_s * HOLD_SHARE)

    @router.get("/quote", summary="The newest price of each coin; fails on purpose", response_class=JSONResponse)
    async def quote() -> Response:
        verdict = faults.judge()
        if verdict.status is not None:
            counts.served.labels(fault="error").inc()
            return answers.refusal(verdict.status, verdict.retry_after_s)
        if verdict.delay_s:
            await asyncio.sleep(verdict.delay_s)
        kind = verdict.kind
        counts.served.labels(fault=kind.value if kind is not None else "none").inc()
        if kind is Kind.TOO_MANY_REQUESTS:
            return answers.refusal(429, verdict.retry_after_s)
        quotes = market.quotes()
        if kind is None or kind in PRICE_KINDS:
            if kind is Kind.FROZEN_PRICE:
                quotes = {
                    **quotes,
                    **faults.freeze({coin: held for coin, held in quotes.items() if verdict.hits(coin)}),
                }
            return answers.good(render(quotes, market.origin, verdict))
        return answers.BadAnswer(kind, render(quotes, market.origin), hold_s=hold_s, stopping=stopping)


def _add_faults(router: APIRouter, settings: Settings, market: Market, faults: Faults) -> None:
    @router.get("/faults", summary="The faults in force")
    async def show_faults() -> FaultSetting:
        return faults.current()

    def require_admin(request: Request) -> None:
        service.require_admin(request, settings)

    @router.put(
        "/faults",
        summary="Put other faults in force, in place of all there are (administrators)",
        dependencies=[Depends(require_admin)],
    )
    async def set_faults(setting: FaultSetting) -> FaultSetting:
        unknown = [coin for coin in setting.coins if coin not in market.quotes()]
        if unknown:
            raise BadRequestError(f"coins: {unknown[0]} is not quoted here")
        faults.set(setting)
        telemetry.get_logger().info("faults.set", **_told(setting))
        return faults.current()


def _told(setting: FaultSetting) -> dict[str, object]:
    """What a log says of a setting: only what is in it."""
    return setting.model_dump(mode="json", exclude_defaults=True)
