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
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from cotacoes.errors import (
    BusUnavailableError,
)
from cotacoes.feed.feeds import Back, Event, Feeds, IgnoredMessageError, Silent
from cotacoes.feed.filler import Filler
from cotacoes.feed.history import History
from cotacoes.observability.logs import FailureLog, get_logger
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.patterns.pub_sub.recovery_events import Dismissed, Ignored, Lost, Missed, Recovered, Retracted, Seen
from cotacoes.patterns.resilience.backoff import Backoff

RECONNECT_MOST_S = 2.0
START_S = 1.0
WATCH_INTERVAL_S = 0.5
BUS_QUIET_S = 3.0  # for a listener that starts together with the bus, which is faster
JOIN_INTERVAL_S = 5.0
PARDON_S = 30.0  # a mistaken dismissal costs this long; a second system on the same Redis, a few questions as often
IGNORED_LOG_S = 60.0

Take = Callable[[Sequence[Event]], Awaitable[None]]
CountIgnored = Callable[[str, Ignored, int], None]


class FeedConsumer:
    """See the head of this file. `take` gets the events of one coin, or silences of several, in order.

    `count_ignored` hears now and then how many more lines of a coin were ignored, and why. A bus that was not there yet
    is not called away for `bus_quiet_s`.
    """

    def __init__(
        self,
        feeds: Feeds,
        bus: Bus,
        history: History,
        take: Take,
        *,
        clock: Callable[[], float],
        random: Random,
        count_ignored: CountIgnored = lambda *_: None,
        bus_quiet_s: float = 0.0,
    ) -> None:
        self._feeds = feeds
        self._bus = bus
        self._history = history
        self._take = take
        self._clock = clock
        self._taken_s = 0.0  # in `take`, since the start
        self._random = random
        self._backoff = Backoff(random, most_s=RECONNECT_MOST_S)
        self._order = asyncio.Lock()
        self._filler = Filler(feeds, history, self._change, clock=clock, random=random)
        self._failures = FailureLog()
        self._quiet_until_s = clock() + bus_quiet_s  # until the bus was there once
        self._is_away = False
        self._is_refusing = False
        self._count_ignored = count_ignored
        self._ignored: Counter[tuple[str, Ignored]] = Counter()  # what was counted so far
        self._ignored_said: Counter[Ignored] = Counter()

    async def run(self, *, newcomers: Callable[[], Awaitable[Sequence[str]]] | None = None) -> None:
        """Follow until cancelled. `newcomers` tells, asked again and again, which coins there are by now."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._filler.start(group)
            self._follow(self._feeds.coins)
            group.create_task(self._watch())
            if newcomers is not None:
                group.create_task(self._join(newcomers))

    async def catch_up(self, coin: str) -> None:
        """Hand on what the history has beyond what was told, once it answers; for when `run` is over."""
        await self._filler.catch_up(coin)

    def _follow(self, coins: Sequence[str]) -> None:
        self._patient_until_s = self._clock() + START_S
        if coins:
            self._group.create_task(self._listen(coins))

    async def _join(self, newcomers: Callable[[], Awaitable[Sequence[str]]]) -> None:
        while True:
            await asyncio.sleep(JOIN_INTERVAL_S)
            try:
                known = await newcomers()
            except Exception as error:  # nothing is changed by it, and it is asked again
                self._failures.note("coins.failed", error)
                continue
            async with self._order:
                joined = self._feeds.add(known, self._listened_s())
            if joined:
                get_logger().info("coins.joined", coins=",".join(joined))
                self._follow(joined)

    async def _listen(self, coins: Sequence[str]) -> None:
        channels = [self._feeds.channel(coin) for coin in coins]
        while True:
            try:
                async with self._bus.subscribe(channels) as messages:
                    self._note_back()
                    self._filler.fill(coins)  # not before: what is published between the two would be missed
                    async for from_channel, message in messages:
                        await self._hear(from_channel, message)
            except BusUnavailableError as error:
                self._note_away(error.detail)
            self._filler.fill(coins)
            await asyncio.sleep(self._backoff.next_s())

    async def _hear(self, from_channel: str, message: bytes) -> None:
        async with self._order:
            try:
                coin, events = self._feeds.take(from_channel, message, self._listened_s())
            except IgnoredMessageError as error:
                if not self._is_refusing:  # once for each run of them
                    get_logger().warning("message.refused", channel=from_channel, reason=str(error))
                self._is_refusing = True
                return
            self._is_refusing = False
            self._backoff.reset()
            await self._tell(events)
        self._filler.fill([coin])

    async def _watch(self) -> None:
        """Say which feeds fall silent, and begin with what there is if bus or history do not answer."""
        pardon_at = say_at = self._clock()
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._note_ignored()
            if self._clock() - pardon_at >= PARDON_S:
                pardon_at = self._clock()
                self._feeds.pardon()
            if self._clock() - say_at >= IGNORED_LOG_S:
                say_at = self._clock()
                self.log_ignored()
            async with self._order:
                await self._tell(self._feeds.fall_silent(self._listened_s()))
            if self._clock() > self._patient_until_s:
                await self._begin_anyway()

    async def _begin_anyway(self) -> None:
        self._filler.fill(self._feeds.coins)
        async with self._order:
            for coin in self._feeds.coins:
                if self._feeds[coin].is_holding:
                    await self._tell(self._feeds[coin].skip_start())  # nothing where it has begun

    async def _change(self, change: Callable[[], Sequence[Event]]) -> None:
        """Make a change, and hand on what it means, in order with all others."""
        async with self._order:
            await self._tell(change())

    async def _tell(self, events: Sequence[Event]) -> None:
        if events:
            began_s = self._clock()
            await self._take(events)
            self._taken_s += self._clock() - began_s

    def _listened_s(self) -> float:
        """The clock without the time in which `take` was waited for."""
        return self._clock() - self._taken_s

    def log_ignored(self) -> None:
        """Say in the log how many lines of each kind were ignored, if they have become more since it was last said."""
        totals: Counter[Ignored] = Counter()
        for (_, reason), count in self._feeds.ignored.items():
            totals[reason] += count
        if totals != self._ignored_said:
            get_logger().info("messages.ignored", **{reason.value: count for reason, count in sorted(totals.items())})
        self._ignored_said = totals

    def _note_ignored(self) -> None:
        ignored = self._feeds.ignored
        for (coin, reason), count in ignored.items():
            if more := count - self._ignored[coin, reason]:
                self._count_ignored(coin, reason, more)
        self._ignored = Counter(ignored)

    def _note_away(self, reason: str) -> None:
        if self._clock() < self._quiet_until_s:
            return  # it is still awaited
        if not self._is_away:
            get_logger().warning("bus.away", reason=reason)
        self._is_away = True

    def _note_back(self) -> None:
        self._quiet_until_s = self._clock()
        if self._is_away:
            get_logger().info("bus.back")
        self._is_away = False


def log_change(event: Event) -> None:
    """Say a change of state in the log."""
    match event:
        case Missed(gap):
            get_logger().warning("gap.found", **gap.fields())
        case Recovered():
            get_logger().info("gap.recovered", **event.fields())
        case Lost(gap):
            get_logger().warning("gap.gone", **gap.fields())
        case Retracted(gap):
            get_logger().error("quotes.retracted", **gap.fields())
        case Dismissed(gap):
            get_logger().warning("position.dismissed", **gap.fields())
        case Silent(coin):
            get_logger().warning("feed.silent", coin=coin)
        case Back(coin):
            get_logger().info("feed.back", coin=coin)
        case Seen():
            pass  # counted by who reads them, never logged
