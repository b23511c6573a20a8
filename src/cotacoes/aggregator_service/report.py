"""The report: who is asked for what, and one honest answer made of whatever came back.

Pure. A plan names every question before one is asked; a merge names every question that went without an answer:

    question                asked of            goes to                       missing part, where it failed
    bitcoin.current         quote_service       coins.bitcoin.current         bitcoin.current
    bitcoin.average         quote_service       coins.bitcoin.average         bitcoin.average
    positions               quote_service       coins.*.pending               pending
    shard1                  shard1              coins.*.last_logs, through,   shard1, or bitcoin.last_logs and
                                                window                        bitcoin.window alone

Where quote_service answered nothing at all, it is one missing part and not one for each question. What is missing is
null, never an empty list and never an old value. Coins, parts and sources come in the order of the settings.

A price is as old as it is when the report is made, and not as when quote_service answered: a frozen shard may have
been waited for since. A report that is told again later is told with the ages of then (`retold`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cotacoes.client import Progress, aged
from cotacoes.errors import (
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ProblemError,
    ServiceUnavailableError,
    ShardUnavailableError,
    TimedOutError,
)
from cotacoes.patterns.gather_result import Branch, GatherResult, Status
from cotacoes.patterns.sharding import ShardView
from cotacoes.quote import AgeLimits, QuoteJson, format_time
from cotacoes.window import Window, WindowJson, WindowView, window_json

LAST_LOGS = 10
PARTS = ("current", "average", "last_logs", "window", "pending")
QUOTE_SERVICE = "quote_service"
POSITIONS = "positions"
_NO_ANSWER = (DeadlineExceededError, InternalError, OverloadedError, ServiceUnavailableError, ShardUnavailableError)


@dataclass(frozen=True)
class Plan:
    """`placement` says on which shard each coin lives; of each, `parts` are asked for.

    `last` is how many of its logs, `window` over which time its figures are.
    """

    placement: Mapping[str, str]
    window: Window
    parts: Sequence[str] = PARTS
    last: int = LAST_LOGS

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The same for those who ask the same."""
        return (*self.placement.items(), *self.parts, self.last, self.window)

    @property
    def of_shards(self) -> list[str]:
        """The parts of a coin that its shard is asked for."""
        return [part for part in ("last_logs", "window") if part in self.parts]

    @property
    def shards(self) -> dict[str, list[str]]:
        """Each shard that is asked, with its coins."""
        coins: dict[str, list[str]] = {}
        if not self.of_shards:
            return coins
        for coin, shard in sorted(self.placement.items(), key=lambda item: item[1]):
            coins.setdefault(shard, []).append(coin)
        return coins

    @property
    def questions(self) -> list[str]:
        """What quote_service is asked."""
        of_coin = [name for part, name in (("current", current), ("average", average)) if part in self.parts]
        asked = [name(coin) for coin in self.placement for name in of_coin]
        return [*asked, POSITIONS] if "pending" in self.parts else asked


def current(coin: str) -> str:
    """The part that is the coin's current quote."""
    return f"{coin}.current"


def average(coin: str) -> str:
    """The part that is the mean of the coin's last ten."""
    return f"{coin}.average"


@dataclass(frozen=True)
class ShardAnswer:
    """What a shard's branch brought: what there is of each coin, and of each coin that is absent why it is."""

    views: Mapping[str, ShardView] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def merge(
    plan: Plan, result: GatherResult[Any], limits: AgeLimits, *, generated_at: datetime, deadline_s: float
) -> dict[str, Any]:
    """The body of `/report/full`."""
    values = result.values
    missing = _missing(plan, result, values)
    for coin in plan.placement:
        if (quote := values.get(current(coin))) is not None:
            waited_ms = math.ceil((result.elapsed_s - result.branches[current(coin)].started_s) * 1000)
            values[current(coin)] = aged(quote, waited_ms, limits)
            if values[current(coin)] is None:
                missing.append({"part": current(coin), "reason": f"the newest quote of {coin} is too old"})
    progress: Mapping[str, Progress] = values.get(POSITIONS, {})
    return {
        "generated_at": format_time(generated_at),
        "deadline_ms": round(deadline_s * 1000),
        "elapsed_ms": round(result.elapsed_s * 1000),
        "complete": not missing,
        "missing": missing,
        **({"window": window_json(plan.window)} if "window" in plan.parts else {}),
        "coins": {coin: _coin(plan, values, coin, progress.get(coin)) for coin in plan.placement},
        "sources": {name: _source(branches) for name, branches in _sources(plan, result).items()},
    }


def _coin(plan: Plan, values: Mapping[str, Any], coin: str, progress: Progress | None) -> dict[str, Any]:
    """The parts that were asked for."""
    answer: ShardAnswer = values.get(plan.placement[coin], ShardAnswer())
    view = answer.views.get(coin)
    told: dict[str, Any] = {}
    if "current" in plan.parts:
        told["current"] = values.get(current(coin))
    if "average" in plan.parts:
        told["average"] = values.get(average(coin))
    if "last_logs" in plan.parts:
        told["last_logs"] = None if view is None else [QuoteJson.of(quote) for quote in view.quotes]
    if plan.of_shards:
        told["through"] = None if view is None or view.through is None else str(view.through)
    if "window" in plan.parts:
        told["window"] = None if view is None or view.window is None else _window(plan.window, view, view.window)
    if "pending" in plan.parts:
        told["pending"] = None if progress is None else progress.pending
    return told


def _window(window: Window, view: ShardView, its: WindowView) -> WindowJson:
    return WindowJson.of(window, its, closed=view.through_at is not None and view.through_at >= window.end)


def retold(report: Mapping[str, Any], later_ms: int, limits: AgeLimits) -> dict[str, Any] | None:
    """The report `later_ms` after it was made; None where one of its prices is none any more by then."""
    coins = dict(report["coins"])
    for coin, parts in coins.items():
        if (quote := parts.get("current")) is not None:
            if (older := aged(quote, later_ms, limits)) is None:
                return None
            coins[coin] = parts | {"current": older}
    return {**report, "coins": coins}


def lasting(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a report is the same as long as there is nothing new to tell: all but ages, and how it went to get it."""
    coins = {
        coin: parts if parts.get("current") is None else parts | {"current": parts["current"] | {"age_ms": 0}}
        for coin, parts in report["coins"].items()
    }
    return {"missing": report["missing"], "window": report.get("window"), "coins": coins}


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


def _sources(plan: Plan, result: GatherResult[Any]) -> dict[str, list[Branch[Any]]]:
    questions = [result.branches[name] for name in plan.questions]
    asked = {QUOTE_SERVICE: questions} if questions else {}
    return {**asked, **{shard: [result.branches[shard]] for shard in plan.shards}}


def _source(branches: Sequence[Branch[Any]]) -> dict[str, Any]:
    """How one source did: ok where it answered every question, be it with a refusal; else as its worst branch did."""
    worst = max((_status(branch) for branch in branches), key=list(Status).index)
    return {"status": worst.value, "elapsed_ms": round(max(branch.elapsed_s for branch in branches) * 1000)}


def _status(branch: Branch[Any]) -> Status:
    if _answered(branch):
        return Status.OK
    return Status.TIMED_OUT if isinstance(branch.error, TimedOutError) else branch.status


def _answered(branch: Branch[Any]) -> bool:
    """Whether the source spoke: "no quote yet" is an answer of a healthy service, "no time" and "a bug" are not."""
    if branch.status.is_good:
        return True
    return isinstance(branch.error, ProblemError) and not isinstance(branch.error, _NO_ANSWER)


def _missing(plan: Plan, result: GatherResult[Any], values: Mapping[str, Any]) -> list[dict[str, str]]:
    questions = [result.branches[name] for name in plan.questions]
    if questions and not any(_answered(branch) for branch in questions):
        parts = [(QUOTE_SERVICE, questions[0])]
    else:
        parts = [("pending" if branch.name == POSITIONS else branch.name, branch) for branch in questions]
    parts += [(shard, result.branches[shard]) for shard in plan.shards]
    missing = [{"part": part, "reason": branch.reason or ""} for part, branch in parts if not branch.status.is_good]
    return missing + [
        {"part": f"{coin}.{part}", "reason": values[shard].absent[coin]}
        for shard, coins in plan.shards.items()
        for coin in coins
        if shard in values and coin not in values[shard].views
        for part in plan.of_shards
    ]
