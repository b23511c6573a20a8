"""Recording: the log opened, eras begun, quotes committed; and all of it again after the log has failed.

No log, no new quote. When a commit fails, or may have failed, the log is closed and opened anew: what it then holds has
happened, and a new era begins, so that no position can be given twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cotacoes.adapters.quote_log import Mark, QuoteLog
from cotacoes.errors import LogUnavailableError, SettingError, ShardRefusedError, ShardUnavailableError
from cotacoes.patterns.sharding import Fence, Shard
from cotacoes.quote import Observation, Quote, to_microseconds
from cotacoes.quote_service.history import CoinHistory
from cotacoes.telemetry import QuoteMetrics, get_logger

AHEAD_MAX = timedelta(seconds=60)
REOPEN_WAIT_S = 1.0
REOPEN_WAIT_MAX_S = 10.0


class Recorder:
    """Gives positions and commits quotes; `failure` is the reason in words while the log can not be written."""

    def __init__(
        self,
        folder: Path,
        histories: Mapping[str, CoinHistory],
        shards: Mapping[str, Shard],
        metrics: QuoteMetrics,
        *,
        quota_bytes: int,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self.histories = histories
        self.failure: str | None = None
        self._folder = folder
        self._quota_bytes = quota_bytes
        self.log = QuoteLog(folder, quota_bytes=quota_bytes)
        self._shards = shards
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._open = False
        self._reopen_at = 0.0
        self._reopen_wait_s = REOPEN_WAIT_S

    async def start(self) -> None:
        """Open the log, ask the shards, begin eras where possible; SettingError where what is stored lies ahead."""
        try:
            await self._open_log()
        except LogUnavailableError as error:
            self._note_failure(error)
        await self.begin_missing_eras()

    async def record(self, observations: Iterable[Observation]) -> list[Quote]:
        """Commit one quote per observation, all or none; the quotes, at their positions. LogUnavailableError if not.

        A coin without an era gives no quote: it waits for `begin_missing_eras`.
        """
        if not self._open:
            await self._reopen()
        now = self._now()
        quotes = [
            self.histories[observation.coin].draft(observation, now)
            for observation in observations
            if self.histories[observation.coin].can_draft
        ]
        if not quotes:
            return []
        await self._on_log(self.log.append(quotes, self._marks()))
        for quote in quotes:
            self.histories[quote.coin].note_recorded(quote)
        if self.failure is not None:
            self.failure = None
            self._reopen_wait_s = REOPEN_WAIT_S
            get_logger().info("log.recovered")
        return quotes

    async def begin_missing_eras(self) -> None:
        """Begin an era for each coin that has none (or has used its last position up)."""
        if not self._open:
            return
        without = [history for history in self.histories.values() if not history.can_draft]
        fences = await asyncio.gather(*(self._ask_shard(history) for history in without))
        for history, fence in zip(without, fences, strict=True):
            if fence is not None:
                history.meet(fence)
            self._refuse_future(history)
            if fence is None and not history.has_local_state:
                continue  # a position might be one that was given before
            now_ms = to_microseconds(self._now()) // 1000
            epoch = history.next_epoch(now_ms)
            await self._on_log(self.log.begin_era(history.coin, epoch))
            history.begin_era(epoch)
            get_logger().info("era.began", coin=history.coin, epoch=epoch, prev=str(history.prev or "none"))

    async def close(self) -> None:
        """Write how far delivery has come, and close the log."""
        if self._open:
            try:
                await self.log.mark(self._marks())
            except LogUnavailableError as error:
                get_logger().warning("log.failed", reason=error.detail)
        await self.log.close()

    async def _ask_shard(self, history: CoinHistory) -> Fence | None:
        try:
            return await self._shards[history.shard].fence(history.coin)
        except (ShardUnavailableError, ShardRefusedError):
            return None

    def _refuse_future(self, history: CoinHistory) -> None:
        if history.newest is not None and history.newest.at > self._now() + AHEAD_MAX:
            raise SettingError(
                f"the newest stored quote of {history.coin} ({history.newest.position}) is of {history.newest.at}, "
                f"more than {AHEAD_MAX.seconds} s ahead of this machine's clock: set the clock right"
            )

    def _marks(self) -> dict[str, Mark]:
        return {coin: history.mark() for coin, history in self.histories.items()}

    async def _open_log(self) -> None:
        logged = await self.log.open()
        for coin, history in self.histories.items():
            if coin in logged:
                pending = await self.log.count_after(coin, logged[coin].delivered)
                history.load(logged[coin], pending)
        self._open = True

    async def _reopen(self) -> None:
        if self._clock() < self._reopen_at:
            raise LogUnavailableError(f"the log can not be written: {self.failure}")
        self._reopen_at = self._clock() + self._reopen_wait_s
        self._reopen_wait_s = min(REOPEN_WAIT_MAX_S, 2 * self._reopen_wait_s)
        await self.log.close()
        self.log = QuoteLog(self._folder, quota_bytes=self._quota_bytes)
        await self._on_log(self._open_log())
        await self.begin_missing_eras()

    async def _on_log(self, work: Awaitable[None]) -> None:
        try:
            await work
        except LogUnavailableError as error:
            self._note_failure(error)
            raise

    def _note_failure(self, error: LogUnavailableError) -> None:
        self._metrics.log_failures.inc()
        if self._open or self.failure != error.detail:
            get_logger().error("log.failed", reason=error.detail)
        self._open = False
        self.failure = error.detail
        for history in self.histories.values():
            history.epoch = None
