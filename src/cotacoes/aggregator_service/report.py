"""The report: one honest answer made of whatever came back.

Pure. Where quote_service answered nothing at all, it is one missing part and not one for each coin; a source that
answers, and can not tell one thing, costs that thing alone. What is missing is null and named, never an empty list and
never an old value: a coin of which its shard lacks quotes that were delivered to it (`lag.py`) has none of that
shard's parts. Coins, parts and sources come in the order of the settings.

A price is as old as it is when the report is made, and not as when quote_service answered: a frozen shard may have
been waited for since. A report that is told again later is told with the ages of then (`retold`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cotacoes.aggregator_service.plan import ASKED_AS, QUOTE_SERVICE, ReportPlan
from cotacoes.client import Overview, Progress, with_age
from cotacoes.errors import (
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ProblemError,
    ServiceUnavailableError,
    ShardUnavailableError,
    TimedOutError,
)
from cotacoes.model.quote import AgeLimits, QuoteJson, format_time
from cotacoes.model.window import Window, WindowJson, WindowView, window_json
from cotacoes.patterns.scatter_gather.gather_result import Branch, BranchStatus, GatherResult
from cotacoes.patterns.sharding.shard import ShardView

LAGGING = "lagging"  # how a source can do, beside the statuses of a branch
_NO_ANSWER = (DeadlineExceededError, InternalError, OverloadedError, ServiceUnavailableError, ShardUnavailableError)


@dataclass(frozen=True)
class ShardAnswer:
    """What a shard's branch brought: what there is of each coin, and of each coin that is absent why it is.

    `lags` if one is absent because the shard lacks quotes that were delivered to it.
    """

    views: Mapping[str, ShardView] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    lags: bool = False

    def without(self, coins: Collection[str], reasons: Mapping[str, str]) -> ShardAnswer:
        """The same without these coins, of which the shard told what is old."""
        views = {coin: view for coin, view in self.views.items() if coin not in coins}
        return ShardAnswer(views, {**self.absent, **{coin: reasons[coin] for coin in coins}}, lags=True)


def merge(
    plan: ReportPlan, result: GatherResult[Any], limits: AgeLimits, *, generated_at: datetime, deadline_s: float
) -> dict[str, Any]:
    """The body of `/report/full`."""
    told, untold = _of_quote_service(plan, result, limits)
    answers: dict[str, ShardAnswer] = {name: value for name, value in result.values.items() if name in plan.shards}
    missing = [*untold, *_of_shards(plan, result, answers)]
    return {
        "generated_at": format_time(generated_at),
        "deadline_ms": round(deadline_s * 1000),
        "elapsed_ms": round(result.elapsed_s * 1000),
        "complete": not missing,
        "missing": missing,
        **({"window": window_json(plan.window)} if "window" in plan.parts else {}),
        "coins": {
            coin: _coin(plan, told, coin, answers[shard].views.get(coin) if shard in answers else None)
            for coin, shard in plan.placement.items()
        },
        "sources": {name: _source(branch) for name, branch in _sources(plan, result).items()},
    }


def _of_quote_service(
    plan: ReportPlan, result: GatherResult[Any], limits: AgeLimits
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What it told, by `COIN.PART`, and what it did not."""
    if not plan.of_quote_service:
        return {}, []
    branch: Branch[Overview] = result.branches[QUOTE_SERVICE]
    if branch.value is None:
        return {}, [_missing(QUOTE_SERVICE, branch.reason)]
    waited_ms = math.ceil((result.elapsed_s - branch.started_s) * 1000)
    told: dict[str, Any] = {}
    untold = []
    for coin in plan.placement:
        for part in plan.of_quote_service:
            value, reason = _value(branch.value, coin, part)
            if part == "current" and value is not None:
                value, reason = with_age(value, waited_ms, limits), f"the newest quote of {coin} is too old"
            told[f"{coin}.{part}"] = value
            if value is None:
                untold.append(_missing(f"{coin}.{part}", reason))
    return told, untold


def _value(overview: Overview, coin: str, part: str) -> tuple[Any, str]:
    """A part of a coin, or None and why."""
    values: Mapping[str, Any] = getattr(overview, ASKED_AS[part])
    problem = overview.problems.get(f"{coin}.{ASKED_AS[part]}")
    return values.get(coin), f"{QUOTE_SERVICE} told nothing of {coin}" if problem is None else problem.detail


def _of_shards(plan: ReportPlan, result: GatherResult[Any], answers: Mapping[str, ShardAnswer]) -> list[dict[str, str]]:
    """What the shards did not tell."""
    silent = [_missing(shard, result.branches[shard].reason) for shard in plan.shards if shard not in answers]
    return silent + [
        _missing(f"{coin}.{part}", answers[shard].absent.get(coin))
        for shard, coins in plan.shards.items()
        for coin in coins
        if shard in answers and coin not in answers[shard].views
        for part in plan.of_shards
    ]


def _missing(part: str, reason: str | None) -> dict[str, str]:
    return {"part": part, "reason": reason or ""}


def _coin(plan: ReportPlan, told: Mapping[str, Any], coin: str, view: ShardView | None) -> dict[str, Any]:
    """The parts that were asked for."""
    its: dict[str, Any] = {part: told.get(f"{coin}.{part}") for part in ("current", "average") if part in plan.parts}
    if "last_logs" in plan.parts:
        its["last_logs"] = None if view is None else [QuoteJson.of(quote) for quote in view.quotes]
    if plan.of_shards:
        its["through"] = None if view is None or view.through is None else str(view.through)
    if "window" in plan.parts:
        its["window"] = None if view is None or view.window is None else _window(plan.window, view, view.window)
    if "pending" in plan.parts:
        progress: Progress | None = told.get(f"{coin}.pending")
        its["pending"] = None if progress is None else progress.pending
    return its


def _window(window: Window, view: ShardView, its: WindowView) -> WindowJson:
    return WindowJson.of(window, its, closed=view.through_at is not None and view.through_at >= window.end)


def retold(report: Mapping[str, Any], later_ms: int, limits: AgeLimits) -> dict[str, Any] | None:
    """The report `later_ms` after it was made; None where one of its prices is none any more by then."""
    coins = dict(report["coins"])
    for coin, parts in coins.items():
        if (quote := parts.get("current")) is not None:
            if (older := with_age(quote, later_ms, limits)) is None:
                return None
            coins[coin] = parts | {"current": older}
    return {**report, "coins": coins}


def lasting(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a report is the same as long as there is nothing new to tell: no ages, no reasons, not how it went."""
    coins = {
        coin: parts if parts.get("current") is None else parts | {"current": parts["current"] | {"age_ms": 0}}
        for coin, parts in report["coins"].items()
    }
    return {"missing": [one["part"] for one in report["missing"]], "window": report.get("window"), "coins": coins}


def trace_of(result: GatherResult[Any]) -> list[dict[str, Any]]:
    """How each branch went, in the order of the plan; times in ms since the asking began."""
    return [
        {
            "branch": branch.name,
            "status": branch.status.value,
            "start_ms": round(branch.started_s * 1000, 1),
            "elapsed_ms": round(branch.elapsed_s * 1000, 1),
            "attempts": branch.attempts,
            "reason": branch.reason,
        }
        for branch in result.branches.values()
    ]


def _sources(plan: ReportPlan, result: GatherResult[Any]) -> dict[str, Branch[Any]]:
    asked = [QUOTE_SERVICE] if plan.of_quote_service else []
    return {name: result.branches[name] for name in (*asked, *plan.shards)}


def _source(branch: Branch[Any]) -> dict[str, Any]:
    """How one source did: ok if it answered, be it with a refusal; lagging if what it answered is old."""
    lags = isinstance(branch.value, ShardAnswer) and branch.value.lags
    return {"status": LAGGING if lags else _status(branch).value, "elapsed_ms": round(branch.elapsed_s * 1000)}


def _status(branch: Branch[Any]) -> BranchStatus:
    if _answered(branch):
        return BranchStatus.OK
    return BranchStatus.TIMED_OUT if isinstance(branch.error, TimedOutError) else branch.status


def _answered(branch: Branch[Any]) -> bool:
    """Whether the source spoke: "no quote yet" is an answer of a healthy service, "no time" and "a bug" are not."""
    if branch.status.is_good:
        return True
    return isinstance(branch.error, ProblemError) and not isinstance(branch.error, _NO_ANSWER)
