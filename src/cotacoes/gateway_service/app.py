"""gateway_service: its routes, and how it is wired.

GET /                              the page
GET /v1/quotes/{coin}/current      the current quote; without quote_service the newest known one, with its true age
GET /v1/quotes/{coin}              the history, as quote_service has it
GET /v1/candles/{coin}             candles, likewise
GET /v1/status                     the state of the whole system
GET /v1/ws                         the live stream, as a WebSocket
GET /v1/stream                     the live stream, as server-sent events

    Redis ──▶ FeedConsumer ──▶ Hub ──▶ connections        quote_service ──▶ what Redis lost, what a client missed
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from importlib.resources import files as resources_of
from random import SystemRandom
from typing import cast

from cotacoes.adapters.http_server.accepting import room_for
from cotacoes.adapters.http_server.connection import ASGIApp
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import ProblemError
from cotacoes.feed.consumer import BUS_QUIET_S, FeedConsumer
from cotacoes.feed.feeds import Feeds
from cotacoes.feed.history import ServiceHistory
from cotacoes.gateway_service import event_stream, websocket
from cotacoes.gateway_service.admission import Admission
from cotacoes.gateway_service.coin_names import CoinNames
from cotacoes.gateway_service.cross_origin import CrossOrigin
from cotacoes.gateway_service.event_stream import EventStreams
from cotacoes.gateway_service.hub import Hub
from cotacoes.gateway_service.page_files import page_routes, read_page_files
from cotacoes.gateway_service.routes import routes
from cotacoes.gateway_service.status import Status
from cotacoes.gateway_service.status_polls import ASK_S, REDIS, StatusPolls
from cotacoes.gateway_service.status_routes import status_routes
from cotacoes.gateway_service.status_topic import StatusTopic
from cotacoes.gateway_service.websocket import WebSockets
from cotacoes.model.payloads import Progress
from cotacoes.model.quote import utc_now
from cotacoes.model.status import LimitsJson, SourceKind
from cotacoes.observability.metrics import Metrics, StreamMetrics
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import Restarts, background
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.process import HttpService, Stop, serve_http
from cotacoes.web.resilient_client import ResilientClient
from cotacoes.web.service_client import Addresses, ServiceClient
from cotacoes.web.upstreams import new_upstreams

NAME = "gateway_service"
ASK_S_MAX = 2.0  # quote_service answers from memory: without an answer by then it is away
ASK_SHARE_MAX = 0.8  # of the request's deadline, so that the answer that it is away is in time
START_QUOTES_MAX = 1_000  # of each coin, to fill the ring at the start
QUOTE_BYTES = 800  # about what a quote takes in a ring


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped."""
    await serve_http(build(settings), settings, stop)


def build(settings: Settings) -> HttpService:
    """Wire the service, inside the loop that will run it; nothing is opened yet."""
    client = ServiceClient(Addresses(quote_service=settings.url("quote_service")), deadline_s=ask_deadline_s(settings))
    services = ServiceClient(Addresses.of(settings), deadline_s=report_wait_s(settings))
    bus = RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with client, services, bus:
            yield

    return wire(settings, client, bus, opened, places=room_for(settings.streams_max), services=services)


def ask_deadline_s(settings: Settings) -> float:
    """The deadline of one question to quote_service, including retries."""
    return min(ASK_S_MAX, settings.request_deadline_s * ASK_SHARE_MAX)


def report_wait_s(settings: Settings) -> float:
    """How long to wait for a report, which has a deadline of its own."""
    return min(settings.report_deadline_s, settings.request_deadline_s) + ASK_S


def wire(
    settings: Settings,
    client: ServiceClient,
    bus: Bus,
    opened: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
    *,
    places: int | None = None,
    services: ServiceClient | None = None,
) -> HttpService:
    """The service over a client and a bus that are open while `opened` is; `places` limits the open streams.

    `services` asks all services for the status; None: the client does.
    """
    metrics = Metrics()
    upstreams = new_upstreams(metrics)
    guarded = ResilientClient(
        client,
        upstreams,
        questions=("current", "positions", "quotes", "candles"),
        deadline_s=ask_deadline_s(settings),
        clock=time.monotonic,
        attempts=2,
        age_max_s=settings.age_max_s,
    )
    restarts = Restarts(metrics)
    loop = asyncio.get_running_loop()
    random = SystemRandom()
    stream_metrics = StreamMetrics(metrics)
    history = ServiceHistory(guarded)
    hub = Hub(
        settings.seed_placement,
        history,
        stream_metrics,
        ring_bytes=settings.stream_ring_bytes,
        loop=loop,
        now=utc_now,
        random=random,
    )
    parts = [*settings.http_services, REDIS]
    status = Status(
        parts,
        SHARDS,
        limits=LimitsJson(round(settings.fresh_s * 1000), round(settings.age_max_s * 1000), settings.stream_coins_max),
        source=cast(SourceKind, settings.source.partition(":")[0]),
        now=utc_now,
    )
    polls = StatusPolls(
        status,
        services or client,
        hub,
        services=parts,
        own_breakers=upstreams.described,
        ping_redis=bus.ping,
        report_s=report_wait_s(settings),
        clock=loop.time,
        now=utc_now,
    )
    topic = StatusTopic(status, polls.want)
    names = CoinNames(lambda: hub.coins, loop.time)
    admission = Admission(settings, stream_metrics, loop.time, places or settings.streams_max)

    async def positions() -> dict[str, Progress] | None:
        with contextlib.suppress(ProblemError):
            return await guarded.positions(venues=True)
        return None

    def noted(progress: dict[str, Progress] | None) -> list[str]:
        if progress is not None:
            names.note_listed()
        found = list(settings.seed_placement if progress is None else progress)
        hub.add(found)
        return found

    async def coins() -> list[str]:
        return noted(await positions())

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with opened():
            progress = await positions()
            found = noted(progress)
            polls.note_coins(progress)  # before a page could take it that there are none
            start_quotes = _start_quotes(settings, len(found))
            feeds = Feeds(found, loop.time(), start_quotes=start_quotes, prefix=settings.channel_prefix)
            hub.follow(feeds)
            consumer = FeedConsumer(
                feeds,
                bus,
                history,
                hub.apply,
                clock=loop.time,
                random=random,
                count_ignored=stream_metrics.count_ignored,
                bus_quiet_s=BUS_QUIET_S,
            )
            # the consumer is not restarted on failure: the rings might differ unnoticed from what it had emitted, while
            # the clients of a new process resume exactly
            async with background(
                consumer.run(newcomers=coins),
                hub.run(restarts),
                polls.run(restarts),
                restarts.kept("status", topic.run),
            ):
                yield

    router = routes(settings, guarded, names, hub.newest)
    router.include_router(breaker_routes(NAME, settings, upstreams))
    router.include_router(page_routes(read_page_files()))
    router.include_router(status_routes(settings, status, polls, services or client))
    checks = {
        "quote_service": Check(functools.partial(client.check_alive, "quote_service"), required=True),
        "redis": Check(bus.ping),  # current quotes are answered without it
    }
    streams: dict[str, ASGIApp] = {
        event_stream.PATH: EventStreams(hub, admission, settings, clock=loop.time),
        websocket.PATH: websocket.require_upgrade,
    }
    text = resources_of("cotacoes.gateway_service").joinpath("patterns.md").read_text(encoding="utf-8")
    app = build_app(NAME, settings, metrics, router, checks=checks, streams=streams, description=text)
    websockets = WebSockets(hub, admission, settings, clock=loop.time, topic=topic)
    if settings.origins:
        app = CrossOrigin(app, settings.origins)
    return HttpService(NAME, app, metrics, resources, websockets.protocol)


def _start_quotes(settings: Settings, coins: int) -> int:
    """As many quotes of each coin as the rings can hold."""
    return max(1, min(START_QUOTES_MAX, settings.stream_ring_bytes // (QUOTE_BYTES * max(1, coins))))
