"""aggregator_service: one report made from all sources, by its deadline.

/report/full ──▶ ReportPlan ──▶ Reporter ──▶ merge
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime

from cotacoes.adapters.postgres.shard import open_directory
from cotacoes.aggregator_service.plan import QUOTE_SERVICE
from cotacoes.aggregator_service.reporter import Reporter, reserve_s
from cotacoes.aggregator_service.routes import PATHS, documented, report_route
from cotacoes.aggregator_service.shards import ReportShards
from cotacoes.config import SHARDS, Settings
from cotacoes.model.quote import AgeLimits, utc_now
from cotacoes.observability.metrics import AggregatorMetrics, Metrics
from cotacoes.patterns.scatter_gather.gather import still_running
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import Restarts, background
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.process import HttpService, Stop, serve_http
from cotacoes.web.resilient_client import ResilientClient
from cotacoes.web.service_client import Addresses, ServiceClient
from cotacoes.web.upstreams import new_upstreams

NAME = "aggregator_service"


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped. SettingError if a DSN is missing or cannot be used."""
    await serve_http(build(settings), settings, stop)


def build(settings: Settings) -> HttpService:
    """Wire the service; nothing is opened yet."""
    deadline_s = ask_deadline_s(settings)
    directory = open_directory(settings, NAME, deadline_s=deadline_s)
    client = ServiceClient(Addresses(quote_service=settings.url(QUOTE_SERVICE)), deadline_s=deadline_s)
    metrics = Metrics()
    restarts = Restarts(metrics)

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(directory)
            await stack.enter_async_context(client)
            await stack.enter_async_context(background(restarts.kept("directory", directory.run)))
            yield

    return wire(settings, client, directory, resources, metrics=metrics)


def wire(
    settings: Settings,
    client: ServiceClient,
    directory: ShardDirectory,
    resources: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
    *,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = utc_now,
    metrics: Metrics | None = None,
) -> HttpService:
    """The service over a client and a directory that `resources` opens."""
    metrics = metrics or Metrics()
    upstreams = new_upstreams(metrics)
    deadline_s = ask_deadline_s(settings)
    reporter = Reporter(
        ResilientClient(client, upstreams, questions=("overview",), deadline_s=deadline_s, clock=clock),
        ReportShards(directory, upstreams, deadline_s=deadline_s, clock=clock),
        AggregatorMetrics(metrics, still_running),
        deadline_s=report_deadline_s(settings),
        cached_s=settings.report_kept_s,
        limits=AgeLimits.of(settings.fresh_s, settings.age_max_s),
        clock=clock,
        now=now,
    )
    direct = dict.fromkeys(PATHS, report_route(reporter))
    router = documented()
    router.include_router(breaker_routes(NAME, settings, upstreams))
    # none is required: the report answers whichever source is away
    checks = {
        QUOTE_SERVICE: Check(functools.partial(client.check_alive, QUOTE_SERVICE)),
        **{name: Check(functools.partial(_ping, directory, name)) for name in SHARDS},
    }
    return HttpService(
        NAME,
        build_app(NAME, settings, metrics, router, checks=checks, direct=direct),
        metrics,
        resources,
    )


async def _ping(directory: ShardDirectory, name: str) -> None:
    await directory.shards[name].ping()


def report_deadline_s(settings: Settings) -> float:
    """The deadline of a report: its own, or that of a request if it is shorter."""
    return min(settings.report_deadline_s, settings.request_deadline_s)


def ask_deadline_s(settings: Settings) -> float:
    """The time for asking: the deadline of the report less the reserve."""
    deadline_s = report_deadline_s(settings)
    return deadline_s - reserve_s(deadline_s)
