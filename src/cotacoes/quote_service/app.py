"""quote_service: fetches prices behind a circuit breaker, records, delivers and publishes them, and answers.

This file wires the service and runs it as a process. The way of a quote is in `quote_path.py`, the way of an answer
begins in `routes.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from itertools import starmap

from cotacoes.adapters.postgres.shard import open_directory
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.config import Settings
from cotacoes.errors.exit_codes import SUPERSEDED
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import AgeLimits
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.quote_service.answers import Answers
from cotacoes.quote_service.checks import checks
from cotacoes.quote_service.clock import ClockWatch
from cotacoes.quote_service.discrepancies import DiscrepancyWatch
from cotacoes.quote_service.folder_lock import FolderLock
from cotacoes.quote_service.quote_path import QuotePath
from cotacoes.quote_service.routes import routes
from cotacoes.quote_service.takeover_pause import TakeoverPause
from cotacoes.quote_service.upkeep import learn_currencies, maintain
from cotacoes.quote_service.writer import Writer
from cotacoes.web.app import build_app
from cotacoes.web.background import Restarts, background
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.process import HttpService, Stop, serve_http
from cotacoes.web.upstreams import new_upstreams

NAME = "quote_service"


async def main(settings: Settings, stop: Stop) -> None:
    """Run until `stop`; SettingError if a setting, the log folder or the clock cannot be used."""
    with FolderLock(folder := settings.data / NAME):
        pause = TakeoverPause(folder, wall_s=time.time)
        await _wait_before_takeover(pause, stop)
        started_s = time.monotonic()
        if not stop.event.is_set():
            await serve_http(build(settings, stop), settings, stop)
        if stop.code == SUPERSEDED:
            _note_superseded(pause, time.monotonic() - started_s)


async def _wait_before_takeover(pause: TakeoverPause, stop: Stop) -> None:
    if (pause_s := pause.left_s()) > 0:
        get_logger().warning("takeover.delayed", by_s=round(pause_s, 1), reason=f"superseded lately: {pause.file}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.event.wait()


def _note_superseded(pause: TakeoverPause, written_for_s: float) -> None:
    try:
        get_logger().warning("writer.stood_down", pause_s=pause.note_superseded(written_for_s))
    except OSError as error:  # a restart then takes over at once
        get_logger().warning("takeover.pause_forgotten", reason=error.strerror)


def build(settings: Settings, stop: Stop) -> HttpService:
    """Wire the service; nothing is opened yet."""
    metrics = Metrics()
    counted = QuoteMetrics(metrics)
    restarts = Restarts(metrics)
    upstreams = new_upstreams(metrics)
    directory = open_directory(settings, NAME, deadline_s=settings.shard_deadline_s)
    bus = RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000)
    writer = Writer(functools.partial(stop, SUPERSEDED))
    path = QuotePath(
        settings,
        directory=directory,
        bus=bus,
        writer=writer,
        metrics=counted,
        folder=settings.data / NAME,
        upstreams=upstreams,
        restarts=restarts,
    )
    recorder = path.recorder
    discrepancies = DiscrepancyWatch(directory, counted)
    tasks = {
        **path.tasks(),
        "upkeep": lambda: maintain(recorder, path.deliveries, counted, ClockWatch(counted)),
        "directory": directory.run,
        "discrepancies": discrepancies.run,
        "currencies": functools.partial(learn_currencies, directory, recorder.histories),
    }

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with directory, bus, path.opened(), background(*starmap(restarts.kept, tasks.items())):
            yield

    def held(coin: str) -> str | None:
        return path.deliveries[coin].held if coin in path.deliveries else None

    limits = AgeLimits.of(settings.fresh_s, settings.age_max_s)
    answers = Answers(recorder, directory, path.intake, limits, held=held)
    router = routes(answers, recorder.histories)
    router.include_router(breaker_routes(NAME, settings, upstreams))
    app = build_app(
        NAME,
        settings,
        metrics,
        router,
        checks=checks(recorder, directory, bus, path.deliveries, discrepancies),
        lean={"/cotacao_atual": lambda coin: answers.current(require_coin(coin, recorder.histories))},
    )
    return HttpService(NAME, app, metrics, resources)
