"""Shards that lag: they lack quotes that quote_service has delivered to them.

quote_service says how far each coin's shard has come (`through`, as the shard itself confirmed), and the shard says how
far it has come. A shard that has less answers from an old copy: a standby that is behind, or a restored backup. Its
answer is well formed, and old.

Both are asked at the same time, so quotes that were delivered between the two answers look like a lag. To find out, a
shard that seems to lag is asked again: its second answer holds what was delivered before it, unless the shard lags.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cotacoes.aggregator_service.plan import QUOTE_SERVICE, ReportPlan
from cotacoes.aggregator_service.shards import ReportShards, ShardAnswer
from cotacoes.model.quote import Position
from cotacoes.patterns.scatter_gather.gather import scatter_gather
from cotacoes.patterns.scatter_gather.gather_result import GatherResult
from cotacoes.web.overview import Overview


class Lag(NamedTuple):
    """The end of what a shard holds of a coin, and the end of what it has confirmed."""

    held: Position | None
    delivered: Position

    def words(self, shard: str) -> str:
        """How far the shard is behind."""
        held, delivered = self
        if held is None:
            return f"{shard} is behind: it has no quote, but {delivered} was delivered to it"
        count = delivered.seq - held.seq if held.epoch == delivered.epoch else 0
        by = f"{count} quote{'' if count == 1 else 's'} " if count else ""
        return f"{shard} is {by}behind: it ends with {held}, but {delivered} was delivered to it"


async def without_lagging(
    plan: ReportPlan,
    result: GatherResult[Any],
    shards: ReportShards,
    *,
    deadline_s: float,
    reserve_s: float,
    clock: Callable[[], float],
) -> GatherResult[Any]:
    """The result without the views of shards that lag, and lag again when they are asked a second time.

    A shard that does not answer the second question in time is believed.
    """
    values = result.values
    overview = values.get(QUOTE_SERVICE)
    left_s = deadline_s - result.elapsed_s
    if not isinstance(overview, Overview) or left_s <= reserve_s:
        return result
    answers: list[ShardAnswer] = [values[name] for name in plan.shards if name in values]
    held = {coin: view.through for answer in answers for coin, view in answer.views.items()}
    suspects = shards.homes(_lags(held, overview))
    if not suspects:
        return result
    again = await scatter_gather(
        {home: functools.partial(shards.ends, home, coins) for home, coins in suspects.items()},
        deadline=left_s,
        clock=clock,
        reserve=reserve_s,
    )
    reasons = {
        coin: lag.words(home) for home, ends in again.values.items() for coin, lag in _lags(ends, overview).items()
    }
    branches = dict(result.branches)
    for name, coins in plan.shards.items():
        if old := reasons.keys() & set(coins):
            branches[name] = branches[name]._replace(value=values[name].without(old, reasons))
    return dataclasses.replace(result, branches=branches, elapsed_s=result.elapsed_s + again.elapsed_s)


def _lags(held: Mapping[str, Position | None], overview: Overview) -> dict[str, Lag]:
    """The coins whose shard holds less than it has confirmed."""
    found = {}
    for coin, end in held.items():
        progress = overview.position.get(coin)
        if progress is None or progress.through is None:
            continue
        delivered = Position.parse(progress.through)
        if end is None or end < delivered:
            found[coin] = Lag(end, delivered)
    return found
