"""Shards that lag: that lack quotes which quote_service has delivered to them.

quote_service says how far each coin's shard has come (`through`, as the shard itself confirmed), and the shard says how
far it has come. A shard that has less answers from an old copy: a standby that is behind, a backup that was restored.
Its answer is well formed, and old.

Both are asked at the same time, so quotes that were delivered between the two answers look the same. That is settled
without guessing at a rate or a delay: a shard that seems to lag is asked again. What was delivered before that second
question is in its answer, unless it lags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from cotacoes.aggregator_service.plan import QUOTE_SERVICE, ReportPlan
from cotacoes.aggregator_service.report import ShardAnswer
from cotacoes.client import Overview
from cotacoes.model.quote import Position
from cotacoes.patterns.scatter_gather.gather_result import GatherResult


class Lag(NamedTuple):
    """What a shard has of a coin, and what it has been sent and has confirmed."""

    held: Position | None
    delivered: Position

    def words(self, shard: str) -> str:
        """How far it is behind."""
        held, delivered = self.held, self.delivered
        if held is None:
            return f"{shard} is behind: it has no quote, but {delivered} was delivered to it"
        count = delivered.seq - held.seq if held.epoch == delivered.epoch else 0
        by = f"{count} quote{'' if count == 1 else 's'} " if count else ""
        return f"{shard} is {by}behind: it ends with {held}, but {delivered} was delivered to it"


def lags(plan: ReportPlan, result: GatherResult[Any]) -> dict[str, Lag]:
    """The coins of which a shard told less than quote_service says it has; none if one of the two is not known."""
    overview = result.values.get(QUOTE_SERVICE)
    if not isinstance(overview, Overview):
        return {}
    held = {
        coin: view.through
        for shard in plan.shards
        for coin, view in result.values.get(shard, ShardAnswer()).views.items()
    }
    return lagging(held, overview)


def lagging(held: Mapping[str, Position | None], overview: Overview) -> dict[str, Lag]:
    """Those of these coins, of which a shard holds so much, that lag."""
    found = {}
    for coin, through in held.items():
        progress = overview.position.get(coin)
        if progress is None or progress.through is None:
            continue
        delivered = Position.parse(progress.through)
        if through is None or through < delivered:
            found[coin] = Lag(through, delivered)
    return found


def without(plan: ReportPlan, result: GatherResult[Any], reasons: Mapping[str, str]) -> GatherResult[Any]:
    """The result without what shards told of these coins, each with the reason why not."""
    branches = dict(result.branches)
    for shard, coins in plan.shards.items():
        if old := reasons.keys() & set(coins):
            branches[shard] = branches[shard]._replace(value=result.values[shard].without(old, reasons))
    return dataclasses.replace(result, branches=branches)
