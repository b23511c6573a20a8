"""FeedConsumer listens on Redis, asks the history for what is missing, and emits one sequence of events for each coin.

    bus ──▶ listen ──▶ Feeds ──▶ emit(events)
    history ◀──▶ fill ──┘ ▲
    time ──▶ watch ───────┘

A dead link is made again, with growing, jittered pauses; the first heartbeat on the new link reveals what was missed. A
history that is away is asked again likewise. At the start the link comes first, then the history, then the messages
received meanwhile; neither waits for the other longer than `START_S`.

One lock makes each discovery and the emission of its events one step, so the events of a coin stay in order even if
`emit` has to wait, for a slow reader, say. The clock that decides when feeds are silent is stopped meanwhile, since
nobody listens then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from cotacoes.errors import BusUnavailableError
from cotacoes.feed.feeds import Back, FeedEvent, Feeds, IgnoredMessageError, Silent
from cotacoes.feed.filler import Filler
from cotacoes.feed.history import History
from cotacoes.observability.logs import FailureLog, get_logger
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.patterns.pub_sub.recovery_events import (
    Dismissed,
    GapDetected,
    GapFilled,
    GapLost,
    Ignored,
    QuoteReceived,
    Retracted,
)
from cotacoes.patterns.resilience.backoff import Backoff

RECONNECT_MOST_S = 2.0
START_S = 1.0
WATCH_INTERVAL_S = 0.5
BUS_QUIET_S = 3.0  # for a listener that starts together with the bus
JOIN_INTERVAL_S = 5.0
PARDON_S = 30.0  # how long a mistaken dismissal lasts; a second system on this Redis costs a few questions as often
IGNORED_LOG_S = 60.0

Emit = Callable[[Sequence[FeedEvent]], Awaitable[None]]
CountIgnored = Callable[[str, Ignored, int], None]


class FeedConsumer:
    """The consumer of all feeds. `emit` receives the events of one coin, or silences of several coins, in order.

    `count_ignored` is called now and then with the number of further lines of a coin that were ignored, and why. A bus
    that never answered is not reported as away for the first `bus_quiet_s`.
    """

    def __init__(
        self,
        feeds: Feeds,
        bus: Bus,
        history: History,
        emit: Emit,
        *,
        clock: Callable[[], float],
        random: Random,
        count_ignored: CountIgnored = lambda *_: None,
        bus_quiet_s: float = 0.0,
    ) -> None:
        self._feeds = feeds
        self._bus = bus
        self._history = history
        self._emit = emit
        self._clock = clock
        self._emitting_s = 0.0  # spent in `emit` since the start
        self._random = random
        self._backoff = Backoff(random, most_s=RECONNECT_MOST_S)
        self._order = asyncio.Lock()
        self._filler = Filler(feeds, history, self._change, clock=clock, random=random)
        self._failures = FailureLog()
        self._quiet_until_s = clock() + bus_quiet_s  # until the bus has answered once
        self._is_away = False
        self._is_refusing = False
        self._count_ignored = count_ignored
        self._ignored: Counter[tuple[str, Ignored]] = Counter()  # counted so far
        self._ignored_logged: Counter[Ignored] = Counter()

    async def run(self, *, newcomers: Callable[[], Awaitable[Sequence[str]]] | None = None) -> None:
        """Listen until cancelled. `newcomers` is called regularly and returns the coins that exist by then."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._filler.start(group)
            self._start_listening(self._feeds.coins)
            group.create_task(self._watch())
            if newcomers is not None:
                group.create_task(self._join(newcomers))

    async def catch_up(self, coin: str) -> None:
        """Emit what the history has beyond the last emitted quote, once it answers; for use after `run`."""
        await self._filler.catch_up(coin)

    def _start_listening(self, coins: Sequence[str]) -> None:
        self._patient_until_s = self._clock() + START_S
        if coins:
            self._group.create_task(self._listen(coins))

    async def _join(self, newcomers: Callable[[], Awaitable[Sequence[str]]]) -> None:
        while True:
            await asyncio.sleep(JOIN_INTERVAL_S)
            try:
                known = await newcomers()
            except Exception as error:  # nothing has changed; it is asked again
                self._failures.note("coins.failed", error)
                continue
            async with self._order:
                joined = self._feeds.add(known, self._listened_s())
            if joined:
                get_logger().info("coins.joined", coins=",".join(joined))
                self._start_listening(joined)

    async def _listen(self, coins: Sequence[str]) -> None:
        channels = [self._feeds.channel(coin) for coin in coins]
        while True:
            try:
                async with self._bus.subscribe(channels) as messages:
                    self._note_back()
                    self._filler.fill(coins)  # not earlier: quotes published between the two would be missed
                    async for from_channel, message in messages:
                        await self._hear(from_channel, message)
            except BusUnavailableError as error:
                self._note_away(error.detail)
            self._filler.fill(coins)
            await asyncio.sleep(self._backoff.next_s())

    async def _hear(self, from_channel: str, message: bytes) -> None:
        async with self._order:
            try:
                coin, events = self._feeds.receive(from_channel, message, self._listened_s())
            except IgnoredMessageError as error:
                if not self._is_refusing:  # once for a series of them
                    get_logger().warning("message.refused", channel=from_channel, reason=str(error))
                self._is_refusing = True
                return
            self._is_refusing = False
            self._backoff.reset()
            await self._emit_events(events)
        self._filler.fill([coin])

    async def _watch(self) -> None:
        """Report feeds that fall silent, and begin without the history or the bus if they do not answer."""
        pardon_at = log_at = self._clock()
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._note_ignored()
            if self._clock() - pardon_at >= PARDON_S:
                pardon_at = self._clock()
                self._feeds.pardon()
            if self._clock() - log_at >= IGNORED_LOG_S:
                log_at = self._clock()
                self.log_ignored()
            async with self._order:
                await self._emit_events(self._feeds.fall_silent(self._listened_s()))
            if self._clock() > self._patient_until_s:
                await self._begin_anyway()

    async def _begin_anyway(self) -> None:
        self._filler.fill(self._feeds.coins)
        async with self._order:
            for coin in self._feeds.coins:
                if self._feeds[coin].is_holding:
                    await self._emit_events(self._feeds[coin].skip_start())  # no events if it has begun

    async def _change(self, change: Callable[[], Sequence[FeedEvent]]) -> None:
        """Apply a change and emit its events, in order with all others."""
        async with self._order:
            await self._emit_events(change())

    async def _emit_events(self, events: Sequence[FeedEvent]) -> None:
        if events:
            began_s = self._clock()
            await self._emit(events)
            self._emitting_s += self._clock() - began_s

    def _listened_s(self) -> float:
        """The clock without the time spent waiting for `emit`."""
        return self._clock() - self._emitting_s

    def log_ignored(self) -> None:
        """Log how many lines were ignored, by reason, if there are more than the last time."""
        totals: Counter[Ignored] = Counter()
        for (_, reason), count in self._feeds.ignored.items():
            totals[reason] += count
        if totals != self._ignored_logged:
            get_logger().info("messages.ignored", **{reason.value: count for reason, count in sorted(totals.items())})
        self._ignored_logged = totals

    def _note_ignored(self) -> None:
        ignored = self._feeds.ignored
        for (coin, reason), count in ignored.items():
            if more := count - self._ignored[coin, reason]:
                self._count_ignored(coin, reason, more)
        self._ignored = Counter(ignored)

    def _note_away(self, reason: str) -> None:
        if self._clock() < self._quiet_until_s:
            return  # it may still be starting
        if not self._is_away:
            get_logger().warning("bus.away", reason=reason)
        self._is_away = True

    def _note_back(self) -> None:
        self._quiet_until_s = self._clock()
        if self._is_away:
            get_logger().info("bus.back")
        self._is_away = False


def log_change(event: FeedEvent) -> None:
    """Log an event that changes a state."""
    match event:
        case GapDetected(gap):
            get_logger().warning("gap.detected", **gap.fields())
        case GapFilled():
            get_logger().info("gap.filled", **event.fields())
        case GapLost(gap):
            get_logger().warning("gap.lost", **gap.fields())
        case Retracted(gap):
            get_logger().error("quotes.retracted", **gap.fields())
        case Dismissed(gap):
            get_logger().warning("position.dismissed", **gap.fields())
        case Silent(coin):
            get_logger().warning("feed.silent", coin=coin)
        case Back(coin):
            get_logger().info("feed.back", coin=coin)
        case QuoteReceived():
            pass  # quotes are counted, never logged
