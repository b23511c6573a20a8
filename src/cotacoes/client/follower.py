"""The follower: listens on Redis, asks the history for what is missing, and hands on one sequence for each coin.

    bus ──▶ listen ──▶ Feeds ──▶ take(events)
    history ◀──▶ fill ──┘ ▲
    time ──▶ watch ───────┘

A link that dies is made again, with growing, jittered pauses; the first heartbeat on the new one shows what was missed.
A history that is away is asked again, likewise. One lock orders what the three tasks find out with the handing on of
it, so `take` may wait (for a slow reader, say) and the order of a coin's events stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from cotacoes.client.feeds import Event, Feeds
from cotacoes.client.history import History, floor_of
from cotacoes.errors import (
    BusUnavailableError,
    PositionBeyondEndError,
    PositionGoneError,
    ProblemError,
)
from cotacoes.live import channel
from cotacoes.patterns.backoff import Backoff
from cotacoes.patterns.pub_sub import Bus
from cotacoes.patterns.recovery import HistoryHoleError
from cotacoes.telemetry import get_logger

RECONNECT_MOST_S = 2.0
FILL_MOST_S = 2.0
FILLS_MAX = 4  # coins at once: what is missing of a thousand coins must not come down on quote_service at once
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
        self._random = random
        self._backoff = Backoff(random, most_s=RECONNECT_MOST_S)
        self._order = asyncio.Lock()
        self._filling: set[str] = set()
        self._fills = asyncio.Semaphore(FILLS_MAX)
        self._is_away = False
        self._is_refusing = False
        self._is_without_history = False

    async def run(self, *, newcomers: Callable[[], Awaitable[Sequence[str]]] | None = None) -> None:
        """Follow until cancelled. `newcomers` tells, asked again and again, which coins there are by now."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._follow(self._feeds.coins)
            group.create_task(self._watch())
            if newcomers is not None:
                group.create_task(self._join(newcomers))

    def _follow(self, coins: Sequence[str]) -> None:
        self._group.create_task(self._listen([channel(coin) for coin in coins]))
        for coin in coins:
            self._fill_if_wanted(coin)

    async def _join(self, newcomers: Callable[[], Awaitable[Sequence[str]]]) -> None:
        while True:
            await asyncio.sleep(JOIN_INTERVAL_S)
            if joined := self._feeds.add(await newcomers(), self._clock()):
                get_logger().info("coins.joined", coins=",".join(joined))
                self._follow(joined)

    async def _listen(self, channels: Sequence[str]) -> None:
        while channels:
            try:
                async with self._bus.subscribe(channels) as messages:
                    self._note_back()
                    async for from_channel, message in messages:
                        await self._hear(from_channel, message)
            except BusUnavailableError as error:
                self._note_away(error.detail)
            await asyncio.sleep(self._backoff.next_s())

    async def _hear(self, from_channel: str, message: bytes) -> None:
        async with self._order:
            now = self._clock()
            try:
                coin, events = self._feeds.take(from_channel, message, now)
            except ValueError as error:
                if not self._is_refusing:  # once for each run of them
                    get_logger().warning("message.refused", channel=from_channel, reason=str(error))
                self._is_refusing = True
                return
            self._is_refusing = False
            self._backoff.reset()
            if events:
                await self._take(events)
            if self._clock() - now > WATCH_INTERVAL_S:  # whoever takes them was slow, so nobody listened
                self._feeds.rearm(self._clock())
        self._fill_if_wanted(coin)

    async def _watch(self) -> None:
        """Say which feeds fall silent. Not while the taker does not take: then nobody listens."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            async with self._order:
                if events := self._feeds.fall_silent(self._clock()):
                    await self._take(events)

    def _fill_if_wanted(self, coin: str) -> None:
        if coin not in self._filling and self._feeds[coin].wanted is not None:
            self._filling.add(coin)
            self._group.create_task(self._fill(coin))

    async def _fill(self, coin: str) -> None:
        """Ask the history until nothing of the coin is missing."""
        backoff = Backoff(self._random, most_s=FILL_MOST_S)
        try:
            while self._feeds[coin].wanted is not None:
                async with self._fills:
                    failure = await self._fill_once(coin)
                if failure is None:
                    backoff.reset()
                    continue
                asked_s = getattr(failure, "retry_after_s", None) or 0.0
                await asyncio.sleep(min(FILL_MOST_S, max(backoff.next_s(), asked_s)))
        finally:
            self._filling.discard(coin)

    async def _fill_once(self, coin: str) -> Exception | None:
        """One question and its answer; the reason where there is none."""
        recovery = self._feeds[coin]
        wanted = recovery.wanted
        assert wanted is not None
        try:
            try:
                page = await self._history.read(coin, wanted)
            except PositionGoneError:
                floor = await floor_of(self._history, coin)
                await self._hand_on(lambda: recovery.gone(floor))
            except PositionBeyondEndError:
                await self._hand_on(recovery.unknown)
            else:
                await self._hand_on(lambda: recovery.recover(wanted, page.quotes, more=page.more))
        except (ProblemError, HistoryHoleError) as error:
            self._note_history(error)
            if wanted.last is not None and recovery.is_holding:
                await self._hand_on(recovery.skip_start)  # a live price does not wait for an older one
            return error
        self._note_history(None)
        return HistoryHoleError("the history does not reach that far yet") if recovery.wanted == wanted else None

    async def _hand_on(self, change: Callable[[], Sequence[Event]]) -> None:
        async with self._order:
            if events := change():
                await self._take(events)

    def _note_away(self, reason: str) -> None:
        if not self._is_away:
            get_logger().warning("bus.away", reason=reason)
        self._is_away = True

    def _note_back(self) -> None:
        if self._is_away:
            get_logger().info("bus.back")
        self._is_away = False

    def _note_history(self, failure: Exception | None) -> None:
        if failure is not None and not self._is_without_history:
            get_logger().warning("history.away", reason=str(failure))
        elif failure is None and self._is_without_history:
            get_logger().info("history.back")
        self._is_without_history = failure is not None
