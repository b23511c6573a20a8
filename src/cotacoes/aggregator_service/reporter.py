"""The reporter: asks everyone at once, and makes one report of what came by the deadline.

Plan ──▶ scatter ──▶ quote_service   current, mean, positions
              └────▶ each shard      the newest of all its coins, in one question
 report ◀── merge ◀── gather, when all have answered or the deadline is near
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cotacoes.adapters.shard_directory import ShardDirectory
from cotacoes.aggregator_service.report import POSITIONS, Plan, average, current, merge, trace_of
from cotacoes.aggregator_service.shards import GuardedShards
from cotacoes.client import GuardedClient
from cotacoes.errors import CoinMovedError, CotacoesError, OverloadedError, ShardUnavailableError
from cotacoes.patterns.gather_result import GatherResult
from cotacoes.patterns.scatter_gather import scatter_gather
from cotacoes.patterns.sharding import Fence, Shard, ShardView
from cotacoes.telemetry import AggregatorMetrics, get_logger

FOLLOW_SHARE_MAX = 0.5  # of the time for asking, to find coins that have moved
QUESTIONS_MAX = 20_000  # under way at once, each a task of some 5 KB; ten reports of 1,000 coins, thousands of two


class Reporter:
    """See the head of this file; notes in the log which source went away and which came back.

    `deadline_s` is of a report, `ask_deadline_s` of the asking; the rest is for the merge and the way out.
    """

    def __init__(
        self,
        client: GuardedClient,
        shards: GuardedShards,
        directory: ShardDirectory,
        metrics: AggregatorMetrics,
        *,
        deadline_s: float,
        ask_deadline_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._deadline_s = deadline_s
        self._ask_deadline_s = ask_deadline_s
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

    async def report(self, plan: Plan, *, trace: bool = False) -> dict[str, Any]:
        """The body of the report; OverloadedError where too many questions are under way."""
        branches = self._branches(plan)
        if self._asking and self._asking + len(branches) > QUESTIONS_MAX:
            raise OverloadedError(f"{self._asking} questions are under way")
        self._asking += len(branches)
        try:
            result = await scatter_gather(
                branches,
                deadline=self._deadline_s,
                clock=self._clock,
                reserve=self._deadline_s - self._ask_deadline_s,
            )
        finally:
            self._asking -= len(branches)
        told = merge(plan, result, generated_at=datetime.now(UTC), deadline_s=self._deadline_s)
        if trace:
            told["trace"] = trace_of(result)
        self._note(told, result)
        return told

    def _branches(self, plan: Plan) -> dict[str, Callable[[], Awaitable[Any]]]:
        asked: dict[str, Callable[[], Awaitable[Any]]] = {}
        for coin in plan.placement:
            if "current" in plan.parts:
                asked[current(coin)] = functools.partial(self._client.current, coin)
            if "average" in plan.parts:
                asked[average(coin)] = functools.partial(self._client.mean, coin)
        if "pending" in plan.parts:
            asked[POSITIONS] = self._client.positions
        for name, coins in plan.shards.items():
            asked[name] = functools.partial(self._newest, name, coins, plan.last)
        return asked

    async def _newest(self, shard: str, coins: Sequence[str], last: int) -> dict[str, ShardView]:
        """The newest quotes of these coins from the shard, and of those that have moved from where they went."""
        if shard not in self._directory.shards:
            raise ShardUnavailableError(f"no address of {shard} is known")
        views = await self._shards.newest(shard, self._directory.shards[shard], coins, last)
        if absent := [coin for coin in coins if coin not in views]:
            # what this shard has said stands, whoever else is away
            with contextlib.suppress(ShardUnavailableError, TimeoutError):
                async with asyncio.timeout(self._ask_deadline_s * FOLLOW_SHARE_MAX):
                    views |= await self._moved(shard, absent, last)
        return views

    async def _moved(self, shard: str, coins: Sequence[str], last: int) -> dict[str, ShardView]:
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
            views |= await self._shards.newest(home, self._directory.shards[home], its, last)
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


def _fence_of(coin: str) -> Callable[[Shard], Awaitable[Fence]]:
    return lambda shard: shard.fence(coin)
