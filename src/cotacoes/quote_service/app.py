"""quote_service: fetches behind the circuit breaker, screens, records, delivers, publishes, and answers.

intake ──▶ recorder (log) ──▶ delivery, one per coin ──▶ shard
                         └──▶ publisher ──▶ Redis
answers ◀── histories, log, shards
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from random import SystemRandom

from cotacoes.adapters.postgres.shard import open_directory
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import LogUnavailableError
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import AgeLimits, Position, Quote
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service import checks
from cotacoes.quote_service.answers import Answers
from cotacoes.quote_service.backlog import Backlog
from cotacoes.quote_service.batch_limit import BatchLimit
from cotacoes.quote_service.clock import ClockWatch
from cotacoes.quote_service.coin_tasks import CoinTasks
from cotacoes.quote_service.days import DayKeeper
from cotacoes.quote_service.delivery import Delivery, Pace
from cotacoes.quote_service.discrepancies import DiscrepancyWatch
from cotacoes.quote_service.folder_lock import FolderLock
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.intake import build_intake, jump_limit
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.routes import routes
from cotacoes.quote_service.takeover_pause import TakeoverPause
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import background
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.process import Service, Stop, serve_http
from cotacoes.web.restarts import Restarts
from cotacoes.web.upstreams import new_upstreams

NAME = "quote_service"
SUPERSEDED_EXIT_CODE = 4
KEEP_INTERVAL_S = 1.0


async def main(settings: Settings, stop: Stop) -> None:
    """Run until `stop`; SettingError where a setting, the log folder or the clock can not be used."""
    with FolderLock(folder := settings.data / NAME):
        pause = TakeoverPause(folder, wall_s=time.time)
        await _wait_before_takeover(pause, stop)
        started_s = time.monotonic()
        if not stop.event.is_set():
            await serve_http(build(settings, stop), settings, stop)
        if stop.code == SUPERSEDED_EXIT_CODE:
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


def build(settings: Settings, stop: Stop) -> Service:
    """Wire the service; nothing is opened yet."""
    metrics = Metrics()
    counted = QuoteMetrics(metrics)
    restarts = Restarts(metrics)
    histories: dict[str, CoinHistory] = {}
    random = SystemRandom()
    upstreams = new_upstreams(metrics)
    directory = open_directory(settings, NAME, deadline_s=settings.shard_deadline_s)
    bus = RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000)

    def stand_down() -> None:
        """Another writer has taken over: from this moment on nothing of ours may be seen."""
        publisher.silence()
        recorder.retire()
        stop(SUPERSEDED_EXIT_CODE)

    recorder = Recorder(
        settings.data / NAME,
        histories,
        directory,
        counted,
        quota_bytes=settings.log_quota_bytes,
        kept_s=settings.log_kept_s,
        now=_now,
        clock=time.monotonic,
        accepts_clock=settings.accept_clock,
        on_superseded=stand_down,
    )
    publisher = Publisher(
        histories,
        bus,
        counted,
        wait_s=settings.publish_wait_ms / 1000,
        now=_now,
        clock=time.monotonic,
        prefix=settings.channel_prefix,
    )
    pace = Pace(settings.catch_up_quotes_per_s, time.monotonic)

    def deliver(history: CoinHistory) -> Delivery:
        return Delivery(
            history,
            directory,
            recorder,
            counted,
            pace=pace,
            limit=BatchLimit(settings.shard_deadline_s, time.monotonic),
            random=random,
            on_delivered=lambda _: publisher.wake(),
            on_superseded=stand_down,
        )

    def note_floor(coin: str, floor: Position) -> None:
        if coin in histories:  # else it is about to join, and the fence tells it
            histories[coin].floor = floor

    jump = jump_limit(settings)
    roster = CoinTasks(
        directory,
        recorder,
        make_history=lambda coin, shard: CoinHistory(coin, shard, now=_now, clock=time.monotonic, jump=jump),
        deliver=deliver,
        keep=lambda shard: DayKeeper(
            shard, directory.dsns[shard], homes=lambda: directory.homes, on_floor=note_floor, random=random, now=_now
        ).run(),
        restarts=restarts,
    )

    discrepancies = DiscrepancyWatch(directory, counted)
    clock_watch = ClockWatch(counted, _now)
    backlog = Backlog(recorder, roster.deliveries, counted, _now)

    def hand_on(quotes: list[Quote]) -> None:
        publisher.add(quotes)
        for coin, count in Counter(quote.coin for quote in quotes).items():
            counted.quotes_recorded.labels(coin=coin).inc(count)
            roster.deliveries[coin].wake()

    intake = build_intake(
        settings,
        recorder,
        publisher,
        counted,
        upstreams,
        now=_now,
        currency_of=lambda coin: directory.homes[coin].currency,
        on_recorded=hand_on,
    )
    answers = Answers(
        recorder,
        directory,
        AgeLimits.of(settings.fresh_s, settings.age_max_s),
        is_live=lambda coin: coin in intake.taker.live,
        breaker_state=lambda: intake.breaker.state.value,
        refusal_of=intake.taker.refusals.why,
    )

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(directory)
            await stack.enter_async_context(bus)
            await stack.enter_async_context(intake.client)
            roster.begin()
            await recorder.start()
            stack.push_async_callback(recorder.close)
            await stack.enter_async_context(
                background(
                    restarts.kept("intake", intake.taker.run),  # the log is read again before it records again
                    restarts.kept("publisher", publisher.run),  # what it had taken up shows as missing, by position
                    restarts.kept("upkeep", lambda: _keep(recorder, roster.deliveries, backlog, counted, clock_watch)),
                    restarts.kept("roster", roster.run),
                    restarts.kept("directory", directory.run),
                    restarts.kept("discrepancies", discrepancies.run),
                    restarts.kept("currencies", lambda: _learn_currencies(directory, histories)),
                )
            )
            yield

    asked = {
        "ledger": Check(discrepancies.check, required=False),
        "log": Check(checks.log_check(recorder), required=False),
        "quotes": Check(checks.quotes_check(histories), required=True),
        "redis": Check(checks.ping_check(bus.ping)),
        **{name: Check(checks.shard_check(directory, backlog, name)) for name in SHARDS},
    }
    router = routes(answers, histories)
    router.include_router(breaker_routes(NAME, settings, upstreams))
    app = build_app(
        NAME,
        settings,
        metrics,
        router,
        checks=asked,
        lean={"/cotacao_atual": lambda coin: answers.current(require_coin(coin, histories))},
    )
    return Service(NAME, app, metrics, resources)


def _now() -> datetime:
    return datetime.now(UTC)


async def _keep(
    recorder: Recorder,
    deliveries: Mapping[str, Delivery],
    backlog: Backlog,
    metrics: QuoteMetrics,
    clock: ClockWatch,
) -> None:
    """Once a second: eras for coins that could not begin one, and the gauges."""
    while True:
        clock.look(recorder.histories.values())
        try:
            await recorder.begin_missing_eras()
            metrics.log_size.set(await recorder.log.size_bytes())
            await backlog.measure()
        except LogUnavailableError:
            metrics.log_size.set(float("nan"))  # said in the log where it failed
        for coin, history in recorder.histories.items():
            metrics.quotes_pending.labels(coin=coin).set(history.pending)
            if history.epoch is not None and history.fence is None:
                deliveries[coin].wake()
        await asyncio.sleep(KEEP_INTERVAL_S)


async def _learn_currencies(directory: ShardDirectory, histories: Mapping[str, CoinHistory]) -> None:
    """Let the directory know the currency of each coin that has a quote."""
    while True:
        await directory.learn({coin: one.newest.currency for coin, one in histories.items() if one.newest is not None})
        await asyncio.sleep(KEEP_INTERVAL_S)
