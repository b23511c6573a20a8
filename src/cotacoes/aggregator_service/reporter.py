"""The reporter: asks everyone at once, and makes one report of what has arrived by the deadline.

ReportPlan ──▶ scatter ──▶ quote_service   the current quotes, means and positions of all coins, in one question
                    └────▶ each shard      the newest quotes and the window of all its coins, in one question
     report ◀── merge ◀── gather, when all have answered or the deadline is near

Callers that ask the same at the same time share one asking, one merge and one text. Callers that ask the same within
the time for which a report is cached get it with its present ages.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec

from cotacoes.aggregator_service.branch_spans import traced_gather
from cotacoes.aggregator_service.lag import without_lagging
from cotacoes.aggregator_service.plan import ASKED_AS, QUOTE_SERVICE, ReportPlan
from cotacoes.aggregator_service.report import etag_payload, merge, trace_of, with_added_age
from cotacoes.aggregator_service.report_cache import RenderedReport, ReportCache
from cotacoes.aggregator_service.shards import ReportShards
from cotacoes.errors import CotacoesError, OverloadedError
from cotacoes.model.payloads import ReportJson
from cotacoes.model.quote import AgeLimits, utc_now
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import AggregatorMetrics
from cotacoes.patterns.resilience import SingleFlight, current_deadline
from cotacoes.patterns.scatter_gather.gather_result import GatherResult
from cotacoes.web.resilient_client import ResilientClient

RESERVE_S = 0.1  # of the deadline, for the merge and the way out: 1,000 coins take some 40 ms
RESERVE_SHARE_MAX = 0.1
FLIGHT_SLACK_S = 1.0  # a report ends by itself, in time
COINS_MAX = 20_000  # in reports under way, some 5 KB each; twenty reports of 1,000 coins, thousands of two
_encode = msgspec.json.Encoder().encode


def reserve_s(deadline_s: float) -> float:
    """The part of a report's deadline that is not for asking."""
    return min(RESERVE_S, deadline_s * RESERVE_SHARE_MAX)


class Reporter:
    """Makes reports, and logs which source went away and which came back.

    `deadline_s` applies to each report, and a report is cached for `cached_s`, both in seconds. A caller that has less
    time than a report may take gets what has arrived by then. `now` gives the wall time.
    """

    def __init__(
        self,
        client: ResilientClient,
        shards: ReportShards,
        metrics: AggregatorMetrics,
        *,
        deadline_s: float,
        cached_s: float,
        limits: AgeLimits,
        clock: Callable[[], float],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._shards = shards
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._limits = limits
        self._clock = clock
        self._now = now
        self._flights = SingleFlight[RenderedReport](deadline=deadline_s + FLIGHT_SLACK_S, clock=clock)
        self._cache = ReportCache(max_age_s=cached_s, clock=clock)
        self._away: set[str] = set()
        self._coins_under_way = 0

    def placement(self, *, venues: bool) -> dict[str, str]:
        """The shard of each coin, and with `venues` also of the series of venues, as far as this service knows."""
        return self._shards.placement(venues=venues)

    async def report(self, plan: ReportPlan, *, trace: bool = False, max_age_s: float = math.inf) -> RenderedReport:
        """A report at most `max_age_s` old; always fresh if traced. OverloadedError if too much is under way."""
        if not trace and (cached := self._cached(plan, max_age_s)) is not None:
            return cached
        deadline = current_deadline()
        if deadline is not None and deadline.remaining() < self._deadline_s - reserve_s(self._deadline_s):
            return await self._report(plan, deadline.remaining(), trace=trace)
        rendered, _ = await self._flights.do((*plan.key, trace), lambda: self._report_to_cache(plan, trace=trace))
        return rendered

    def _cached(self, plan: ReportPlan, max_age_s: float) -> RenderedReport | None:
        """The cached report with its present ages."""
        cached = self._cache.find(plan.key, max_age_s)
        if cached is None:
            return None
        report = with_added_age(cached.report, math.ceil(cached.age_s * 1000), self._limits)
        return None if report is None else _rendered(report, cached.at, cached.age_s)

    async def _report_to_cache(self, plan: ReportPlan, *, trace: bool) -> RenderedReport:
        rendered = await self._report(plan, self._deadline_s, trace=trace)
        if not trace:
            self._cache.put(plan.key, rendered)
        return rendered

    async def _report(self, plan: ReportPlan, deadline_s: float, *, trace: bool) -> RenderedReport:
        coins = len(plan.placement)
        if self._coins_under_way and self._coins_under_way + coins > COINS_MAX:
            raise OverloadedError(f"reports of {self._coins_under_way} coins are under way")
        self._coins_under_way += coins
        try:
            result = await self._gathered(plan, deadline_s)
        finally:
            self._coins_under_way -= coins
        gathered_at = self._clock()
        report = merge(plan, result, self._limits, generated_at=self._now(), deadline_s=deadline_s)
        at = self._clock()  # of 1,000 coins the merge takes some 60 ms, in which prices grow older too
        report = with_added_age(report, math.ceil((at - gathered_at) * 1000), self._limits) or report
        if trace:
            report = msgspec.structs.replace(report, trace=trace_of(result))
        self._note(report, result)
        return _rendered(report, at)

    async def _gathered(self, plan: ReportPlan, deadline_s: float) -> GatherResult[Any]:
        reserve = reserve_s(deadline_s)
        result = await traced_gather(self._branches(plan), deadline=deadline_s, clock=self._clock, reserve=reserve)
        return await without_lagging(
            plan, result, self._shards, deadline_s=deadline_s, reserve_s=reserve, clock=self._clock
        )

    def _branches(self, plan: ReportPlan) -> dict[str, Callable[[], Awaitable[Any]]]:
        branches: dict[str, Callable[[], Awaitable[Any]]] = {}
        if plan.of_quote_service:
            parts = [ASKED_AS[part] for part in plan.of_quote_service]
            coins = list(plan.placement)
            venues = self._shards.has_venue_series(coins)
            branches[QUOTE_SERVICE] = functools.partial(self._client.overview, coins, parts, venues=venues)
        for name, its in plan.shards.items():
            branches[name] = functools.partial(self._shards.answer, plan, name, its)
        return branches

    def _note(self, report: ReportJson, result: GatherResult[Any]) -> None:
        self._metrics.reports.labels(complete=str(report.complete).lower()).inc()
        for name, source in report.sources.items():
            self._metrics.report_branches.labels(branch=name, status=source.status).inc()
            is_away = source.status != "ok"
            if is_away and name not in self._away:
                get_logger().warning("source.away", source=name, status=source.status)
            elif not is_away and name in self._away:
                get_logger().info("source.back", source=name)
            (self._away.add if is_away else self._away.discard)(name)
        for branch in result.missing:
            if branch.error is not None and not isinstance(branch.error, CotacoesError):  # a bug
                get_logger().error("branch.crashed", branch=branch.name, exc_info=branch.error)


def _rendered(report: ReportJson, at: float, age_s: float = 0.0) -> RenderedReport:
    digest = hashlib.blake2b(_encode(etag_payload(report)), digest_size=12).hexdigest()
    return RenderedReport(report, _encode(report), f'W/"{digest}"', at, age_s)
