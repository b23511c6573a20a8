"""Filler asks the history for what is missing of each coin, until nothing is.

A history that is away is asked again for as long as it takes, with growing, jittered pauses. If it answers but ends
before what was announced, it is asked again for `UNREACHED_S`; then the announcement is dismissed, since a quote is in
the history before it is published.
"""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import NamedTuple

from cotacoes.errors import InternalError, PositionBeyondEndError, PositionGoneError, ProblemError
from cotacoes.feed.feeds import FeedEvent, Feeds
from cotacoes.feed.history import History, floor_of, has_later, resume_of
from cotacoes.observability.logs import FailureLog, get_logger
from cotacoes.patterns.pub_sub.recovery import Recovery
from cotacoes.patterns.pub_sub.recovery_events import HistoryHoleError, Wanted
from cotacoes.patterns.resilience.backoff import Backoff

FILL_MOST_S = 2.0
FILLS_MAX = 4  # coins at once: gaps in a thousand coins must not hit quote_service all together
QUIET_S = 30.0  # before the first answer: if everything starts together, the history needs some seconds more
UNREACHED_S = 5.0

Changes = Callable[[], Sequence[FeedEvent]]


class _Answer(enum.Enum):
    """The outcome of a question to the history."""

    MORE = enum.auto()
    END = enum.auto()  # it has nothing after its answer
    AWAY = enum.auto()


class _HistoryAnswer(NamedTuple):
    answer: _Answer
    retry_after_s: float = 0.0


class Filler:
    """The filler of all feeds. `change` applies a change and emits its events, in order with all others."""

    def __init__(
        self,
        feeds: Feeds,
        history: History,
        change: Callable[[Changes], Awaitable[None]],
        *,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._feeds = feeds
        self._history = history
        self._change = change
        self._clock = clock
        self._random = random
        self._quiet_until_s = clock()
        self._filling: set[str] = set()
        self._fills = asyncio.Semaphore(FILLS_MAX)
        self._unanswered: set[str] = set()  # coins for which the last question got no answer
        self._is_away_logged = False
        self._failures = FailureLog()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Create tasks in this group from now on."""
        self._group = group
        self._quiet_until_s = self._clock() + QUIET_S

    def fill(self, coins: Iterable[str]) -> None:
        """Ask for what these coins lack, unless a task does so already."""
        for coin in coins:
            if coin not in self._filling and self._feeds[coin].wanted is not None:
                self._filling.add(coin)
                self._group.create_task(self._fill(coin))

    async def catch_up(self, coin: str) -> None:
        """Emit what the history has beyond the last emitted quote, once it answers; for use after `run`."""
        recovery, backoff = self._feeds[coin], self._new_backoff()
        while True:
            wanted = recovery.wanted or Wanted(recovery.last_emitted)
            asked = await self._ask(coin, wanted)
            if asked.answer is _Answer.END:
                return await self._change(recovery.dismiss)
            await self._pause(asked, recovery.wanted == wanted, backoff)

    async def _fill(self, coin: str) -> None:
        """Ask the history until nothing is missing, or until what seems missing turns out not to exist."""
        recovery, backoff = self._feeds[coin], self._new_backoff()
        ended_at: float | None = None  # since when the history has ended before what was announced
        try:
            while (wanted := recovery.wanted) is not None:
                claim = recovery.last_received
                asked = await self._ask(coin, wanted)
                is_beyond = claim is not None and (recovery.last_emitted is None or claim > recovery.last_emitted)
                if not is_beyond:
                    ended_at = None
                elif asked.answer is _Answer.END:
                    ended_at = self._clock() if ended_at is None else ended_at
                    if self._clock() - ended_at >= UNREACHED_S:
                        await self._change(recovery.dismiss)
                is_stuck = recovery.wanted == wanted or (asked.answer is _Answer.END and is_beyond)
                await self._pause(asked, is_stuck and recovery.wanted is not None, backoff)
        finally:
            self._filling.discard(coin)

    async def _ask(self, coin: str, wanted: Wanted) -> _HistoryAnswer:
        """Ask the history once and emit the events of its answer."""
        async with self._fills:
            try:
                change, answer = await self._foreseen(coin, wanted)
                await self._change(change)
            except (ProblemError, HistoryHoleError) as error:
                self._note_unanswered(coin, str(error))
                return _HistoryAnswer(_Answer.AWAY, getattr(error, "retry_after_s", None) or 0.0)
        self._note_answered(coin)
        return _HistoryAnswer(answer)

    async def _pause(self, asked: _HistoryAnswer, is_stuck: bool, backoff: Backoff) -> None:
        """Wait before the next question if this one made no progress."""
        if is_stuck or asked.answer is _Answer.AWAY:
            await asyncio.sleep(min(FILL_MOST_S, max(backoff.next_s(), asked.retry_after_s)))
        else:
            backoff.reset()

    async def _foreseen(self, coin: str, wanted: Wanted) -> tuple[Changes, _Answer]:
        """Like `_answer`, but an unexpected error counts as a missing answer for one coin, which is asked again."""
        try:
            return await self._answer(coin, wanted)
        except ProblemError:
            raise
        except Exception as error:
            self._failures.note("history.failed", error, coin=coin)
            raise InternalError(f"the question to the history failed ({type(error).__name__})") from error

    async def _answer(self, coin: str, wanted: Wanted) -> tuple[Changes, _Answer]:
        """The change that the history's answer makes, and the outcome."""
        recovery = self._feeds[coin]
        try:
            page = await self._history.read(coin, wanted)
        except PositionGoneError:
            floor = await floor_of(self._history, coin)
            return lambda: recovery.gone(floor) if _is_current(recovery, wanted) else [], _Answer.MORE
        except PositionBeyondEndError as error:
            anew = functools.partial(recovery.restart, resume_of(error)) if has_later(error) else recovery.unknown
            return lambda: anew() if _is_current(recovery, wanted) else [], _Answer.MORE
        is_end = wanted.last is None and not page.more
        return lambda: recovery.recover(
            wanted, page.quotes, more=page.more, gaps=page.gaps
        ), _Answer.END if is_end else _Answer.MORE

    def _new_backoff(self) -> Backoff:
        return Backoff(self._random, most_s=FILL_MOST_S)

    def _note_unanswered(self, coin: str, reason: str) -> None:
        self._unanswered.add(coin)
        if not self._is_away_logged and self._clock() > self._quiet_until_s:
            get_logger().warning("history.away", coin=coin, reason=reason)
            self._is_away_logged = True

    def _note_answered(self, coin: str) -> None:
        self._unanswered.discard(coin)
        self._quiet_until_s = self._clock()
        if self._is_away_logged and not self._unanswered:
            get_logger().info("history.back")
            self._is_away_logged = False


def _is_current(recovery: Recovery, wanted: Wanted) -> bool:
    """Whether this is still the right question, so that its answer still applies."""
    return wanted == (recovery.wanted or Wanted(recovery.last_emitted))
