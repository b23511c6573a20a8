"""external_service: wires the market, its tape, its faults and the routes.

GET /quote    the newest price of each coin, or what the faults make of it
GET /quotes   every price after a cursor; errors, delays and bad answers hit it too, but no price in it is spoilt
GET /faults   the setting in force        PUT /faults   another one (administrators)
GET /coins    the coins it quotes            PUT /coins/…   one more, of the simulated market (administrators)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import Response

from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, CursorGoneError, SettingError, UnauthorizedError
from cotacoes.external_service import answers, replay
from cotacoes.external_service.faults import PRICE_KINDS, Faults, FaultSetting, Kind, Verdict, render
from cotacoes.external_service.market import Market
from cotacoes.external_service.playback_session import (
    CURSOR_RULE,
    PlaybackSession,
    digest_of,
    keep_played,
    load_or_begin,
)
from cotacoes.external_service.recording import Recording
from cotacoes.external_service.recording_formats import PAIRS, Pair
from cotacoes.external_service.replay_tape import ReplayTape
from cotacoes.external_service.simulation import Simulation
from cotacoes.external_service.tape import PAGE_QUOTES_MAX, WAIT_MS_MAX, Pages, TapePages
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS, SourceCoins, SourcePageJson, SourceQuoteJson
from cotacoes.model.quote import COIN_RULE
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import ExternalMetrics, Metrics
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import background
from cotacoes.web.document import answering, refusing
from cotacoes.web.process import Resources, Service, Stop, serve_http
from cotacoes.web.requests import admins_only

NAME = "external_service"
HOLD_S_MAX = 60.0
FAILURES = dict.fromkeys(("4XX", "5XX"), "A failure on purpose, as /faults says; it may be no HTTP at all")
_encode = msgspec.json.Encoder().encode
Work = Callable[[], Coroutine[Any, Any, None]]
HOLD_SHARE = 0.9  # of the request's deadline: a bad answer ends as it means to, not as our 504


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped; SettingError where the recording or a coin's name can not be used."""
    await serve_http(build(settings, stop.event), settings, stop)


def build(settings: Settings, stopping: asyncio.Event) -> Service:
    """The wired service; bad answers that hold a connection let go when `stopping` is set."""
    metrics = Metrics()
    counts = ExternalMetrics(metrics)
    market, pages, resources = _source(settings, counts)
    faults = Faults(
        FaultSetting(error_rate=settings.failure_rate),
        clock=time.monotonic,
        random=random.Random(f"{settings.seed}/faults"),  # noqa: S311  # dice, not a secret
        on_end=lambda ended: get_logger().info("faults.ended", **_told(ended)),
    )
    router = APIRouter()
    bad = _BadAnswers(settings, faults, counts, stopping)
    _add_quote(router, market, faults, bad)
    _add_tape(router, market, pages, bad, wait_s_max=settings.request_deadline_s / 2)
    _add_faults(router, settings, market, faults)
    _add_coins(router, settings, market)

    async def has_price() -> str | None:
        return None if market.quotes() else "no price yet"

    checks = {"market": Check(has_price, required=True)}
    return Service(NAME, build_app(NAME, settings, metrics, router, checks=checks), metrics, resources)


def _source(settings: Settings, counts: ExternalMetrics) -> tuple[Market, Pages, Resources]:
    folder, now = settings.data / NAME, datetime.now(UTC)
    if settings.source == "sim":
        simulation = Simulation(settings, folder)
        return simulation, simulation, _beside(*_memory(settings, folder, simulation.played))
    recording = recording_of(settings)
    recording.check()
    lap = replay.measure(recording) if settings.loop else None

    def is_over(run: PlaybackSession) -> bool:
        """Who polls the newest price has nothing of a replay that has ended; who takes the tape has had all of it."""
        if settings.source_mode == "tape":
            return False
        elapsed_s = (now - run.started_at).total_seconds()
        if lap is not None:
            return elapsed_s < 0
        return not 0 <= elapsed_s <= replay.measure(recording).length_ns / 1e9 / settings.speed

    run = load_or_begin(folder, digest_of(recording.digest, settings.loop, settings.replay_times), now, is_over)
    started_s = time.monotonic() - max(0.0, run.elapsed_s(now))
    memory = _memory(settings, folder, lambda: replace(run, played_s=time.monotonic() - started_s))
    timeline = replay.Timeline(
        recording,
        speed=settings.speed,
        started_at=run.started_at,
        started_s=started_s,
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        lap=lap,
        keeps_times=settings.replay_times == "original",
    )
    is_paced = settings.speed != replay.MAX_SPEED
    tape = ReplayTape(timeline, None if is_paced else counts.replay_lines)
    pages = TapePages(run, tape, recording.origin)
    if not is_paced:
        return tape, pages, _beside(*memory)  # what was taken last is the newest
    playing = replay.Playing(timeline, frames=counts.replay_lines)
    return playing, pages, _beside(playing.run, *memory)


def _memory(settings: Settings, folder: Path, played: Callable[[], PlaybackSession]) -> list[Work]:
    """What remembers how far the run has come: of a tape, in which its readers have a place."""
    return [functools.partial(keep_played, folder, played)] if settings.source_mode == "tape" else []


def _beside(*work: Work) -> Resources:
    """Resources that are work beside the requests."""

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with background(*(one() for one in work)):
            yield

    return running


def recording_of(settings: Settings) -> Recording:
    """The recording that the settings name."""
    further = {name: Pair(*told) for name, told in settings.further_pairs.items()}
    _refuse_reserved("COTACOES_REPLAY_PAIRS", [pair.coin for pair in further.values()])
    return Recording(settings.replay_paths, price=settings.replay_price, pairs={**PAIRS, **further})


def _refuse_reserved(setting: str, coins: Sequence[str]) -> None:
    taken = sorted(SOURCE_QUOTE_FIELDS.intersection(coins))
    if taken:
        raise SettingError(f"{setting} names {taken[0]}, which is a field of /quote: call the coin otherwise")


class _BadAnswers:
    """What the faults make of a request before it gets its prices: an error, a delay, an answer that is none."""

    def __init__(self, settings: Settings, faults: Faults, counts: ExternalMetrics, stopping: asyncio.Event) -> None:
        self._faults = faults
        self._counts = counts
        self._stopping = stopping
        self._hold_s = min(HOLD_S_MAX, settings.request_deadline_s * HOLD_SHARE)

    async def judge(self, market: Market) -> tuple[Verdict, Response | None]:
        """The verdict on this request, and the answer where it is a bad one."""
        verdict = self._faults.judge()
        if verdict.status is not None:
            self._counts.source_requests.labels(fault="error").inc()
            return verdict, answers.refusal(verdict.status, verdict.retry_after_s)
        if verdict.delay_s:
            await asyncio.sleep(verdict.delay_s)
        kind = verdict.kind
        self._counts.source_requests.labels(fault=kind.value if kind is not None else "none").inc()
        if kind is None or kind in PRICE_KINDS:
            return verdict, None
        if kind is Kind.TOO_MANY_REQUESTS:
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
        if verdict.kind is Kind.FROZEN_PRICE:
            held = {coin: observed for coin, observed in quotes.items() if verdict.hits(coin)}
            quotes = {**quotes, **faults.freeze(held)}
        return answers.good(render(quotes, market.origin, verdict))


def _add_tape(router: APIRouter, market: Market, pages: Pages, bad: _BadAnswers, *, wait_s_max: float) -> None:
    @router.get(
        "/quotes",
        summary="Every price after a cursor, in order",
        **answering(SourcePageJson, CursorGoneError, also=FAILURES),
    )
    async def quotes(
        after: Annotated[
            str | None,
            Query(
                description="`next` of the page before; absent: from the first",
                json_schema_extra={"pattern": CURSOR_RULE},
            ),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_QUOTES_MAX)] = 1000,
        wait_ms: Annotated[int, Query(ge=0, le=WAIT_MS_MAX, description="where nothing is new, wait so long")] = 0,
    ) -> Response:
        """A cursor of another run is 410; `next` in that answer is the one to begin with."""
        _, answer = await bad.judge(market)
        if answer is not None:
            return answer
        return answers.good(_encode(await pages.page(after, limit, min(wait_ms / 1000, wait_s_max))))


def _add_faults(router: APIRouter, settings: Settings, market: Market, faults: Faults) -> None:
    @router.get("/faults", summary="The faults in force")
    async def show_faults() -> FaultSetting:
        return faults.current()

    @router.put(
        "/faults",
        summary="Put other faults in force, in place of all there are (administrators)",
        dependencies=[admins_only(settings)],
        **refusing(UnauthorizedError),
    )
    async def set_faults(setting: FaultSetting) -> FaultSetting:
        unknown = [coin for coin in setting.coins if coin not in market.quotes()]
        if unknown:
            raise BadRequestError(f"coins: {unknown[0]} is not quoted here")
        faults.set(setting)
        get_logger().info("faults.set", **_told(setting))
        return faults.current()


def _add_coins(router: APIRouter, settings: Settings, market: Market) -> None:
    @router.get("/coins", summary="The coins that it quotes", **answering(SourceCoins))
    async def show_coins() -> Response:
        """`open` if it can be let to quote any other coin too, as the simulated market can."""
        return answers.good(_encode(SourceCoins(list(market.quotes()), isinstance(market, Simulation))))

    @router.put(
        "/coins/{coin}",
        summary="Let the simulated market quote this coin as well, in a new run (administrators)",
        dependencies=[admins_only(settings)],
        **answering(SourceCoins, UnauthorizedError),
    )
    async def add_coin(coin: Annotated[str, InPath(json_schema_extra={"pattern": COIN_RULE})]) -> Response:
        if not isinstance(market, Simulation):
            raise BadRequestError("a replay quotes what was recorded: COTACOES_REPLAY_PAIRS names further pairs of it")
        market.add(coin)
        return answers.good(_encode(SourceCoins(market.coins, open=True)))


def _told(setting: FaultSetting) -> dict[str, object]:
    """What a log says of a setting: only what is in it."""
    return setting.model_dump(mode="json", exclude_defaults=True)
