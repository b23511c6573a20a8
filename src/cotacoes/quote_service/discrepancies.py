"""Holes and orphans that are not accepted yet: every shard is asked for them now and then, for metrics and /readyz.

The service can answer in spite of them, so the check is not required. The last answer of a shard counts while it is
away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cotacoes.errors import ShardUnavailableError
from cotacoes.model.listing import listed
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.sharding.shard import Unaccepted
from cotacoes.patterns.sharding.shard_directory import ShardDirectory

ASK_INTERVAL_S = 10.0
NAMED_COINS_MAX = 5


class DiscrepancyWatch:
    """See the head of this file; `run` is its task."""

    def __init__(self, directory: ShardDirectory, metrics: QuoteMetrics) -> None:
        self._directory = directory
        self._metrics = metrics
        self._by_shard: dict[str, Mapping[str, Unaccepted]] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_INTERVAL_S)

    async def ask(self) -> None:
        """Ask every shard once."""
        before = set(self._counts())
        for name, shard in list(self._directory.shards.items()):
            try:
                self._by_shard[name] = await shard.unaccepted()
            except ShardUnavailableError:
                continue
        counts = self._counts()
        for coin in before | set(counts):
            count = counts.get(coin, Unaccepted(0, 0))
            self._metrics.holes_unaccepted.labels(coin=coin).set(count.holes)
            self._metrics.orphans_unaccepted.labels(coin=coin).set(count.orphans)

    async def check(self) -> str | None:
        """The discrepancies in words, for /readyz; None if there are none."""
        counts = self._counts()
        if not counts:
            return None
        named = [f"{coin} {count.holes} holes, {count.orphans} orphans" for coin, count in sorted(counts.items())]
        return f"not accepted: {listed(named, NAMED_COINS_MAX, '; ')} (`cotacoes ledger list`)"

    def _counts(self) -> dict[str, Unaccepted]:
        return {coin: count for counts in self._by_shard.values() for coin, count in counts.items()}
