"""The reporter: asks everyone at once, and makes one report of what came by the deadline.

Plan ──▶ scatter ──▶ quote_service   the current quotes, means and positions of all coins, in one question
              └────▶ each shard      the newest and the window of all its coins, in one question
 report ◀── merge ◀── gather, when all have answered or the deadline is near

A shard answers for the placement under which a coin lives there. A lower one than is known is of a shard that was left
behind, be it by a move or by a restore: the coin is asked for once more, where its fence says, and is missing rather
than old. So it is if the shard lacks quotes that were delivered to it (`lag.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cotacoes.aggregator_service.branch_spans import traced_gather
from cotacoes.aggregator_service.kept_reports import RenderedReport, ReportCache
from cotacoes.aggregator_service.lag import lagging, lags, without
from cotacoes.aggregator_service.plan import ASKED_AS, QUOTE_SERVICE, ReportPlan
from cotacoes.aggregator_service.report import ShardAnswer, lasting, merge, retold, trace_of
from cotacoes.aggregator_service.shards import ResilientShards
from cotacoes.errors import CoinMovedError, CotacoesError, OverloadedError, ShardUnavailableError, TimedOutError
from cotacoes.model.quote import AgeLimits
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import AggregatorMetrics
from cotacoes.patterns.resilience import SingleFlight, current_deadline
from cotacoes.patterns.scatter_gather.gather import scatter_gather
from cotacoes.patterns.scatter_gather.gather_result import GatherResult
from cotacoes.patterns.sharding.shard import Fence, Shard, ShardView
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.web.resilient_client import ResilientClient

RESERVE_S = 0.1  # of the deadline, for the merge and the way out: 1,000 coins take some 40 ms
RESERVE_SHARE_MAX = 0.1
FLIGHT_SLACK_S = 1.0  # a report ends by itself, in time
FOLLOW_SHARE_MAX = 0.5  # of the time for asking, to find coins that have moved
COINS_MAX = 20_000  # in reports under way, some 5 KB each; twenty reports of 1,000 coins, thousands of two
_encode = msgspec.json.Encoder().encode


def reserve_s(deadline_s: float) -> float:
    """What of a report's deadline is not for asking."""
    return min(RESERVE_S, deadline_s * RESERVE_SHARE_MAX)


class Reporter:
    """See the head of this file; notes in the log which source went away and which came back.

    `deadline_s` is of a report and `kept_s` how long it is told again, in seconds. Those who ask the same at the same
    time are told the same: one asking, one merge and one text for all of them; who asks a moment later is told it with
    the ages of then. Who has less time than a report may take is told what there is by then.
    """

    def __init__(
        self,
        client: ResilientClient,
        shards: ResilientShards,
        directory: ShardDirectory,
        metrics: AggregatorMetrics,
        *,
        deadline_s: float,
        kept_s: float,
        limits: AgeLimits,
        clock: Callable[[], float],
    ) -> None:
        self._deadline_s = deadline_s
        self._limits = limits
        self._flights = SingleFlight[RenderedReport](deadline=deadline_s + FLIGHT_SLACK_S, clock=clock)
        self._kept = ReportCache(kept_s=kept_s, clock=clock)
        self._client = client
        self._shards = shards
        self._directory = directory
        self._metrics = metrics
        self._clock = clock
        self._away: set[str] = set()
        self._asking = 0

    @property
    def placement(self) -> dict[str, str]:
        """On which shard each coin lives, as far as is known here."""
        return {coin: home.shard for coin, home in self._directory.homes.items()}

    async def report(self, plan: ReportPlan, *, trace: bool = False, age_max_s: float = math.inf) -> RenderedReport:
        """One that is at most so old; of now, with a trace. OverloadedError where too much is under way."""
        if not trace and (kept := self._again(plan, age_max_s)) is not None:
            return kept
        deadline = current_deadline()
        if deadline is not None and deadline.remaining() < self._deadline_s - reserve_s(self._deadline_s):
            return await self._report(plan, deadline.remaining(), trace=trace)
        told, _ = await self._flights.do((*plan.key, trace), lambda: self._keep(plan, trace=trace))
        return told

    async def _keep(self, plan: ReportPlan, *, trace: bool) -> RenderedReport:
        told = await self._report(plan, self._deadline_s, trace=trace)
        if not trace:
            self._kept.keep(plan.key, told)
        return told

    def _again(self, plan: ReportPlan, age_max_s: float) -> RenderedReport | None:
        """The report that was told a moment ago, as it is now."""
        kept = self._kept.find(plan.key, age_max_s)
        if kept is None:
            return None
        report = retold(msgspec.json.decode(kept.body), math.ceil(kept.age_s * 1000), self._limits)
        return None if report is None else _told(report, kept.at, kept.age_s)

    async def _report(self, plan: ReportPlan, deadline_s: float, *, trace: bool) -> RenderedReport:
        coins = len(plan.placement)
        if self._asking and self._asking + coins > COINS_MAX:
            raise OverloadedError(f"reports of {self._asking} coins are under way")
        self._asking += coins
        try:
            result = await traced_gather(
                self._branches(plan),
                deadline=deadline_s,
                clock=self._clock,
                reserve=reserve_s(deadline_s),
            )
            result = await self._without_lagging(plan, result, deadline_s)
        finally:
            self._asking -= coins
        gathered_at = self._clock()
        told = merge(plan, result, self._limits, generated_at=datetime.now(UTC), deadline_s=deadline_s)
        at = self._clock()  # of 1,000 coins the merge takes some 60 ms, by which prices grow older too
        told = retold(told, math.ceil((at - gathered_at) * 1000), self._limits) or told
        if trace:
            told["trace"] = trace_of(result)
        self._note(told, result)
        return _told(told, at)

    async def _without_lagging(
        self, plan: ReportPlan, result: GatherResult[Any], deadline_s: float
    ) -> GatherResult[Any]:
        """The result without what lagging shards told: those that still lag when they are asked again, in time."""
        left_s = deadline_s - result.elapsed_s
        seeming: dict[str, list[str]] = {}
        for coin in lags(plan, result):
            home = self._directory.homes[coin].shard
            if home in self._directory.shards:
                seeming.setdefault(home, []).append(coin)
        if not seeming or left_s <= reserve_s(deadline_s):
            return result
        again = await scatter_gather(
            {
                home: functools.partial(self._shards.newest, home, self._directory.shards[home], coins, 0, None)
                for home, coins in seeming.items()
            },
            deadline=left_s,
            clock=self._clock,
            reserve=reserve_s(deadline_s),
        )
        held = {coin: view.through for views in again.values.values() for coin, view in views.items()}
        found = lagging(held, result.values[QUOTE_SERVICE])
        reasons = {coin: lag.words(self._directory.homes[coin].shard) for coin, lag in found.items()}
        return without(plan, dataclasses.replace(result, elapsed_s=result.elapsed_s + again.elapsed_s), reasons)

    def _branches(self, plan: ReportPlan) -> dict[str, Callable[[], Awaitable[Any]]]:
        asked: dict[str, Callable[[], Awaitable[Any]]] = {}
        if plan.of_quote_service:
            wanted = [ASKED_AS[part] for part in plan.of_quote_service]
            asked[QUOTE_SERVICE] = functools.partial(self._client.overview, list(plan.placement), wanted)
        for name, coins in plan.shards.items():
            asked[name] = functools.partial(self._newest, plan, name, coins)
        return asked

    async def _newest(self, plan: ReportPlan, shard: str, coins: Sequence[str]) -> ShardAnswer:
        """What the shard has of these coins, and of those that have moved what there is where they went."""
        if shard not in self._directory.shards:
            raise ShardUnavailableError(f"no address of {shard} is known")
        views, absent = self._screened(shard, coins, await self._ask(plan, shard, coins))
        if absent:
            # what this shard has said stands, whoever else is away
            deadline = current_deadline()
            left_s = self._deadline_s if deadline is None else min(self._deadline_s, deadline.remaining())
            with contextlib.suppress(ShardUnavailableError, TimedOutError, TimeoutError):
                async with asyncio.timeout(left_s * FOLLOW_SHARE_MAX):
                    async for found in self._moved(plan, shard, list(absent)):
                        views |= found
        return ShardAnswer(views, {coin: why for coin, why in absent.items() if coin not in views})

    async def _moved(self, plan: ReportPlan, shard: str, coins: Sequence[str]) -> AsyncIterator[dict[str, ShardView]]:
        """What there is of coins that are not where they were, from where they went."""
        for coin in coins:
            with contextlib.suppress(CoinMovedError):
                await self._directory.ask(coin, _fence_of(coin))  # a fence knows before shard1
        gone: dict[str, list[str]] = {}
        for coin in coins:
            home = self._directory.homes[coin].shard
            if home != shard and home in self._directory.shards:
                gone.setdefault(home, []).append(coin)
        for home, its in gone.items():
            views, _ = self._screened(home, its, await self._ask(plan, home, its))
            yield views

    async def _ask(self, plan: ReportPlan, shard: str, coins: Sequence[str]) -> dict[str, ShardView]:
        count = plan.last if "last_logs" in plan.parts else 0
        window = plan.window if "window" in plan.parts else None
        return await self._shards.newest(shard, self._directory.shards[shard], coins, count, window)

    def _screened(
        self, shard: str, coins: Sequence[str], views: Mapping[str, ShardView]
    ) -> tuple[dict[str, ShardView], dict[str, str]]:
        """What may be believed, and why the rest of these coins is absent."""
        homes = self._directory.homes
        believed = {coin: view for coin, view in views.items() if view.placement >= homes[coin].placement}
        absent = {
            coin: f"{shard} answers for an old placement of {coin}"
            if coin in views
            else f"{coin} is between two shards"
            for coin in coins
            if coin not in believed
        }
        return believed, absent

    def _note(self, told: Mapping[str, Any], result: GatherResult[Any]) -> None:
        self._metrics.reports.labels(complete=str(told["complete"]).lower()).inc()
        for name, source in told["sources"].items():
            self._metrics.report_branches.labels(branch=name, status=source["status"]).inc()
            is_away = source["status"] != "ok"
            if is_away and name not in self._away:
                get_logger().warning("source.away", part=name, status=source["status"])
            elif not is_away and name in self._away:
                get_logger().info("source.back", part=name)
            (self._away.add if is_away else self._away.discard)(name)
        for branch in result.missing:
            if branch.error is not None and not isinstance(branch.error, CotacoesError):  # a bug of ours
                get_logger().error("branch.crashed", part=branch.name, exc_info=branch.error)


def _fence_of(coin: str) -> Callable[[Shard], Awaitable[Fence]]:
    return lambda shard: shard.fence(coin)


def _told(report: Mapping[str, Any], at: float, age_s: float = 0.0) -> RenderedReport:
    digest = hashlib.blake2b(_encode(lasting(report)), digest_size=12).hexdigest()
    return RenderedReport(_encode(report), f'W/"{digest}"', report["missing"], at, age_s)
