"""Delivery: each coin's quotes from the log to its shard, in order, one batch in flight, sent until answered.

Hands on to the `Publisher` (publisher.py): each answer of the shard releases the quotes that wait for it.

There is one path. A healthy shard and a dead one differ only in how far delivery has come. A coin that has moved is
followed; while its fence is closed its quotes wait in the log. A backlog of more than one batch is sent at a pace, so
that a shard that comes back is not drowned, and its readers with it.

A quote is delivered when the shard answers for that quote: stored, there already, or kept aside. One that the shard
refuses, because its history went on without it, is an orphan there, and is counted as refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random

from cotacoes.errors import (
    CoinMovedError,
    FenceClosedError,
    LogUnavailableError,
    ShardRewoundError,
    ShardUnavailableError,
    WriterSupersededError,
)
from cotacoes.model.quote import Quote
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.sharding.shard import Fence, Shard, Stored
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.batch_limit import BatchLimit
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recorder import Recorder

RETRY_WAIT_S = 0.1
RETRY_WAIT_MAX_S = 2.0


class Pace:
    """How fast backlogs are sent to each shard, all coins together; `rate` is quotes per second."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at: dict[str, float] = {}

    async def acquire(self, shard: str, quotes: int) -> None:
        """Return when so many quotes may be sent."""
        now = self._clock()
        begins = max(now, self._free_at.get(shard, now))
        self._free_at[shard] = begins + quotes / self._rate
        if begins > now:
            await asyncio.sleep(begins - now)


class Delivery:
    """One coin's delivery; `run` is its task. `pace` is shared by all coins."""

    def __init__(
        self,
        history: CoinHistory,
        *,
        directory: ShardDirectory,
        recorder: Recorder,
        publisher: Publisher,
        metrics: QuoteMetrics,
        pace: Pace,
        shard_deadline_s: float,
        random: Random,
        retry_s: float = RETRY_WAIT_S,
        retry_max_s: float = RETRY_WAIT_MAX_S,
    ) -> None:
        self._history = history
        self._retry_s = retry_s
        self._retry_max_s = retry_max_s
        self._directory = directory
        self._recorder = recorder
        self._publisher = publisher
        self._metrics = metrics
        self._pace = pace
        self.limit = BatchLimit(shard_deadline_s)
        self._random = random
        self._recorded = asyncio.Event()
        self.held: str | None = None  # why pending quotes are not delivered just now
        self.waited_s = 0.0  # by the oldest pending quote, when it was last measured
        self._wait_s = self._retry_s

    @property
    def shard(self) -> str:
        """The name of the coin's shard."""
        return self._history.shard

    async def measure(self, now: datetime) -> None:
        """Measure how long the oldest pending quote has waited at `now`; LogUnavailableError."""
        history = self._history
        oldest = None
        if history.pending:
            oldest = await self._recorder.log.oldest_undelivered(history.coin, history.delivered)
        self.waited_s = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
        self._metrics.oldest_pending_age.labels(coin=history.coin).set(self.waited_s)

    def wake(self) -> None:
        """There is a quote to deliver, or a fence to ask for."""
        self._recorded.set()

    async def run(self) -> None:
        """Deliver until cancelled, or until a newer writer has taken the coin over."""
        while True:
            self._recorded.clear()
            try:
                await self._deliver_pending()
            except WriterSupersededError as error:
                self._recorder.writer.stand_down(self._history.coin, error)
                return
            except CoinMovedError as error:
                self._history.forget_fence()
                if not await self._directory.follow(self._history.coin, error, self._history.shard):
                    await self._back_off(str(error))
                continue
            except (ShardUnavailableError, FenceClosedError, ShardRewoundError, LogUnavailableError) as error:
                await self._back_off(str(error))
                continue
            except Exception as error:
                self._history.forget_fence()
                self.held = f"{type(error).__name__}; see the log of quote_service"
                raise
            await self._recorded.wait()

    async def _deliver_pending(self) -> None:
        shard = self._directory.shard_of(self._history.coin)
        self._history.note_shard(shard.name)
        while await self._deliver_batch(shard):
            pass
        self._note_answer()

    async def _deliver_batch(self, shard: Shard) -> bool:
        """Send the next batch; whether there was one."""
        history = self._history
        if history.pending > self.limit.quotes:
            await self._pace.acquire(history.shard, self.limit.quotes)
        async with history.turn:
            if history.writer_epoch is None:
                return False
            if history.fence is None:
                fence = await shard.become_writer(history.coin, history.writer_epoch, self._recorder.writer.name)
                await self._recorder.note_writer(history, fence)
            if not history.pending or history.fence is None:
                return False
            batch = history.tail_batch(self.limit.quotes)
            if batch is None:
                batch = await self._recorder.log.after(history.coin, history.delivered, self.limit.quotes)
            if not batch:
                history.note_delivered([])
                return False
            await self._send(shard, batch, history.fence)
        self._note_answer()
        self._publisher.on_delivered()
        return True

    async def _send(self, shard: Shard, batch: Sequence[Quote], fence: Fence) -> None:
        """Have a batch stored; ShardUnavailableError unless the shard accounts for each quote of it."""
        history = self._history
        with self.limit.measured(len(batch)):
            stored = await shard.append(history.coin, fence.placement, fence.writer_epoch, batch, end=history.end)
        if sum(stored) != len(batch):
            raise ShardUnavailableError(f"{shard.name} accounts for {sum(stored)} of {len(batch)} quotes")
        if (behind := history.hole_before(batch)) is not None:
            # the shard has lost quotes that it had answered for, and the log no longer has them
            get_logger().error(
                "shard.gapped", coin=history.coin, after=str(history.end or "none"), next=str(behind.position)
            )
        history.note_delivered(batch)
        self._note_stored(batch, stored)

    def _note_stored(self, batch: Sequence[Quote], stored: Stored) -> None:
        coin, shard = self._history.coin, self._history.shard
        self._metrics.quotes_delivered.labels(coin=coin).inc(stored.held)
        self._metrics.last_delivered.labels(coin=coin).set(batch[-1].at.timestamp())
        if stored.conflicts:
            self._metrics.position_conflicts.labels(coin=coin).inc(stored.conflicts)
            get_logger().error("quote.conflicted", coin=coin, count=stored.conflicts, shard=shard)
        if stored.refused:
            self._metrics.quotes_orphaned.labels(coin=coin).inc(stored.refused)
            first, last = str(batch[0].position), str(batch[-1].position)
            get_logger().error("quote.orphaned", coin=coin, count=stored.refused, shard=shard, first=first, last=last)

    def _note_answer(self) -> None:
        self._wait_s = self._retry_s
        if self.held is not None:
            self.held = None
            get_logger().info("delivery.resumed", coin=self._history.coin, shard=self._history.shard)

    async def _back_off(self, reason: str) -> None:
        self._metrics.deliveries_failed.labels(coin=self._history.coin).inc()
        self._history.forget_fence()
        if self.held is None:
            get_logger().warning("delivery.held", coin=self._history.coin, shard=self._history.shard, reason=reason)
        self.held = reason
        await asyncio.sleep(self._random.uniform(0.5, 1.0) * self._wait_s)
        self._wait_s = min(self._retry_max_s, 2 * self._wait_s)
