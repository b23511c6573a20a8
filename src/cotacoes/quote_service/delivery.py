"""Delivery: each coin's quotes from the log to its shard, in order, one batch in flight, sent until answered.

There is one path. A healthy shard and a dead one differ only in how far delivery has come. A coin that has moved is
followed; while its fence is closed its quotes wait in the log. A backlog of more than one batch is sent at a pace, so
that a shard that comes back is not drowned, and its readers with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from cotacoes.adapters.shard_directory import ShardDirectory
from cotacoes.errors import (
    CoinMovedError,
    FenceClosedError,
    LogUnavailableError,
    ShardUnavailableError,
    WriterSupersededError,
)
from cotacoes.patterns.sharding import Shard, Stored
from cotacoes.quote import Quote
from cotacoes.quote_service.batch_limit import BatchLimit
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import Recorder
from cotacoes.telemetry import QuoteMetrics, get_logger

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
        writer: str,
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
        self._writer = writer
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
            except (ShardUnavailableError, FenceClosedError, LogUnavailableError) as error:
                await self._back_off(str(error))
                continue
            await self._recorded.wait()

    async def _deliver_pending(self) -> None:
        history = self._history
        shard = self._directory.shard_of(history.coin)
        history.shard = shard.name
        while True:
            if history.epoch is not None and history.fence is None:
                await self._become_writer(shard, history.epoch)
            fence, epoch = history.fence, history.epoch
            if not history.pending or fence is None or epoch is None:
                break
            batch = history.tail_batch(self.limit.quotes)
            if batch is None:
                batch = await self._recorder.log.after(history.coin, history.delivered, self.limit.quotes)
                if history.fence is not fence or history.epoch != epoch:
                    continue  # another era began meanwhile: first become its writer
            if not batch:
                history.pending = 0
                break
            if history.delivered is not None and batch[0].before != history.delivered:
                # the shard has lost what it had answered for, and the log has not got it any more
                get_logger().error(
                    "shard.gapped", coin=history.coin, after=str(history.delivered), next=str(batch[0].position)
                )
            if len(batch) < history.pending:
                await self._pace.take(history.shard, len(batch))
            with self.limit.measured(len(batch)):
                stored = await shard.append(history.coin, fence.placement, epoch, batch)
            history.note_delivered(batch)
            self._note_stored(batch, stored)
            self._note_answer()
            self._on_delivered(history)
        self._note_answer()

    async def _become_writer(self, shard: Shard, epoch: int) -> None:
        history = self._history
        fence = await shard.become_writer(history.coin, epoch, self._writer)
        pending = await self._recorder.log.count_after(history.coin, history.resume_from(fence))
        if history.epoch == epoch:  # else the log was opened anew meanwhile, and another era began
            history.note_writer(fence, pending)

    def _note_stored(self, batch: Sequence[Quote], stored: Stored) -> None:
        coin = self._history.coin
        self._metrics.delivered.labels(coin=coin).inc(len(batch))
        self._metrics.delivered_through.labels(coin=coin).set(batch[-1].at.timestamp())
        if stored.conflicts:
            self._metrics.conflicts.labels(coin=coin).inc(stored.conflicts)
            get_logger().error("quote.conflicted", coin=coin, count=stored.conflicts, shard=self._history.shard)

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
