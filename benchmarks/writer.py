"""The writer of the `log` and `move` figures: quote_service's own recorder, delivery and publisher, without the rest.

What is left out is the poll of a source, and the HTTP routes. `Writing` is one coin's writer over two shards.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cotacoes.adapters.postgres.shard import open_directory
from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.trim import Retention
from cotacoes.config import Settings
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.delivery import Delivery, Pace
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.writer import Writer

COIN = "bitcoin"
FOLDER = "quote_service"
UNBOUND_QUOTES_PER_S = 1e9  # the pace that spares a shard while it catches up, out of reach


@dataclass(frozen=True)
class Writing:
    """What stands open while a writer runs; `publisher` has no task yet, and none is needed where nobody listens."""

    directory: ShardDirectory
    history: CoinHistory
    recorder: Recorder
    delivery: Delivery
    publisher: Publisher


@contextlib.asynccontextmanager
async def writing(settings: Settings, bus: Bus) -> AsyncIterator[Writing]:
    """A writer of the coin, its log open; nothing is delivered until `Delivery.run`."""
    history = CoinHistory(COIN, settings.seed_placement[COIN])
    metrics = QuoteMetrics(Metrics())
    folder = settings.data / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(lambda: None)
    publisher = Publisher({COIN: history}, bus, writer=writer, metrics=metrics, wait_s=settings.publish_wait_ms / 1000)
    async with open_directory(settings, FOLDER, deadline_s=settings.shard_deadline_s) as directory:
        recorder = Recorder(
            functools.partial(
                QuoteLog,
                folder,
                quota_bytes=settings.log_quota_bytes,
                retention=Retention(seconds=settings.log_kept_s),
            ),
            directory,
            writer=writer,
            metrics=metrics,
        )
        recorder.histories[COIN] = history
        await recorder.start()
        delivery = Delivery(
            history,
            directory=directory,
            recorder=recorder,
            publisher=publisher,
            metrics=metrics,
            pace=Pace(UNBOUND_QUOTES_PER_S),
            shard_deadline_s=settings.shard_deadline_s,
            random=random.Random(1),
        )
        try:
            yield Writing(directory, history, recorder, delivery, publisher)
        finally:
            await recorder.close()


@contextlib.asynccontextmanager
async def background(*work: Awaitable[Any]) -> AsyncIterator[None]:
    """Run these until the context ends; what fails meanwhile is raised there."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TimedBus:
    """A bus that tells when its publishes were answered. `on_published` gets the payloads of each publish."""

    def __init__(self, bus: Bus, on_published: Callable[[Sequence[bytes]], None]) -> None:
        self._bus = bus
        self._on_published = on_published
        self.subscribe = bus.subscribe
        self.ping = bus.ping

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        heard = await self._bus.publish(messages)
        self._on_published([payload for _, payload in messages])
        return heard


def _now() -> datetime:
    return datetime.now(UTC)
