"""What quote_service does once a second besides recording: missing epochs, gauges, currencies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cotacoes.errors import LogUnavailableError
from cotacoes.model.quote import utc_now
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.clock import ClockWatch
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import Recorder

INTERVAL_S = 1.0


async def maintain(
    recorder: Recorder,
    deliveries: Mapping[str, Delivery],
    metrics: QuoteMetrics,
    clock: ClockWatch,
) -> None:
    """Begin the epochs that could not begin yet and set the gauges, once a second until cancelled."""
    while True:
        clock.compare(recorder.histories.values())
        try:
            await recorder.begin_missing_epochs()
            metrics.log_size.set(await recorder.log.size_bytes())
            for delivery in list(deliveries.values()):
                await delivery.measure(utc_now())
        except LogUnavailableError:
            metrics.log_size.set(float("nan"))  # unknown; the failure is logged already
        for coin, history in recorder.histories.items():
            metrics.quotes_pending.labels(coin=coin).set(history.pending)
            if history.epoch is not None and history.fence is None:
                deliveries[coin].wake()
        await asyncio.sleep(INTERVAL_S)


async def learn_currencies(directory: ShardDirectory, histories: Mapping[str, CoinHistory]) -> None:
    """Write the currency of each coin that has a quote to the directory, until cancelled."""
    while True:
        await directory.learn({coin: one.newest.currency for coin, one in histories.items() if one.newest is not None})
        await asyncio.sleep(INTERVAL_S)
