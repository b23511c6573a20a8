"""aggregator_service: one report from everyone, by the deadline.

/report/full ──▶ plan ──▶ scatter ──▶ quote_service   current, mean, positions
                                └───▶ each shard      the newest of all its coins, in one question
              ◀── merge ◀── gather, when all have answered or the deadline is near
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from cotacoes.adapters.shard_directory import ShardDirectory
from cotacoes.adapters.shard_postgres import open_directory
from cotacoes.aggregator_service.report import LAST_LOGS, POSITIONS, QUOTE_SERVICE, Plan, average, current, merge
from cotacoes.aggregator_service.shards import GuardedShards
from cotacoes.breaker_routes import breaker_routes
from cotacoes.client import Addresses, GuardedClient, ServiceClient
from cotacoes.config import SHARDS, Settings
from cotacoes.endpoints import new_endpoints
from cotacoes.errors import CoinMovedError, CotacoesError, OverloadedError, ShardUnavailableError
from cotacoes.patterns.gather_result import GatherResult
from cotacoes.patterns.scatter_gather import scatter_gather, still_running
from cotacoes.patterns.sharding import Fence, Shard, ShardView
from cotacoes.service import Check, Service, Stop, background, build_app, serve_http
from cotacoes.telemetry import AggregatorMetrics, Metrics, get_logger

NAME = "aggregator_service"
RESERVE_S = 0.1  # of the deadline, for the merge and the way out: 1,000 coins take some 40 ms
RESERVE_SHARE_MAX = 0.1
FOLLOW_SHARE_MAX = 0.5  # of the time for asking, to find coins that have moved
QUESTIONS_MAX = 20_000  # under way at once, each a task of some 5 KB; ten reports of 1,000 coins, thousands of two
_encode = msgspec.json.Encoder().encode


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped; SettingError where a DSN is missing or can not be used."""
    await serve_http(build(settings), settings, stop)


def build(settings: Settings) -> Service:
    """Wire the service; nothing is opened yet."""
    deadline_s = ask_deadline_s(settings)
    directory = open_directory(settings, NAME, deadline_s=deadline_s)
    client = ServiceClient(Addresses(quote_service=settings.url(QUOTE_SERVICE)), deadline_s=deadline_s)

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(directory)
            await stack.enter_async_context(client)
            await stack.enter_async_context(background(directory.run()))
            yield

    return wire(settings, client, directory, resources)


def wire(
    settings: Settings,
    client: ServiceClient,
    directory: ShardDirectory,
    resources: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
) -> Service:
    """The service over a client and a directory that are open while `resources` is."""
    metrics = Metrics()
    endpoints = new_endpoints(metrics)
    guarded = GuardedClient(
        client,
        endpoints,
        questions=("current", "mean", POSITIONS),
        deadline_s=ask_deadline_s(settings),
        clock=time.monotonic,
    )
    shards = GuardedShards(endpoints, deadline_s=ask_deadline_s(settings))
    reporter = Reporter(
        settings, guarded, shards, directory, AggregatorMetrics(metrics, still_running), clock=time.monotonic
    )
    router = APIRouter(tags=["report"])

    @router.get("/report/full", summary="Everything about every coin, by the deadline", response_model=None)
    async def report() -> Response:
        """`missing` names each part that did not come, and why; `last_logs` go `through` what the shard has."""
        return Response(
            _encode(await reporter.report()), media_type="application/json", headers={"cache-control": "no-store"}
        )

    router.include_router(breaker_routes(NAME, settings, endpoints))
    # It can answer whoever is away: that is what the report is for.
    checks = {
        QUOTE_SERVICE: Check(_silently(functools.partial(client.check_alive, QUOTE_SERVICE))),
        **{name: Check(_silently(functools.partial(_ping, directory, name))) for name in SHARDS},
    }
    return Service(NAME, build_app(NAME, settings, metrics, router, checks=checks), resources)


def _fence_of(coin: str) -> Callable[[Shard], Awaitable[Fence]]:
    return lambda shard: shard.fence(coin)


async def _ping(directory: ShardDirectory, name: str) -> None:
    await directory.shards[name].ping()


def _silently(ask: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[str | None]]:
    async def probe() -> str | None:
        await ask()  # an error's detail becomes the reason
        return None

    return probe


def report_deadline_s(settings: Settings) -> float:
    """A report's deadline, or a request's where that is shorter."""
    return min(settings.report_deadline_s, settings.request_deadline_s)


def ask_deadline_s(settings: Settings) -> float:
    """What is left for asking: the report's deadline less the reserve."""
    deadline_s = report_deadline_s(settings)
    return deadline_s - min(RESERVE_S, deadline_s * RESERVE_SHARE_MAX)


class Reporter:
    """Asks everyone and merges; notes in the log which source went away and which came back."""

    def __init__(
        self,
        settings: Settings,
        client: GuardedClient,
        shards: GuardedShards,
        directory: ShardDirectory,
        metrics: AggregatorMetrics,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._report_deadline_s = report_deadline_s(settings)
        self._deadline_s = ask_deadline_s(settings)
        self._client = client
        self._shards = shards
        self._directory = directory
        self._metrics = metrics
        self._clock = clock
        self._away: set[str] = set()
        self._asking = 0

    async def report(self) -> dict[str, Any]:
        """The body of `/report/full`; OverloadedError where too many questions are under way."""
        plan = Plan({coin: home.shard for coin, home in self._directory.homes.items()})
        branches = self._branches(plan)
        if self._asking and self._asking + len(branches) > QUESTIONS_MAX:
            raise OverloadedError(f"{self._asking} questions are under way")
        self._asking += len(branches)
        try:
            result = await scatter_gather(
                branches,
                deadline=self._report_deadline_s,
                clock=self._clock,
                reserve=self._report_deadline_s - self._deadline_s,
            )
        finally:
            self._asking -= len(branches)
        told = merge(plan, result, generated_at=datetime.now(UTC), deadline_s=self._report_deadline_s)
        self._note(told, result)
        return told

    def _branches(self, plan: Plan) -> dict[str, Callable[[], Awaitable[Any]]]:
        asked: dict[str, Callable[[], Awaitable[Any]]] = {}
        for coin in plan.placement:
            asked[current(coin)] = functools.partial(self._client.current, coin)
            asked[average(coin)] = functools.partial(self._client.mean, coin)
        asked[POSITIONS] = self._client.positions
        for name, coins in plan.shards.items():
            asked[name] = functools.partial(self._newest, name, coins)
        return asked

    async def _newest(self, shard: str, coins: Sequence[str]) -> dict[str, ShardView]:
        """The newest quotes of these coins from the shard, and of those that have moved from where they went."""
        if shard not in self._directory.shards:
            raise ShardUnavailableError(f"no address of {shard} is known")
        views = await self._shards.newest(shard, self._directory.shards[shard], coins, LAST_LOGS)
        if absent := [coin for coin in coins if coin not in views]:
            # what this shard has said stands, whoever else is away
            with contextlib.suppress(ShardUnavailableError, TimeoutError):
                async with asyncio.timeout(self._deadline_s * FOLLOW_SHARE_MAX):
                    views |= await self._moved(shard, absent)
        return views

    async def _moved(self, shard: str, coins: Sequence[str]) -> dict[str, ShardView]:
        """The newest quotes of coins that are not where they were, from where they went."""
        for coin in coins:
            with contextlib.suppress(CoinMovedError):
                await self._directory.ask(coin, _fence_of(coin))  # a fence knows before shard1
        gone: dict[str, list[str]] = {}
        for coin in coins:
            home = self._directory.homes[coin].shard
            if home != shard and home in self._directory.shards:
                gone.setdefault(home, []).append(coin)
        views: dict[str, ShardView] = {}
        for home, its in gone.items():
            views |= await self._shards.newest(home, self._directory.shards[home], its, LAST_LOGS)
        return views

    def _note(self, told: Mapping[str, Any], result: GatherResult[Any]) -> None:
        self._metrics.reports.labels(complete=str(told["complete"]).lower()).inc()
        for name, source in told["sources"].items():
            self._metrics.sources.labels(source=name, status=source["status"]).inc()
            is_away = source["status"] != "ok"
            if is_away and name not in self._away:
                get_logger().warning("source.away", part=name, status=source["status"])
            elif not is_away and name in self._away:
                get_logger().info("source.back", part=name)
            (self._away.add if is_away else self._away.discard)(name)
        for branch in result.missing:
            if branch.error is not None and not isinstance(branch.error, CotacoesError):  # a bug of ours
                get_logger().error("branch.crashed", part=branch.name, exc_info=branch.error)
