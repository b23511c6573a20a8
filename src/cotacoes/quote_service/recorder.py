"""Recording: opens the log, begins epochs, commits quotes, and does all of it again after the log has failed.

Without the log there is no new quote. When a commit fails, or may have failed, the log is closed and opened again: what
it then holds was recorded, and a new epoch begins, so that no position is given twice. A log that hangs cannot be
closed, and is not opened a second time while a commit may still be under way in it. Meanwhile the old epoch stands, so
that its quotes are delivered; delivered quotes make room in a log at its quota. On a full disk only room on the disk
helps, since dropping entries needs some too.

Recorded quotes go back to `Intake` (intake.py), which hands them on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.rows import LoggedCoin, Mark
from cotacoes.errors import (
    LogUnavailableError,
    ShardRefusedError,
    ShardUnavailableError,
    WriterSupersededError,
)
from cotacoes.model.quote import Observation, Position, Quote, to_microseconds, utc_now
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.sharding.shard import Fence
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.clock import refuse_far_ahead
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recent_prices import PRICES_MAX
from cotacoes.quote_service.writer import Writer

REOPEN_WAIT_S = 1.0
REOPEN_WAIT_MAX_S = 10.0

T = TypeVar("T")


class Recorder:
    """Gives positions and commits quotes. `now` gives the wall time, `clock` monotonic seconds."""

    def __init__(
        self,
        new_log: Callable[[], QuoteLog],
        directory: ShardDirectory,
        *,
        writer: Writer,
        metrics: QuoteMetrics,
        accepts_clock: bool = False,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writer = writer
        self.histories: dict[str, CoinHistory] = {}
        self._new_log = new_log
        self.log = new_log()  # another one after it has failed
        self._directory = directory
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._accepts_clock = accepts_clock
        self.failure: str | None = None  # why the log cannot be written
        self._open = False
        self._epoch_lock = asyncio.Lock()
        self._open_lock = asyncio.Lock()
        self._held: set[str] = set()  # coins whose last position neither log nor shard could give
        self._reopen_at = 0.0
        self._reopen_wait_s = REOPEN_WAIT_S

    async def start(self) -> None:
        """Open the log, ask the shards, begin epochs if possible; SettingError if a stored time lies far ahead."""
        with contextlib.suppress(LogUnavailableError):  # counted and logged; `ensure_open` tries again
            await self._on_log(self._open_log())
            await self.begin_missing_epochs()

    async def ensure_open(self) -> None:
        """Open the log again if it has failed; LogUnavailableError if that fails too, or was tried just before.

        Opening it may change the histories, so prices must be validated after it.
        """
        if self._open:
            return
        async with self._open_lock:  # the intake and the coin tasks both call it
            await self._reopen()
        await self.begin_missing_epochs()

    async def _reopen(self) -> None:
        if self._open:
            return  # another task has done it meanwhile
        if self._clock() < self._reopen_at:
            raise LogUnavailableError(f"the log cannot be written: {self.failure}")
        self._reopen_at = self._clock() + self._reopen_wait_s
        self._reopen_wait_s = min(REOPEN_WAIT_MAX_S, 2 * self._reopen_wait_s)
        await self._on_log(self.log.close())
        self.log = self._new_log()
        await self._on_log(self._open_log())

    async def record(
        self, observations: Mapping[str, Sequence[Observation]], cursors: Mapping[str, str] | None = None
    ) -> list[Quote]:
        """Commit all observations, by coin, or none; returns the quotes at their positions. LogUnavailableError if not.

        A coin without an epoch gets no quote: it waits for `begin_missing_epochs`. `cursors` say, by coin, how far
        the source's tape has been read; they are part of the same commit, or of the next one if nothing is recorded.
        """
        await self.ensure_open()
        try:
            return await self._record(observations, cursors or {})
        except LogUnavailableError:
            raise
        except Exception as error:  # memory may not agree with the log, so the log is read again
            self._open = False
            self.failure = f"{type(error).__name__} while recording"
            raise

    async def _record(
        self, observations: Mapping[str, Sequence[Observation]], cursors: Mapping[str, str]
    ) -> list[Quote]:
        able = {} if self.writer.is_superseded else {coin: one for coin, one in self.histories.items() if one.can_draft}
        drafts = {coin: able[coin].draft(seen) for coin, seen in observations.items() if seen and coin in able}
        quotes = [quote for drafted in drafts.values() for quote in drafted]
        moved = {coin: cursor for coin, cursor in cursors.items() if coin in able}
        if quotes:
            marks = self._marks()
            marks |= {coin: replace(marks[coin], cursor=cursor) for coin, cursor in moved.items()}
            await self._on_log(self.log.append(quotes, marks))
        for coin, cursor in moved.items():
            self.histories[coin].note_cursor(cursor)
        for coin, drafted in drafts.items():
            self.histories[coin].note_recorded(drafted)
        if not quotes:
            return []
        if self.failure is not None:
            self.failure = None
            self._reopen_wait_s = REOPEN_WAIT_S
            get_logger().info("log.recovered")
        return quotes

    async def add_coin(self, history: CoinHistory) -> None:
        """Record this coin from now on as well; LogUnavailableError if the log cannot say what it has of the coin."""
        await self.ensure_open()
        logged = await self._on_log(self.log.logged(history.coin))
        if logged is not None:
            await self._on_log(self._load(history, logged))
        elif self.histories:
            # its tape begins at the place of the others: earlier prices are not missing
            newest = max(self.histories.values(), key=lambda one: one.position or Position(0, 0))
            history.note_cursor(newest.cursor)
        self.histories[history.coin] = history  # last: until then the call may be tried again

    async def note_source_gap(self, after: str, next_cursor: str) -> None:
        """Commit that the source's tape has a hole; LogUnavailableError if that fails."""
        await self.ensure_open()
        await self._on_log(self.log.note_source_gap(after, next_cursor, self._now()))

    async def begin_missing_epochs(self) -> None:
        """Begin an epoch for each coin that has none, or has used its last position up."""
        async with self._epoch_lock:  # several tasks call this, and an epoch is begun once
            without = [history for history in self.histories.values() if not history.can_draft]
            if not self._open or self.writer.is_superseded or not without:
                return
            ends = await asyncio.gather(*(self._begin_epoch(history) for history in without), return_exceptions=True)
            for error in filter(None, ends):
                raise error

    async def _begin_epoch(self, history: CoinHistory) -> None:
        """Begin an epoch under the shard's fence, or by the log if the shard is away; none if the log is empty too."""
        async with history.turn:
            is_met = await self._meet(history)
            if history.epoch is None and not self._accepts_clock:  # at a start; later on, recording goes on
                refuse_far_ahead(history, self._now())
            fence = await self._claim(history) if is_met else None
            if self.writer.is_superseded or not history.is_known:
                return  # a position might then be given twice
            if fence is not None:
                await self.note_writer(history, fence)
            epoch = history.next_epoch(self._now_ms()) if fence is None else fence.writer_epoch
            await self._on_log(self.log.begin_epoch(history.coin, epoch, history.newest, history.mark()))
            history.begin_epoch(epoch)
        get_logger().info("epoch.began", coin=history.coin, epoch=epoch, prev=str(history.prev or "none"))

    async def note_writer(self, history: CoinHistory, fence: Fence) -> None:
        """Link the log to the shard's end, now that the shard has confirmed this process as the coin's writer.

        The caller holds the history's `turn`. LogUnavailableError.
        """
        if fence.through is not None:
            await self.log.link(history.coin, fence.through)
        history.note_writer(fence, await self.log.count_after(history.coin, history.resume_from(fence)))

    async def close(self) -> None:
        """Write how far delivery has come, and close the log."""
        try:
            if self._open:
                await self.log.mark(self._marks())
            await self.log.close()
        except LogUnavailableError as error:
            get_logger().warning("log.failed", reason=error.detail)

    async def _meet(self, history: CoinHistory) -> bool:
        """Ask the shard for the end of the coin's history; whether it answered."""
        try:
            history.meet(await self._directory.ask(history.coin, lambda shard: shard.fence(history.coin)))
        except (ShardUnavailableError, ShardRefusedError) as error:
            if not history.is_known and history.coin not in self._held:
                get_logger().warning("epoch.held", coin=history.coin, reason=str(error))
                self._held.add(history.coin)
            return False
        self._held.discard(history.coin)
        return True

    async def _claim(self, history: CoinHistory) -> Fence | None:
        """The coin's fence under a new epoch of this process; None if the shard does not give it now."""
        coin, least = history.coin, history.next_epoch(self._now_ms())
        try:
            fence = await self._directory.ask(
                coin, lambda shard: shard.claim(coin, least, self.writer.name, held=history.writer_epoch)
            )
        except WriterSupersededError as error:
            self.writer.stand_down(coin, error)
            return None
        except (ShardUnavailableError, ShardRefusedError):
            return None  # the shard is away by now, or the fence is closed for the end of a move
        history.note_claim(fence.writer_epoch)
        return fence

    def _now_ms(self) -> int:
        return to_microseconds(self._now()) // 1000

    def _marks(self) -> dict[str, Mark]:
        return {coin: history.mark() for coin, history in self.histories.items()}

    async def _open_log(self) -> None:
        logged = await self.log.open()
        for coin, history in self.histories.items():
            if coin in logged:
                await self._load(history, logged[coin])
        await self.log.mark(self._marks())  # quotes delivered meanwhile may make room
        self._open = True

    async def _load(self, history: CoinHistory, logged: LoggedCoin) -> None:
        coin, delivered = history.coin, history.delivered_or(logged.delivered)
        pending = await self.log.count_after(coin, delivered)
        newest = logged.newest
        recent = [] if newest is None else await self.log.recent(coin, PRICES_MAX, history.judged_since(newest))
        history.load(logged, pending, recent[:-1])

    async def _on_log(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except asyncio.CancelledError:
            self._open = False  # the work may still be done: no state from before it may be written over it
            raise
        except LogUnavailableError as error:
            self._note_failure(error)
            raise

    def _note_failure(self, error: LogUnavailableError) -> None:
        self._metrics.log_failures.inc()
        if self._open or self.failure != error.detail:
            get_logger().error("log.failed", reason=error.detail)
        self._open = False
        self.failure = error.detail
