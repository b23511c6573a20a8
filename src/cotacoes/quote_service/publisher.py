"""Publishing: each recorded quote once, in order, when the shard has answered for it or `wait_s` has passed.

It is the end of a quote's way: from here it goes to Redis, on the channel of its coin.

A coin whose shard let the wait run out is `degraded`: its quotes are published straight after the commit until delivery
has caught up. A publish is tried once, with a deadline; a failed one is counted. Subscribers see it by the positions
and get the quotes from the history. The heartbeat of each second carries the last position whose publish is not still
to come, so the loss of the last message shows too, and so does a quote whose commit was known only when the log was
opened again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from cotacoes.errors import BusTimedOutError, BusUnavailableError
from cotacoes.model.live_message import CHANNEL_PREFIX, Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote, utc_now
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.writer import Writer

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
        """Add quotes just recorded; returns how many older ones were dropped because the queue is full."""
        self._waiting.extend((quote, now + self._wait_s) for quote in quotes)
        dropped = max(0, len(self._waiting) - QUEUE_QUOTES_MAX)
        for _ in range(dropped):
            self._waiting.popleft()
        return dropped

    def pop_ready(self, now: float, delivered: Position | None, *, caught_up: bool) -> list[Quote]:
        """Remove and return the quotes whose time has come, in order."""
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

    @property
    def first(self) -> Quote | None:
        """The quote to be published next; None if none waits."""
        return self._waiting[0][0] if self._waiting else None

    def next_due(self) -> float | None:
        """When the first quote's wait is over; None if none waits."""
        return self._waiting[0][1] if self._waiting else None


class Publisher:
    """Publishes for all coins over one bus; `run` is its task.

    `prefix` is that of the channels, `now` gives the wall time, `clock` monotonic seconds. Nothing more is published
    once another writer has taken over, not even quotes that wait.
    """

    def __init__(
        self,
        histories: Mapping[str, CoinHistory],
        bus: Bus,
        *,
        writer: Writer,
        metrics: QuoteMetrics,
        wait_s: float,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        prefix: str = CHANNEL_PREFIX,
    ) -> None:
        self._prefix = prefix
        self._histories = histories
        self._bus = bus
        self._writer = writer
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._wait_s = wait_s
        self._queues: dict[str, PublishQueue] = {}
        self._wake = asyncio.Event()
        self._published = asyncio.Event()
        self._is_away = False

    def on_recorded(self, quotes: Sequence[Quote]) -> None:
        """The log has committed these: they wait for the answer of their shard, or for `wait_s`."""
        if self._writer.is_superseded:
            return
        now = self._clock()
        for coin, recorded in itertools.groupby(quotes, key=lambda quote: quote.coin):
            if dropped := self._queue(coin).add(recorded, now):
                self._metrics.publish_failures.labels(coin=coin).inc(dropped)
        self._wake.set()

    def on_delivered(self) -> None:
        """A shard has answered: quotes that wait for that may be published."""
        self._wake.set()

    async def wait_room(self, quotes: int) -> None:
        """Return when so many more quotes fit into every coin's queue."""
        while any(len(queue) + quotes > QUEUE_QUOTES_MAX for queue in self._queues.values()):
            self._published.clear()
            await self._published.wait()

    async def run(self) -> None:
        """Publish until cancelled, or until another writer has taken over."""
        next_beat = self._clock()
        while not self._writer.is_superseded:
            now = self._clock()
            ready = self._pop_ready(now)
            is_beat = now >= next_beat
            if is_beat:
                next_beat = max(next_beat + HEARTBEAT_S, now)
            if ready or is_beat:
                await self._publish(ready, is_beat)
            else:
                await self._wait_until(min([next_beat, *self._dues()]))

    def _queue(self, coin: str) -> PublishQueue:
        if coin not in self._queues:  # a coin may join at any time
            self._queues[coin] = PublishQueue(self._wait_s)
        return self._queues[coin]

    def _pop_ready(self, now: float) -> dict[str, list[Quote]]:
        ready = {
            coin: queue.pop_ready(now, self._histories[coin].delivered, caught_up=self._histories[coin].pending == 0)
            for coin, queue in self._queues.items()
        }
        return {coin: quotes for coin, quotes in ready.items() if quotes}

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
