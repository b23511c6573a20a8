"""Delivery: each coin's quotes from the log to its shard, in order, one batch in flight, sent until answered.

There is one path. A healthy shard and a dead one differ only in how far delivery has come. A coin that has moved is
followed; while its fence is closed its quotes wait in the log. A backlog of more than one batch is sent at a pace, so
that a shard that comes back is not drowned, and its readers with it.

A quote is delivered when the shard says so of that quote: stored, there already, or kept aside. What it refuses because
its history had gone on without it is an orphan there, and counted as refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
from cotacoes.quote_service.recorder import Recorder

RETRY_WAIT_S = 0.1
RETRY_WAIT_MAX_S = 2.0


class Pace:
    """How fast a backlog is sent to one shard, all coins together; `rate` is quotes per second."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at: dict[str, float] = {}

    async def take(self, shard: str, quotes: int) -> None:
        """Return when so many quotes may be sent."""
        now = self._clock()
        begins = max(now, self._free_at.get(shard, now))
        self._free_at[shard] = begins + quotes / self._rate
        if begins > now:
            await asyncio.sleep(begins - now)


class Delivery:
    """One coin's delivery; `run` is its task. `wake` is called when a quote of the coin was recorded."""

    def __init__(
        self,
        history: CoinHistory,
        directory: ShardDirectory,
        recorder: Recorder,
        metrics: QuoteMetrics,
        *,
        pace: Pace,
        limit: BatchLimit,
        random: Random,
        on_delivered: Callable[[CoinHistory], None],
        on_superseded: Callable[[], None],
    ) -> None:
        self._history = history
        self._directory = directory
        self._recorder = recorder
        self._metrics = metrics
        self._pace = pace
        self.limit = limit
        self._random = random
        self._on_delivered = on_delivered
        self._on_superseded = on_superseded
        self._recorded = asyncio.Event()
        self.held: str | None = None  # why what is pending is not delivered just now
        self._wait_s = RETRY_WAIT_S

    def wake(self) -> None:
        """There is something to deliver, or an era to announce."""
        self._recorded.set()

    async def run(self) -> None:
        """Deliver until cancelled, or until a newer writer has taken the coin over."""
        while True:
            self._recorded.clear()
            try:
                await self._deliver_pending()
            except WriterSupersededError as error:
                get_logger().error("writer.superseded", coin=self._history.coin, reason=str(error))
                self._on_superseded()
                return
            except CoinMovedError as error:
                self._history.fence = None
                if not await self._directory.follow(self._history.coin, error, self._history.shard):
                    await self._back_off(str(error))
                continue
            except (ShardUnavailableError, FenceClosedError, ShardRewoundError, LogUnavailableError) as error:
                await self._back_off(str(error))
                continue
            except Exception as error:
                self._history.fence = None  # the next attempt first asks the shard how far it has come
                self.held = f"{type(error).__name__}, which the log of quote_service explains"
                raise
            await self._recorded.wait()

    async def _deliver_pending(self) -> None:
        shard = self._directory.shard_of(self._history.coin)
        self._history.shard = shard.name
        while await self._deliver_batch(shard):
            pass
        self._note_answer()

    async def _deliver_batch(self, shard: Shard) -> bool:
        """Send the next batch; whether there was one."""
        history = self._history
        if history.pending > self.limit.quotes:
            await self._pace.take(history.shard, self.limit.quotes)
        async with history.turn:
            if history.writer_epoch is None:
                return False
            if history.fence is None:
                fence = await shard.become_writer(history.coin, history.writer_epoch, self._recorder.writer)
                await self._recorder.note_writer(history, fence)
            if not history.pending or history.fence is None:
                return False
            batch = history.tail_batch(self.limit.quotes)
            if batch is None:
                batch = await self._recorder.log.after(history.coin, history.delivered, self.limit.quotes)
            if not batch:
                history.pending = 0
                return False
            await self._send(shard, batch, history.fence)
        self._note_answer()
        self._on_delivered(history)
        return True

    async def _send(self, shard: Shard, batch: Sequence[Quote], fence: Fence) -> None:
        """Have a batch stored; ShardUnavailableError unless the shard accounts for each quote of it."""
        history = self._history
        with self.limit.measured(len(batch)):
            stored = await shard.append(history.coin, fence.placement, fence.writer_epoch, batch, end=history.end)
        if sum(stored) != len(batch):
            raise ShardUnavailableError(f"{shard.name} accounts for {sum(stored)} of {len(batch)} quotes")
        if (behind := history.hole_before(batch)) is not None:
            # the shard has lost what it had answered for, and the log does not have it any more
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
        self._wait_s = RETRY_WAIT_S
        if self.held is not None:
            self.held = None
            get_logger().info("delivery.resumed", coin=self._history.coin, shard=self._history.shard)

    async def _back_off(self, reason: str) -> None:
        self._metrics.deliveries_failed.labels(coin=self._history.coin).inc()
        self._history.fence = None  # whoever comes back is asked first how far it has come
        if self.held is None:
            get_logger().warning("delivery.held", coin=self._history.coin, shard=self._history.shard, reason=reason)
        self.held = reason
        await asyncio.sleep(self._random.uniform(0.5, 1.0) * self._wait_s)
        self._wait_s = min(RETRY_WAIT_MAX_S, 2 * self._wait_s)
