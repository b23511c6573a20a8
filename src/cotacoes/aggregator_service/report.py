"""The report: one honest answer made of whatever came back.

Pure. If quote_service did not answer at all, that is one missing part and not one for each coin; if a source cannot
give one value, only that value is missing. What is missing is null and named, never an empty list and never an old
value: a coin whose shard lacks quotes that were delivered to it (`lag.py`) has none of that shard's parts. Coins, parts
and sources come in the order of the settings.

A price is as old as it is when the report is made, not when quote_service answered: a frozen shard may have been waited
for since. A report that is served again is served with its present ages (`with_added_age`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from cotacoes.aggregator_service.plan import ASKED_AS, QUOTE_SERVICE, ReportPlan
from cotacoes.aggregator_service.shards import ShardAnswer
from cotacoes.errors import ProblemError, ServiceUnavailableError, ShardUnavailableError, TimedOutError
from cotacoes.model.payloads import (
    BranchJson,
    CoinReportJson,
    MissingJson,
    ReportJson,
    SourceJson,
    SpanJson,
)
from cotacoes.model.quote import AgeLimits, QuoteJson, format_time
from cotacoes.model.window import WindowJson
from cotacoes.patterns.scatter_gather.gather_result import Branch, BranchStatus, GatherResult
from cotacoes.patterns.sharding.shard import ShardView
from cotacoes.web.overview import Overview
from cotacoes.web.resilient_client import NO_ANSWER

_NO_ANSWER = (*NO_ANSWER, ShardUnavailableError)
_NOTHING = Overview({}, {}, {}, {})


def merge(
    plan: ReportPlan, result: GatherResult[Any], limits: AgeLimits, *, generated_at: datetime, deadline_s: float
) -> ReportJson:
    """The body of `/report/full`."""
    values = result.values
    overview = _overview(values.get(QUOTE_SERVICE), result, limits)
    answers: dict[str, ShardAnswer] = {name: values[name] for name in plan.shards if name in values}
    missing = [*_missing_of_quote_service(plan, result, overview), *_missing_of_shards(plan, result, answers)]
    return ReportJson(
        generated_at=format_time(generated_at),
        deadline_ms=round(deadline_s * 1000),
        elapsed_ms=round(result.elapsed_s * 1000),
        complete=not missing,
        missing=missing,
        window=SpanJson.of(plan.window) if "window" in plan.parts else msgspec.UNSET,
        coins={
            coin: _coin(plan, coin, overview, answers[shard].views.get(coin) if shard in answers else None)
            for coin, shard in plan.placement.items()
        },
        sources={name: _source(result.branches[name]) for name in plan.sources},
    )


def _overview(overview: Overview | None, result: GatherResult[Any], limits: AgeLimits) -> Overview:
    """What quote_service answered, with the ages of its prices at the end of the gathering."""
    if overview is None:
        return _NOTHING
    waited_ms = math.ceil((result.elapsed_s - result.branches[QUOTE_SERVICE].started_s) * 1000)
    current, problems = {}, dict(overview.problems)
    for coin, quote in overview.current.items():
        if (older := quote.with_age(waited_ms, limits)) is None:
            problems[f"{coin}.current"] = ServiceUnavailableError(f"the newest quote of {coin} is too old")
        else:
            current[coin] = older
    return dataclasses.replace(overview, current=current, problems=problems)


def _missing_of_quote_service(plan: ReportPlan, result: GatherResult[Any], overview: Overview) -> list[MissingJson]:
    if not plan.of_quote_service:
        return []
    branch = result.branches[QUOTE_SERVICE]
    if branch.value is None:
        return [MissingJson(QUOTE_SERVICE, branch.reason or "")]
    missing = []
    for coin in plan.placement:
        for part in plan.of_quote_service:
            asked = ASKED_AS[part]
            if coin not in getattr(overview, asked):
                problem = overview.problems.get(f"{coin}.{asked}")
                reason = f"{QUOTE_SERVICE} answered nothing about {coin}" if problem is None else problem.detail
                missing.append(MissingJson(f"{coin}.{part}", reason))
    return missing


def _missing_of_shards(
    plan: ReportPlan, result: GatherResult[Any], answers: Mapping[str, ShardAnswer]
) -> list[MissingJson]:
    silent = [MissingJson(shard, result.branches[shard].reason or "") for shard in plan.shards if shard not in answers]
    return silent + [
        MissingJson(f"{coin}.{part}", answers[shard].absent.get(coin, ""))
        for shard, coins in plan.shards.items()
        for coin in coins
        if shard in answers and coin not in answers[shard].views
        for part in plan.of_shards
    ]


def _coin(plan: ReportPlan, coin: str, overview: Overview, view: ShardView | None) -> CoinReportJson:
    """The parts of a coin that were asked for; one that is missing is None."""
    parts: dict[str, Any] = {}
    if "current" in plan.parts:
        parts["current"] = overview.current.get(coin)
    if "average" in plan.parts:
        parts["average"] = overview.mean.get(coin)
    if "last_logs" in plan.parts:
        parts["last_logs"] = None if view is None else [QuoteJson.from_quote(quote) for quote in view.quotes]
    if plan.of_shards:
        parts["through"] = None if view is None or view.through is None else str(view.through)
    if "window" in plan.parts:
        parts["window"] = None if view is None else _window(plan, view)
    if "pending" in plan.parts:
        progress = overview.position.get(coin)
        parts["pending"] = None if progress is None else progress.pending
    return CoinReportJson(**parts)


def _window(plan: ReportPlan, view: ShardView) -> WindowJson | None:
    if view.window is None:
        return None
    closed = view.through_at is not None and view.through_at >= plan.window.end
    return WindowJson.of(plan.window, view.window, closed=closed)


def with_added_age(report: ReportJson, added_ms: int, limits: AgeLimits) -> ReportJson | None:
    """The report with all ages increased by `added_ms`; None if a price then exceeds its age limit."""
    coins = dict(report.coins)
    for coin, parts in coins.items():
        if parts.current:
            if (older := parts.current.with_age(added_ms, limits)) is None:
                return None
            coins[coin] = msgspec.structs.replace(parts, current=older)
    return msgspec.structs.replace(report, coins=coins)


def etag_payload(report: ReportJson) -> dict[str, Any]:
    """What of a report stays the same until there is something new: not the ages, the reasons and the times."""
    coins = {
        coin: msgspec.structs.replace(parts, current=msgspec.structs.replace(parts.current, age_ms=0))
        if parts.current
        else parts
        for coin, parts in report.coins.items()
    }
    return {"missing": [one.part for one in report.missing], "window": report.window or None, "coins": coins}


def trace_of(result: GatherResult[Any]) -> list[BranchJson]:
    """How each branch went, in the order of the plan; times in ms since the asking began."""
    return [
        BranchJson(
            branch=branch.name,
            status=branch.status.value,
            start_ms=round(branch.started_s * 1000, 1),
            elapsed_ms=round(branch.elapsed_s * 1000, 1),
            attempts=branch.attempts,
            reason=branch.reason,
        )
        for branch in result.branches.values()
    ]


def _source(branch: Branch[Any]) -> SourceJson:
    """How a source did: `ok` if it answered, even with a refusal; `lagging` if its answer is old."""
    elapsed_ms = round(branch.elapsed_s * 1000)
    if isinstance(branch.value, ShardAnswer) and branch.value.lags:
        return SourceJson("lagging", elapsed_ms)
    return SourceJson(_status(branch).value, elapsed_ms)


def _status(branch: Branch[Any]) -> BranchStatus:
    if _has_answered(branch):
        return BranchStatus.OK
    return BranchStatus.TIMED_OUT if isinstance(branch.error, TimedOutError) else branch.status


def _has_answered(branch: Branch[Any]) -> bool:
    """Whether the source answered: "no quote yet" comes from a healthy service, "no time" and "a bug" do not."""
    if branch.status.is_good:
        return True
    return isinstance(branch.error, ProblemError) and not isinstance(branch.error, _NO_ANSWER)
