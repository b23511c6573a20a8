"""quote_service: fetches behind the circuit breaker, screens, records, delivers, publishes, and answers.

intake ──▶ recorder (log) ──▶ delivery, one per coin ──▶ shard
                         └──▶ publisher ──▶ Redis
answers ◀── histories, log, shards
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from random import SystemRandom
from typing import Annotated

from fastapi import APIRouter, Query, Response

from cotacoes.adapters.bus_redis import RedisBus
from cotacoes.adapters.folder_lock import FolderLock
from cotacoes.adapters.shard_postgres import PostgresShard
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import BadRequestError, LogUnavailableError, ShardUnavailableError
from cotacoes.patterns.sharding import READ_QUOTES_MAX, Shard
from cotacoes.quote import Position, Quote
from cotacoes.quote_service.answers import AgeLimits, Answers
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.intake import build_intake
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recorder import Recorder
from cotacoes.service import Check, Service, Stop, background, build_app, require_coin, serve_http
from cotacoes.telemetry import Metrics, QuoteMetrics

NAME = "quote_service"
SUPERSEDED_EXIT_CODE = 4
KEEP_INTERVAL_S = 1.0
DAYS_AHEAD = 2
PREPARE_INTERVAL_S = 3600.0


async def main(settings: Settings, stop: Stop) -> None:
    """Run until `stop`; SettingError where a setting, the log folder or the clock can not be used."""
    with FolderLock(settings.data / NAME):
        await serve_http(build(settings, stop), settings, stop)


def build(settings: Settings, stop: Stop) -> Service:
    """Wire the service; nothing is opened yet."""
    metrics = Metrics()
    counted = QuoteMetrics(metrics)
    placement = settings.seed_placement
    histories = {coin: CoinHistory(coin, shard, now=_now, clock=time.monotonic) for coin, shard in placement.items()}
    random = SystemRandom()
    shards = {
        name: PostgresShard(name, settings.dsn(name), deadline_s=settings.shard_deadline_s)
        for name in SHARDS
        if name in placement.values()
    }
    bus = RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000)
    recorder = Recorder(
        settings.data / NAME,
        histories,
        shards,
        counted,
        quota_bytes=settings.log_quota_bytes,
        now=_now,
        clock=time.monotonic,
    )
    publisher = Publisher(
        histories, bus, counted, wait_s=settings.publish_wait_ms / 1000, now=_now, clock=time.monotonic
    )

    def stand_down() -> None:
        """Another writer has taken over: from this moment on nothing of ours may be seen."""
        publisher.silence()
        recorder.retire()
        stop(SUPERSEDED_EXIT_CODE)

    deliveries = {
        coin: Delivery(
            history,
            shards[history.shard],
            recorder,
            counted,
            writer=secrets.token_hex(8),
            random=random,
            on_delivered=lambda _: publisher.wake(),
            on_superseded=stand_down,
        )
        for coin, history in histories.items()
    }

    def hand_on(quotes: list[Quote]) -> None:
        publisher.add(quotes)
        for coin, count in Counter(quote.coin for quote in quotes).items():
            counted.recorded.labels(coin=coin).inc(count)
            deliveries[coin].wake()

    intake = build_intake(settings, recorder, publisher, counted, random, now=_now, on_recorded=hand_on)
    answers = Answers(
        recorder,
        shards,
        AgeLimits(round(settings.fresh_s * 1000), round(settings.age_max_s * 1000)),
        is_live=lambda coin: coin in intake.taker.live,
        breaker_state=lambda: intake.breaker.state.value,
    )

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for shard in shards.values():
                await stack.enter_async_context(shard)
            await stack.enter_async_context(bus)
            await stack.enter_async_context(intake.client)
            await recorder.start()
            stack.push_async_callback(recorder.close)
            await stack.enter_async_context(
                background(
                    intake.taker.run(),
                    publisher.run(),
                    _keep(recorder, deliveries, counted),
                    *(delivery.run() for delivery in deliveries.values()),
                    *(_prepare_days(shard) for shard in shards.values()),
                )
            )
            yield

    checks = {
        "log": Check(_log_check(recorder), required=False),
        "quotes": Check(_quotes_check(histories), required=True),
        "redis": Check(_ping_check(bus.ping)),
        **{name: Check(_ping_check(shard.ping)) for name, shard in shards.items()},
    }
    app = build_app(
        NAME,
        settings,
        metrics,
        _routes(answers, histories),
        checks=checks,
        lean={"/cotacao_atual": lambda coin: answers.current(require_coin(coin, histories))},
    )
    return Service(NAME, app, resources)


def _routes(answers: Answers, histories: Mapping[str, CoinHistory]) -> APIRouter:
    router = APIRouter(tags=["quotes"])

    @router.get("/cotacao_atual/{coin}", summary="The current quote, with its honest age", response_model=None)
    async def current(coin: str) -> Response:
        """`status` is fresh up to 5 s of age, else stale; `source` is live where the last poll gave it, else cache."""
        return _json(answers.current(require_coin(coin, histories)))

    @router.get("/media_ultimos_10_logs/{coin}", summary="The mean of the last ten quotes, exact", response_model=None)
    async def mean(coin: str) -> Response:
        """Of those there are, where there are fewer; only quotes of the newest one's origin and currency."""
        return _json(await answers.mean(require_coin(coin, histories)))

    @router.get("/v1/quotes/{coin}", summary="The history, in order, without a hole", response_model=None)
    async def quotes(
        coin: str,
        after: Annotated[str | None, Query(description="a position, exclusive; absent: from the floor")] = None,
        limit: Annotated[int, Query(ge=1, le=READ_QUOTES_MAX)] = 1000,
        last: Annotated[int | None, Query(ge=1, le=READ_QUOTES_MAX, description="the newest ones instead")] = None,
    ) -> Response:
        """`next` goes into `after`; below the floor the answer is 410, beyond the end 409."""
        require_coin(coin, histories)
        if last is not None:
            if after is not None:
                raise BadRequestError("give either after or last, not both")
            return _json(await answers.last(coin, last))
        try:
            position = None if after is None else Position.parse(after)
        except ValueError as error:
            raise BadRequestError(f"after: {error}") from error
        return _json(await answers.after(coin, position, limit))

    @router.get("/v1/positions", summary="Per coin: last position, delivered through, pending", response_model=None)
    async def positions() -> Response:
        return _json(answers.positions())

    return router


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})


def _now() -> datetime:
    return datetime.now(UTC)


async def _keep(recorder: Recorder, deliveries: Mapping[str, Delivery], metrics: QuoteMetrics) -> None:
    """Once a second: eras for coins that could not begin one, and the gauges."""
    while True:
        try:
            await recorder.begin_missing_eras()
            metrics.log_bytes.set(await recorder.log.size_bytes())
        except LogUnavailableError:
            metrics.log_bytes.set(float("nan"))  # said in the log where it failed
        for coin, history in recorder.histories.items():
            metrics.pending.labels(coin=coin).set(history.pending)
            if history.epoch is not None and history.fence is None:
                deliveries[coin].wake()
        await asyncio.sleep(KEEP_INTERVAL_S)


async def _prepare_days(shard: Shard) -> None:
    """Keep the partitions of the next days ready; a batch that finds none makes its own."""
    while True:
        today: date = datetime.now(UTC).date()
        try:
            await shard.prepare_days(today, today + timedelta(days=DAYS_AHEAD))
            wait_s = PREPARE_INTERVAL_S
        except ShardUnavailableError:
            wait_s = 5.0  # said by delivery
        await asyncio.sleep(wait_s)


def _log_check(recorder: Recorder) -> Callable[[], Awaitable[str | None]]:
    async def probe() -> str | None:
        return recorder.failure

    return probe


def _quotes_check(histories: Mapping[str, CoinHistory]) -> Callable[[], Awaitable[str | None]]:
    async def probe() -> str | None:
        without = [coin for coin, history in histories.items() if history.newest is None]
        return f"no quote yet of {', '.join(without[:5])}" if len(without) == len(histories) else None

    return probe


def _ping_check(ping: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[str | None]]:
    async def probe() -> str | None:
        await ping()  # an error's detail becomes the reason
        return None

    return probe
