"""Publishing: each recorded quote once, in order, when the shard has answered for it or `wait_s` has passed.

A coin whose shard let the wait run out is `degraded`: it publishes straight after the commit until delivery has caught
up. A publish is tried once, by a deadline; a failed one is counted. Positions reveal it, the history fills it. The
heartbeat of each second carries the last position that does not wait to be tried. So the loss of the last message shows
too, and so does a quote whose commit was not known to have happened until the log was opened anew.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from cotacoes.errors import BusTimedOutError, BusUnavailableError
from cotacoes.model.live_message import CHANNEL_PREFIX, Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.quote_service.history import CoinHistory

QUEUE_QUOTES_MAX = 10_000  # per coin; beyond it the oldest is counted as a failed publish
MESSAGE_LINES_MAX = 100
HEARTBEAT_S = 1.0


class PublishQueue:
    """One coin's quotes between commit and publish. Pure: times are monotonic seconds, passed in."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting: deque[tuple[Quote, float]] = deque()
        self.degraded = False

    def add(self, quotes: Iterable[Quote], now: float) -> int:
        """Recorded just now; returns how many older ones fell out because the queue is full."""
        self._waiting.extend((quote, now + self._wait_s) for quote in quotes)
        dropped = max(0, len(self._waiting) - QUEUE_QUOTES_MAX)
        for _ in range(dropped):
            self._waiting.popleft()
        return dropped

    def take(self, now: float, delivered: Position | None, *, caught_up: bool) -> list[Quote]:
        """Those whose time has come, in order."""
        ready: list[Quote] = []
        while self._waiting:
            quote, due = self._waiting[0]
            is_delivered = delivered is not None and quote.position <= delivered
            if not is_delivered and not self.degraded and now < due:
                break
            if not is_delivered:
                self.degraded = True
            ready.append(self._waiting.popleft()[0])
        if caught_up:
            self.degraded = False
        return ready

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Forget those that wait."""
        self._waiting.clear()

    @property
    def first(self) -> Quote | None:
        """The one whose turn is next, None where none waits."""
        return self._waiting[0][0] if self._waiting else None

    def next_due(self) -> float | None:
        """When the first one's wait is over, None where none waits."""
        return self._waiting[0][1] if self._waiting else None


class Publisher:
    """Publishes for all coins over one bus; `run` is its task. `prefix` is that of the channels."""

    def __init__(
        self,
        histories: Mapping[str, CoinHistory],
        bus: Bus,
        metrics: QuoteMetrics,
        *,
        wait_s: float,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        prefix: str = CHANNEL_PREFIX,
    ) -> None:
        self._prefix = prefix
        self._histories = histories
        self._bus = bus
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._wait_s = wait_s
        self._queues: dict[str, PublishQueue] = {}
        self._wake = asyncio.Event()
        self._published = asyncio.Event()
        self._is_away = False
        self._is_silent = False

    def add(self, quotes: Sequence[Quote]) -> None:
        """These were recorded."""
        if self._is_silent:
            return
        now = self._clock()
        for coin, recorded in itertools.groupby(quotes, key=lambda quote: quote.coin):
            if dropped := self._queue(coin).add(recorded, now):
                self._metrics.publish_failures.labels(coin=coin).inc(dropped)
        self._wake.set()

    def wake(self) -> None:
        """Delivery has come further."""
        self._wake.set()

    async def wait_room(self, quotes: int) -> None:
        """Return once every coin's queue takes so many more without dropping one."""
        while any(len(queue) + quotes > QUEUE_QUOTES_MAX for queue in self._queues.values()):
            self._published.clear()
            await self._published.wait()

    def silence(self) -> None:
        """Publish nothing any more, what waits included: another writer has taken over."""
        self._is_silent = True
        for queue in self._queues.values():
            queue.clear()

    async def run(self) -> None:
        """Publish until cancelled."""
        next_beat = self._clock()
        while True:
            now = self._clock()
            ready = self._take_ready(now)
            is_beat = now >= next_beat
            if is_beat:
                next_beat = max(next_beat + HEARTBEAT_S, now)
            if ready or (is_beat and not self._is_silent):
                await self._publish(ready, is_beat)
            else:
                await self._wait_until(min([next_beat, *self._dues()]))

    def _queue(self, coin: str) -> PublishQueue:
        if coin not in self._queues:  # a coin may join at any time
            self._queues[coin] = PublishQueue(self._wait_s)
        return self._queues[coin]

    def _take_ready(self, now: float) -> dict[str, list[Quote]]:
        taken = {
            coin: queue.take(now, self._histories[coin].delivered, caught_up=self._histories[coin].pending == 0)
            for coin, queue in self._queues.items()
        }
        return {coin: quotes for coin, quotes in taken.items() if quotes}

    def _dues(self) -> list[float]:
        return [due for due in (queue.next_due() for queue in self._queues.values()) if due is not None]

    async def _wait_until(self, due: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, due - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _publish(self, ready: Mapping[str, list[Quote]], is_beat: bool) -> None:
        batches = [
            (coin, quotes[start : start + MESSAGE_LINES_MAX])
            for coin, quotes in ready.items()
            for start in range(0, len(quotes), MESSAGE_LINES_MAX)
        ]
        messages = [(channel(coin, self._prefix), b"\n".join(map(encode_quote, quotes))) for coin, quotes in batches]
        beats = [self._heartbeat(coin) for coin in self._histories] if is_beat else []
        try:
            heard = await self._bus.publish(messages + beats)
        except BusUnavailableError as error:
            self._note_failure(batches, error)
        else:
            self._note_success(batches, heard)
        self._published.set()

    def _heartbeat(self, coin: str) -> tuple[str, bytes]:
        history = self._histories[coin]
        first = self._queue(coin).first
        tried = history.position if first is None else first.before
        prev = history.prev if tried is not None and tried.epoch == history.epoch else None
        return channel(coin, self._prefix), encode_heartbeat(Heartbeat(coin, tried, prev, self._now()))

    def _note_success(self, batches: Sequence[tuple[str, list[Quote]]], heard: Sequence[int]) -> None:
        for (coin, quotes), receivers in zip(batches, heard, strict=False):  # the heartbeats come after the batches
            self._metrics.quotes_published.labels(coin=coin).inc(len(quotes))
            if not receivers:
                self._metrics.messages_without_subscriber.labels(coin=coin).inc()
        if self._is_away:
            self._is_away = False
            get_logger().info("redis.back")

    def _note_failure(self, batches: Sequence[tuple[str, list[Quote]]], error: BusUnavailableError) -> None:
        for coin, quotes in batches:
            self._metrics.publish_failures.labels(coin=coin).inc(len(quotes))
            if isinstance(error, BusTimedOutError):
                self._metrics.publish_timeouts.labels(coin=coin).inc(len(quotes))
        if not self._is_away:
            self._is_away = True
            get_logger().warning("redis.away", reason=error.detail)
