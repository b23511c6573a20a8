"""Recording: the log opened, eras begun, quotes committed; and all of it again after the log has failed.

No log, no new quote. When a commit fails, or may have failed, the log is closed and opened anew: what it then holds has
happened, and a new era begins, so that no position can be given twice. A log that hangs can not be closed, and is not
opened a second time while a commit may still be under way in it. Meanwhile the old era stands, so that what it recorded
is delivered; what has been delivered makes room in a log at its quota. On a disk that is full nothing but room on the
disk does, since dropping entries needs some too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.rows import LoggedCoin, Mark
from cotacoes.errors import (
    LogUnavailableError,
    ShardRefusedError,
    ShardUnavailableError,
    WriterSupersededError,
)
from cotacoes.model.quote import Observation, Position, Quote, to_microseconds
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.sharding.shard import Fence
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.clock import refuse_far_ahead
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recent_prices import PRICES_MAX

REOPEN_WAIT_S = 1.0
REOPEN_WAIT_MAX_S = 10.0

T = TypeVar("T")


class Recorder:
    """Gives positions and commits quotes; `failure` is the reason in words while the log can not be written."""

    def __init__(
        self,
        folder: Path,
        histories: dict[str, CoinHistory],
        directory: ShardDirectory,
        metrics: QuoteMetrics,
        *,
        quota_bytes: int,
        kept_s: float,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        on_superseded: Callable[[], None],
        accepts_clock: bool = False,
    ) -> None:
        self.writer = secrets.token_hex(8)  # this process, in the fences
        self.histories = histories
        self.failure: str | None = None
        self._new_log = functools.partial(QuoteLog, folder, quota_bytes=quota_bytes, kept_s=kept_s, now=now)
        self.log = self._new_log()
        self._directory = directory
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._accepts_clock = accepts_clock
        self._on_superseded = on_superseded
        self._open = False
        self._retired = False
        self._era_lock = asyncio.Lock()
        self._open_lock = asyncio.Lock()
        self._held: set[str] = set()  # coins of which neither log nor shard could say where they stand
        self._reopen_at = 0.0
        self._reopen_wait_s = REOPEN_WAIT_S

    async def start(self) -> None:
        """Open the log, ask the shards, begin eras where possible; SettingError if what is stored lies far ahead."""
        with contextlib.suppress(LogUnavailableError):  # counted and said; `ensure_open` tries again
            await self._on_log(self._open_log())
            await self.begin_missing_eras()

    async def ensure_open(self) -> None:
        """Open the log anew where it failed; LogUnavailableError where that fails too, or was tried just before.

        After it the histories say what has happened, so what is to be recorded must be judged after it.
        """
        if self._open:
            return
        async with self._open_lock:  # the intake and the roster both ask for it
            await self._reopen()
        await self.begin_missing_eras()

    async def _reopen(self) -> None:
        if self._open:
            return  # another one has done it meanwhile
        if self._clock() < self._reopen_at:
            raise LogUnavailableError(f"the log can not be written: {self.failure}")
        self._reopen_at = self._clock() + self._reopen_wait_s
        self._reopen_wait_s = min(REOPEN_WAIT_MAX_S, 2 * self._reopen_wait_s)
        await self._on_log(self.log.close())
        self.log = self._new_log()
        await self._on_log(self._open_log())

    async def record(
        self, observations: Mapping[str, Sequence[Observation]], cursors: Mapping[str, str] | None = None
    ) -> list[Quote]:
        """Commit each coin's observations, all or none; the quotes, at their positions. LogUnavailableError if not.

        A coin without an era gives no quote: it waits for `begin_missing_eras`. `cursors` say where the source's tape
        is taken to with this, by coin; they are part of the same commit, or of the next where nothing is recorded.
        """
        await self.ensure_open()
        try:
            return await self._record(observations, cursors or {})
        except LogUnavailableError:
            raise
        except Exception as error:  # what memory says may not be what the log has, so it is read again
            self._open = False
            self.failure = f"{type(error).__name__} while recording"
            raise

    async def _record(
        self, observations: Mapping[str, Sequence[Observation]], cursors: Mapping[str, str]
    ) -> list[Quote]:
        able = {} if self._retired else {coin: one for coin, one in self.histories.items() if one.can_draft}
        drafts = {coin: able[coin].draft(seen) for coin, seen in observations.items() if seen and coin in able}
        quotes = [quote for drafted in drafts.values() for quote in drafted]
        moved = {coin: cursor for coin, cursor in cursors.items() if coin in able}
        if quotes:
            marks = self._marks()
            marks |= {coin: replace(marks[coin], cursor=cursor) for coin, cursor in moved.items()}
            await self._on_log(self.log.append(quotes, marks))
        for coin, cursor in moved.items():
            self.histories[coin].cursor = cursor
        for coin, drafted in drafts.items():
            self.histories[coin].note_recorded(drafted)
        if not quotes:
            return []
        if self.failure is not None:
            self.failure = None
            self._reopen_wait_s = REOPEN_WAIT_S
            get_logger().info("log.recovered")
        return quotes

    async def take_in(self, history: CoinHistory) -> None:
        """Record this coin from now on as well; LogUnavailableError where the log can not say what it has of it."""
        await self.ensure_open()
        logged = await self._on_log(self.log.logged(history.coin))
        if logged is not None:
            await self._on_log(self._load(history, logged))
        elif self.histories:
            # a tape is taken from where the others are: what was before this coin came is not missing
            newest = max(self.histories.values(), key=lambda one: one.position or Position(0, 0))
            history.cursor = newest.cursor
        self.histories[history.coin] = history  # last: who is tried again must not be in use already

    async def note_source_gap(self, after: str, next_cursor: str) -> None:
        """Commit that the source's tape has a hole; LogUnavailableError where that fails."""
        await self.ensure_open()
        await self._on_log(self.log.note_source_gap(after, next_cursor, self._now()))

    def retire(self) -> None:
        """Record nothing any more: another writer has taken over."""
        self._retired = True

    async def begin_missing_eras(self) -> None:
        """Begin an era for each coin that has none (or has used its last position up)."""
        async with self._era_lock:  # the poll and the keeper both ask for it, and an era is begun once
            without = [history for history in self.histories.values() if not history.can_draft]
            if not self._open or self._retired or not without:
                return
            ends = await asyncio.gather(*(self._begin_era(history) for history in without), return_exceptions=True)
            for error in filter(None, ends):
                raise error

    async def _begin_era(self, history: CoinHistory) -> None:
        """Begin an era under the shard's fence, or by the log if the shard is away; none if the log is empty too."""
        async with history.turn:
            is_met = await self._meet(history)
            if history.epoch is None and not self._accepts_clock:  # at a start; later on, recording goes on
                refuse_far_ahead(history, self._now())
            fence = await self._claim(history) if is_met else None
            if self._retired or not history.is_known:
                return  # a position might be one that was given before
            if fence is not None:
                await self.note_writer(history, fence)
            epoch = history.next_epoch(self._now_ms()) if fence is None else fence.writer_epoch
            await self._on_log(self.log.begin_era(history.coin, epoch, history.newest, history.mark()))
            history.begin_era(epoch)
        get_logger().info("era.began", coin=history.coin, epoch=epoch, prev=str(history.prev or "none"))

    async def note_writer(self, history: CoinHistory, fence: Fence) -> None:
        """The shard has taken this process as the coin's writer: link the log to the shard's end, and go on from there.

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
        """Whether the shard has said where the coin stands."""
        try:
            history.meet(await self._directory.ask(history.coin, lambda shard: shard.fence(history.coin)))
        except (ShardUnavailableError, ShardRefusedError) as error:
            if not history.is_known and history.coin not in self._held:
                get_logger().warning("era.held", coin=history.coin, reason=str(error))
                self._held.add(history.coin)
            return False
        self._held.discard(history.coin)
        return True

    async def _claim(self, history: CoinHistory) -> Fence | None:
        """The coin's fence under a new era of this process; None if the shard does not give it now."""
        coin, least = history.coin, history.next_epoch(self._now_ms())
        try:
            fence = await self._directory.ask(
                coin, lambda shard: shard.claim(coin, least, self.writer, held=history.writer_epoch)
            )
        except WriterSupersededError as error:
            get_logger().error("writer.superseded", coin=coin, reason=str(error))
            self._on_superseded()
            return None
        except (ShardUnavailableError, ShardRefusedError):
            return None  # away by now, or closed for the end of a move
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
        await self.log.mark(self._marks())  # what was delivered meanwhile may make room
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
            self._open = False  # it may happen all the same: nothing that was known before may be written over it
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
