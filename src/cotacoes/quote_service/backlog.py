"""The backlog: quotes that are recorded and not yet on their shard, measured once a second for gauges and /readyz."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from cotacoes.model.quote import utc_now
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import Recorder


class Backlog:
    """See the head of this file."""

    def __init__(
        self,
        recorder: Recorder,
        deliveries: Mapping[str, Delivery],
        metrics: QuoteMetrics,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._recorder = recorder
        self._deliveries = deliveries
        self._metrics = metrics
        self._now = now
        self._waited_s: dict[str, float] = {}

    async def measure(self) -> None:
        """Measure how long each coin's oldest undelivered quote has waited; LogUnavailableError."""
        for coin, history in list(self._recorder.histories.items()):
            self._waited_s[coin] = await self._oldest_s(history)
            self._metrics.oldest_pending_age.labels(coin=coin).set(self._waited_s[coin])

    def held_on(self, shard: str) -> str | None:
        """Which coins of the shard are not delivered, since when and why; None if all are."""
        held = {
            coin: self._deliveries[coin].held
            for coin, history in self._recorder.histories.items()
            if history.shard == shard and self._deliveries[coin].held is not None
        }
        if not held:
            return None
        oldest = max(held, key=lambda coin: self._waited_s.get(coin, 0.0))
        others = f" and of {len(held) - 1} more coins" if len(held) > 1 else ""
        return (
            f"the delivery of {oldest}{others} is held: {held[oldest]}; "
            f"the oldest quote has waited {self._waited_s.get(oldest, 0.0):.0f} s"
        )

    async def _oldest_s(self, history: CoinHistory) -> float:
        """0 if no quote waits."""
        if not history.pending:
            return 0.0
        oldest = await self._recorder.log.oldest_undelivered(history.coin, history.delivered)
        return 0.0 if oldest is None else max(0.0, (self._now() - oldest).total_seconds())
