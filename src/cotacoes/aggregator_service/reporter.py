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
from typing import Any, NamedTuple

import msgspec

from cotacoes.adapters.shard_directory import ShardDirectory
from cotacoes.aggregator_service.report import POSITIONS, Plan, average, current, merge, trace_of
from cotacoes.aggregator_service.shards import GuardedShards
from cotacoes.client import GuardedClient
from cotacoes.errors import CoinMovedError, CotacoesError, OverloadedError, ShardUnavailableError
from cotacoes.patterns import SingleFlight, current_deadline
from cotacoes.patterns.gather_result import GatherResult
from cotacoes.patterns.scatter_gather import scatter_gather
from cotacoes.patterns.sharding import Fence, Shard, ShardView
from cotacoes.telemetry import AggregatorMetrics, get_logger

RESERVE_S = 0.1  # of the deadline, for the merge and the way out: 1,000 coins take some 40 ms
RESERVE_SHARE_MAX = 0.1
FLIGHT_SLACK_S = 1.0  # a report ends by itself, in time
FOLLOW_SHARE_MAX = 0.5  # of the time for asking, to find coins that have moved
QUESTIONS_MAX = 20_000  # under way at once, each a task of some 5 KB; ten reports of 1,000 coins, thousands of two
_encode = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """A report: its text, and what is missing from it, each as `{"part", "reason"}`."""

    body: bytes
    missing: Sequence[Mapping[str, str]]


def reserve_s(deadline_s: float) -> float:
    """What of a report's deadline is not for asking."""
    return min(RESERVE_S, deadline_s * RESERVE_SHARE_MAX)


class Reporter:
    """See the head of this file; notes in the log which source went away and which came back.

    `deadline_s` is of a report, in seconds. Those who ask the same at the same time are told the same: one asking, one
    merge and one text for all of them. Who has less time than a report may take is told what there is by then.
    """

    def __init__(
        self,
        client: GuardedClient,
        shards: GuardedShards,
        directory: ShardDirectory,
        metrics: AggregatorMetrics,
        *,
        deadline_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._deadline_s = deadline_s
        self._flights = SingleFlight[Told](deadline=deadline_s + FLIGHT_SLACK_S, clock=clock)
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

    async def report(self, plan: Plan, *, trace: bool = False) -> Told:
        """OverloadedError where too many questions are under way."""
        deadline = current_deadline()
        if deadline is not None and deadline.remaining() < self._deadline_s - reserve_s(self._deadline_s):
            return await self._report(plan, deadline.remaining(), trace=trace)
        told, _ = await self._flights.do((*plan.key, trace), lambda: self._report(plan, self._deadline_s, trace=trace))
        return told

    async def _report(self, plan: Plan, deadline_s: float, *, trace: bool) -> Told:
        branches = self._branches(plan)
        if self._asking and self._asking + len(branches) > QUESTIONS_MAX:
            raise OverloadedError(f"{self._asking} questions are under way")
        self._asking += len(branches)
        try:
            result = await scatter_gather(
                branches,
                deadline=deadline_s,
                clock=self._clock,
                reserve=reserve_s(deadline_s),
            )
        finally:
            self._asking -= len(branches)
        told = merge(plan, result, generated_at=datetime.now(UTC), deadline_s=deadline_s)
        if trace:
            told["trace"] = trace_of(result)
        self._note(told, result)
        return Told(_encode(told), told["missing"])

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
                async with asyncio.timeout(self._deadline_s * FOLLOW_SHARE_MAX):
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
