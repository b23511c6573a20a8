"""The follower: listens on Redis, asks the history for what is missing, and hands on one sequence for each coin.

    bus ──▶ listen ──▶ Feeds ──▶ take(events)
    history ◀──▶ fill ──┘ ▲
    time ──▶ watch ───────┘

A link that dies is made again, with growing, jittered pauses; the first heartbeat on the new one shows what was missed.
A history that is away is asked again, likewise. At the start the link comes first, then the history, then what was
heard meanwhile; neither waits for the other longer than `START_S`.

One lock orders what the tasks find out with the handing on of it, so `take` may wait (for a slow reader, say) and the
order of a coin's events stands. The clock by which feeds fall silent stands still meanwhile: nobody listens then.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random

from cotacoes.client.feeds import Back, Event, Feeds, Silent
from cotacoes.client.history import History, floor_of, has_later, resume_of
from cotacoes.errors import (
    BusUnavailableError,
    PositionBeyondEndError,
    PositionGoneError,
    ProblemError,
)
from cotacoes.live import channel
from cotacoes.patterns.backoff import Backoff
from cotacoes.patterns.pub_sub import Bus
from cotacoes.patterns.recovery import HistoryHoleError, Lost, Missed, Recovered, Seen, Wanted
from cotacoes.telemetry import get_logger

RECONNECT_MOST_S = 2.0
FILL_MOST_S = 2.0
FILLS_MAX = 4  # coins at once: what is missing of a thousand coins must not come down on quote_service at once
START_S = 1.0
QUIET_S = 10.0  # from the start on: where all parts begin at once, the history needs some seconds more than we do
WATCH_INTERVAL_S = 0.5
JOIN_INTERVAL_S = 5.0

Take = Callable[[Sequence[Event]], Awaitable[None]]


class Follower:
    """See the head of this file. `take` gets the events of one coin, or silences of several, in order."""

    def __init__(
        self, feeds: Feeds, bus: Bus, history: History, take: Take, *, clock: Callable[[], float], random: Random
    ) -> None:
        self._feeds = feeds
        self._bus = bus
        self._history = history
        self._take = take
        self._clock = clock
        self._quiet_until_s = clock()
        self._taken_s = 0.0  # in `take`, since the start
        self._random = random
        self._backoff = Backoff(random, most_s=RECONNECT_MOST_S)
        self._order = asyncio.Lock()
        self._filling: set[str] = set()
        self._fills = asyncio.Semaphore(FILLS_MAX)
        self._is_away = False
        self._is_refusing = False
        self._unanswered: set[str] = set()  # coins that the history did not answer for, when last asked
        self._is_silence_said = False

    async def run(self, *, newcomers: Callable[[], Awaitable[Sequence[str]]] | None = None) -> None:
        """Follow until cancelled. `newcomers` tells, asked again and again, which coins there are by now."""
        self._quiet_until_s = self._clock() + QUIET_S
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._follow(self._feeds.coins)
            group.create_task(self._watch())
            if newcomers is not None:
                group.create_task(self._join(newcomers))

    async def catch_up(self, coin: str) -> None:
        """Hand on what the history has beyond what was told, once it answers; for when `run` is over."""
        recovery = self._feeds[coin]
        backoff = self._fill_backoff()
        while True:
            told = recovery.told
            is_answered = await self._ask(coin, recovery.wanted or Wanted(told), backoff)
            if is_answered and recovery.told == told and recovery.wanted is None:
                return

    def _follow(self, coins: Sequence[str]) -> None:
        self._patient_until_s = self._clock() + START_S
        if coins:
            self._group.create_task(self._listen(coins))

    async def _join(self, newcomers: Callable[[], Awaitable[Sequence[str]]]) -> None:
        while True:
            await asyncio.sleep(JOIN_INTERVAL_S)
            known = await newcomers()
            async with self._order:
                joined = self._feeds.add(known, self._listened_s())
            if joined:
                get_logger().info("coins.joined", coins=",".join(joined))
                self._follow(joined)

    async def _listen(self, coins: Sequence[str]) -> None:
        channels = [channel(coin) for coin in coins]
        while True:
            try:
                async with self._bus.subscribe(channels) as messages:
                    self._note_back()
                    self._fill_if_wanted(coins)  # not before: what is published between the two would be missed
                    async for from_channel, message in messages:
                        await self._hear(from_channel, message)
            except BusUnavailableError as error:
                self._note_away(error.detail)
            self._fill_if_wanted(coins)
            await asyncio.sleep(self._backoff.next_s())

    async def _hear(self, from_channel: str, message: bytes) -> None:
        async with self._order:
            try:
                coin, events = self._feeds.take(from_channel, message, self._listened_s())
            except ValueError as error:
                if not self._is_refusing:  # once for each run of them
                    get_logger().warning("message.refused", channel=from_channel, reason=str(error))
                self._is_refusing = True
                return
            self._is_refusing = False
            self._backoff.reset()
            await self._tell(events)
        self._fill_if_wanted([coin])

    async def _watch(self) -> None:
        """Say which feeds fall silent, and begin with what there is where bus or history do not answer."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            async with self._order:
                await self._tell(self._feeds.fall_silent(self._listened_s()))
            if self._clock() > self._patient_until_s:
                await self._begin_anyway()

    async def _begin_anyway(self) -> None:
        self._fill_if_wanted(self._feeds.coins)
        async with self._order:
            for coin in self._feeds.coins:
                if self._feeds[coin].is_holding:
                    await self._tell(self._feeds[coin].skip_start())  # nothing where it has begun

    def _fill_if_wanted(self, coins: Iterable[str]) -> None:
        for coin in coins:
            if coin not in self._filling and self._feeds[coin].wanted is not None:
                self._filling.add(coin)
                self._group.create_task(self._fill(coin))

    async def _fill(self, coin: str) -> None:
        """Ask the history until nothing of the coin is missing."""
        backoff = self._fill_backoff()
        try:
            while (wanted := self._feeds[coin].wanted) is not None:
                await self._ask(coin, wanted, backoff)
        finally:
            self._filling.discard(coin)

    async def _ask(self, coin: str, wanted: Wanted, backoff: Backoff) -> bool:
        """Put one question to the history and hand on its answer; False, after a pause, where there was none."""
        async with self._fills:
            failure = await self._ask_once(coin, wanted)
        if failure is None:
            backoff.reset()
            return True
        asked_s = getattr(failure, "retry_after_s", None) or 0.0
        await asyncio.sleep(min(FILL_MOST_S, max(backoff.next_s(), asked_s)))
        return False

    async def _ask_once(self, coin: str, wanted: Wanted) -> Exception | None:
        """The reason where there is no answer."""
        try:
            change = await self._answer(coin, wanted)
            async with self._order:
                await self._tell(change())
        except (ProblemError, HistoryHoleError) as error:
            self._note_unanswered(coin, str(error))
            return error
        self._note_answered(coin)
        is_stuck = self._feeds[coin].wanted == wanted
        return HistoryHoleError("the history does not reach that far yet") if is_stuck else None

    async def _answer(self, coin: str, wanted: Wanted) -> Callable[[], Sequence[Event]]:
        """What the history's answer will change."""
        recovery = self._feeds[coin]
        try:
            page = await self._history.read(coin, wanted)
        except PositionGoneError:
            floor = await floor_of(self._history, coin)
            return lambda: recovery.gone(floor) if recovery.told == wanted.after else []
        except PositionBeyondEndError as error:
            anew = functools.partial(recovery.restart, resume_of(error)) if has_later(error) else recovery.unknown
            return lambda: anew() if recovery.told == wanted.after else []
        return lambda: recovery.recover(wanted, page.quotes, more=page.more)

    async def _tell(self, events: Sequence[Event]) -> None:
        if events:
            began_s = self._clock()
            await self._take(events)
            self._taken_s += self._clock() - began_s

    def _listened_s(self) -> float:
        """The clock without the time in which `take` was waited for."""
        return self._clock() - self._taken_s

    def _fill_backoff(self) -> Backoff:
        return Backoff(self._random, most_s=FILL_MOST_S)

    def _note_away(self, reason: str) -> None:
        if not self._is_away:
            get_logger().warning("bus.away", reason=reason)
        self._is_away = True

    def _note_back(self) -> None:
        if self._is_away:
            get_logger().info("bus.back")
        self._is_away = False

    def _note_unanswered(self, coin: str, reason: str) -> None:
        self._unanswered.add(coin)
        if not self._is_silence_said and self._clock() > self._quiet_until_s:
            get_logger().warning("history.away", coin=coin, reason=reason)
            self._is_silence_said = True

    def _note_answered(self, coin: str) -> None:
        self._unanswered.discard(coin)
        if self._is_silence_said and not self._unanswered:
            get_logger().info("history.back")
            self._is_silence_said = False


def log_change(event: Event) -> None:
    """Say a change of state in the log."""
    match event:
        case Missed(gap):
            get_logger().warning("gap.found", **gap.fields())
        case Recovered():
            get_logger().info("gap.recovered", **event.fields())
        case Lost(gap):
            get_logger().warning("gap.gone", **gap.fields())
        case Silent(coin):
            get_logger().warning("feed.silent", coin=coin)
        case Back(coin):
            get_logger().info("feed.back", coin=coin)
        case Seen():
            pass  # counted by who reads them, never logged
