"""The hub: one consumer for all clients, a ring for each coin, and the schedule by which news is sent.

    Redis, history ──▶ FeedConsumer ──▶ apply ──▶ rings ──▶ flush ──▶ channels ──▶ connections

News is sent at once if nothing was sent just before, else together with all that comes in the next moments: a write to
a socket costs the same for one quote as for ten. The length of the pause follows from how long sending takes, so that
it never takes more than a share of the time: milliseconds for a hundred clients, more for a thousand. The share is
larger if many events are sent at once, since each then costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Protocol

from cotacoes.client.modes import Mode
from cotacoes.feed.consumer import log_change
from cotacoes.feed.feeds import FeedEvent
from cotacoes.feed.history import History
from cotacoes.gateway_service.channel import Channel, EveryChannel, Member, NewestChannel, StreamCursor
from cotacoes.gateway_service.encoders import Encoder, Positions
from cotacoes.gateway_service.replay import Replays
from cotacoes.gateway_service.ring import Ring, StreamEntry
from cotacoes.model.coins import require_coin
from cotacoes.model.live_message import decode_message
from cotacoes.model.quote import Position, Quote
from cotacoes.observability.metrics import StreamMetrics
from cotacoes.patterns.pub_sub.recovery_events import (
    Dismissed,
    GapDetected,
    GapFilled,
    GapLost,
    QuoteReceived,
    Retracted,
)
from cotacoes.web.background import Restarts

FLUSH_S = 0.005
FLUSH_MOST_S = 0.03
FLUSH_SHARE = 0.17  # of the time, at most, for sending
FLUSH_SHARE_MOST = 0.5  # the same, from `FLUSH_MANY` events on
FLUSH_MANY = 8
HEARTBEAT_S = 5.0  # a client may consider the link dead after two missing ones
CHECK_S = 1.0

_Key = tuple[tuple[str, ...], Mode, str]


class FeedStates(Protocol):
    """What the hub asks about the feeds of the coins; `Feeds` implements it."""

    @property
    def silent(self) -> Sequence[str]:
        """The coins whose feeds are silent now."""

    def has_begun(self, coin: str) -> bool:
        """Whether it is known where the coin's feed stands."""


class OpenStream(Protocol):
    """An open connection, as the hub sees it."""

    def check(self, now: float) -> None:
        """End the stream if it is too slow, too old or idle."""

    def begin_at_newest(self, coin: str) -> None:
        """Begin the coin at its newest quote, which is known from now on."""


class Hub:
    """The hub of all streams. `ring_bytes` bounds all rings together; `now` returns the time of day in UTC."""

    def __init__(
        self,
        coins: Iterable[str],
        history: History,
        metrics: StreamMetrics,
        *,
        ring_bytes: int,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], datetime],
        random: Random,
        check_s: float = CHECK_S,
    ) -> None:
        self.random = random
        self._check_s = check_s
        self._feeds: FeedStates | None = None
        self._connections: set[OpenStream] = set()
        self._metrics = metrics
        self._ring_bytes = ring_bytes
        self._loop = loop
        self._now = now
        self._rings: dict[str, Ring] = {}
        self._channels: dict[_Key, Channel] = {}
        self._by_coin: dict[str, set[Channel]] = {}
        self._replays = Replays(history, self._rings, call_later=loop.call_later, random=random)
        self._awaiting: dict[OpenStream, set[str]] = {}
        self._dirty: set[str] = set()
        self._fresh = 0  # entries since the last flush
        self._is_due = False
        self._next_flush_at = 0.0
        self._waiting: dict[Channel, set[str]] = {}  # changed coins of each channel within its interval
        self.add(coins)

    @property
    def coins(self) -> Collection[str]:
        """The coins that have streams."""
        return self._rings.keys()

    @property
    def connections(self) -> Collection[OpenStream]:
        """The open connections."""
        return self._connections

    def follow(self, feeds: FeedStates) -> None:
        """Take the state of the coins' feeds from here; until then every feed counts as begun and none as silent."""
        self._feeds = feeds

    def newest(self, coin: str) -> tuple[Quote, float] | None:
        """The newest quote of the coin's stream, and the larger of its ages by the wall clock and our own."""
        ring = self._rings.get(coin)
        if ring is None or ring.newest is None:
            return None
        (quote,) = decode_message(ring.newest.text)
        assert isinstance(quote, Quote)
        age_s = max((self._now() - quote.observed_at).total_seconds(), self._loop.time() - ring.newest_at)
        return quote, max(0.0, age_s)

    def choose(self, names: Iterable[str]) -> list[str]:
        """The coins of these names, sorted, without duplicates; UnknownCoinError for an unknown one."""
        return sorted({require_coin(name, self._rings) for name in names})

    def add(self, coins: Iterable[str]) -> None:
        """Create rings for coins that have none."""
        for coin in coins:
            if coin not in self._rings:
                self._rings[coin] = Ring(coin, 0)
                self._by_coin[coin] = set()
        for ring in self._rings.values():
            ring.resize(self._ring_bytes // len(self._rings))

    async def run(self, restarts: Restarts) -> None:
        """Replay, send heartbeats and check the connections, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._replays.run(restarts))
            group.create_task(restarts.kept("heartbeats", self._beat))
            group.create_task(restarts.kept("checks", self._check))

    async def apply(self, events: Sequence[FeedEvent]) -> None:
        """Apply the events that FeedConsumer emits."""
        for event in events:
            match event:
                case QuoteReceived(quote, text):
                    self._append(StreamEntry.of_quote(quote, text))
                    continue  # quotes are counted, never logged
                case GapLost(gap):
                    self._append(StreamEntry.of_gap(gap))
                    self._metrics.feed_gaps.labels(coin=gap.coin, kind="lost").inc()
                case Retracted(gap):
                    self._append(StreamEntry.of_retraction(gap))
                    self._metrics.feed_gaps.labels(coin=gap.coin, kind="retracted").inc()
                case Dismissed(gap):
                    self._metrics.feed_gaps.labels(coin=gap.coin, kind="dismissed").inc()
                case GapDetected(gap):
                    self._metrics.feed_gaps.labels(coin=gap.coin, kind="missed").inc()
                case GapFilled(coin):
                    self._metrics.feed_gaps.labels(coin=coin, kind="recovered").inc()
            log_change(event)
        if self._awaiting:
            self._note_begun()

    def begin(
        self, coins: Collection[str], mode: Mode, since: Mapping[str, Position]
    ) -> tuple[StreamCursor, dict[str, bool], set[str]]:
        """Where a stream of these coins begins, whether all after `since` will come, and which coins are undecided."""
        cursor, recovered, unresolved = StreamCursor({}, {}), {}, set()
        for coin in coins:
            ring = self._rings[coin]
            first = ring.index_of_newest()
            index: int | None = first
            begun = ring.read(first, 1)
            position = begun[0].before if begun else ring.last_emitted
            recovered[coin] = coin in since
            if coin not in since and not self._has_begun(coin):
                unresolved.add(coin)  # its newest quote is not known yet
            if coin in since and (mode.is_every or ring.last_emitted is None or since[coin] <= ring.last_emitted):
                position = since[coin]
                index = ring.index_after(position)
                if index is None and mode.is_every:
                    unresolved.add(coin)
            elif coin in since:
                recovered[coin] = False  # the newest quote cannot stand for a later position
            cursor.positions[coin], cursor.indexes[coin] = position, index
        return cursor, recovered, unresolved

    def channel(self, coins: Sequence[str], mode: Mode, wire: Encoder) -> Channel:
        """The channel for these coins in this mode, brought up to date."""
        key = (tuple(coins), mode, wire.name)
        channel = self._channels.get(key)
        if channel is None:
            kind = EveryChannel if mode.is_every else NewestChannel
            channel = self._channels[key] = kind(
                coins, mode, wire, self._rings, ask_history=self.ask_history, call_soon=self._loop.call_soon
            )
            for coin in coins:
                self._by_coin[coin].add(channel)
        elif mode.is_every:
            channel.flush(channel.coins)
        return channel

    def leave(self, channel: Channel, member: Member) -> StreamCursor:
        """Remove a member from its channel, which ends with its last member; return where the member stands."""
        cursor = channel.leave(member)
        if not channel.live and not channel.behind:
            self._channels.pop((channel.coins, channel.mode, channel.wire.name), None)
            self._waiting.pop(channel, None)
            self._count(channel)
            for coin in channel.coins:
                self._by_coin[coin].discard(channel)
        return cursor

    def await_begin(self, connection: OpenStream, coins: Collection[str]) -> None:
        """Call the connection back once the newest quotes of these coins are known."""
        self._awaiting.setdefault(connection, set()).update(coins)

    def watch(self, connection: OpenStream) -> None:
        """Check the connection every `check_s` until it is forgotten."""
        self._connections.add(connection)

    def forget(self, connection: OpenStream) -> None:
        """The connection has ended."""
        self._connections.discard(connection)
        self._awaiting.pop(connection, None)

    def heartbeat(self, wire: Encoder, positions: Positions) -> bytes:
        """A heartbeat with the present time, for a stream that has come to these positions."""
        return wire.heartbeat(self._now(), positions, self._silent())

    def ask_history(self, channel: Channel, member: Member, coin: str) -> None:
        """Read from the history what a member needs and the ring no longer has."""
        self._replays.ask(channel, member, coin)

    def _append(self, entry: StreamEntry) -> None:
        self._rings[entry.coin].append(entry, self._loop.time())
        self._dirty.add(entry.coin)
        self._fresh += 1
        if not self._is_due:
            self._is_due = True
            wait_s = self._next_flush_at - self._loop.time()
            if wait_s > 0:
                self._loop.call_later(wait_s, self._flush)
            else:
                self._loop.call_soon(self._flush)  # together with the rest of the current message

    def _flush(self) -> None:
        started = self._loop.time()
        share = FLUSH_SHARE if self._fresh < FLUSH_MANY else FLUSH_SHARE_MOST
        dirty, self._dirty, self._fresh, self._is_due = self._dirty, set(), 0, False
        changed: dict[Channel, list[str]] = {}
        for coin in dirty:
            for channel in self._by_coin[coin]:
                changed.setdefault(channel, []).append(coin)
        for channel, coins in changed.items():
            if channel.mode.interval_s is None:
                channel.flush(coins)
                channel.serve_all()
            else:
                self._flush_by_interval(channel, channel.mode.interval_s, coins)
        spent_s = self._loop.time() - started
        self._next_flush_at = started + min(FLUSH_MOST_S, max(FLUSH_S, spent_s / share))

    def _flush_by_interval(self, channel: Channel, interval_s: float, coins: Iterable[str]) -> None:
        """Send now if the interval has passed, else at its end."""
        if channel in self._waiting:
            self._waiting[channel].update(coins)
            return
        channel.flush(coins)
        channel.serve_all()
        self._waiting[channel] = set()
        self._loop.call_later(interval_s, self._interval_over, channel)

    def _interval_over(self, channel: Channel) -> None:
        coins = self._waiting.pop(channel, None)
        if coins and channel.mode.interval_s is not None:
            self._flush_by_interval(channel, channel.mode.interval_s, coins)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            silent = self._silent()
            for channel in list(self._channels.values()):
                channel.heartbeat(self._now(), silent)
                self._count(channel)

    def _silent(self) -> Sequence[str]:
        return [] if self._feeds is None else self._feeds.silent

    def _has_begun(self, coin: str) -> bool:
        return self._feeds is None or self._feeds.has_begun(coin)

    def _note_begun(self) -> None:
        for connection, coins in list(self._awaiting.items()):
            begun = set(filter(self._has_begun, coins))
            coins.difference_update(begun)
            if not coins:
                del self._awaiting[connection]
            for coin in begun:
                connection.begin_at_newest(coin)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            self._note_begun()
            now = self._loop.time()
            for connection in list(self._connections):
                connection.check(now)
            self._metrics.ring_size.set(sum(ring.bytes for ring in self._rings.values()))

    def _count(self, channel: Channel) -> None:
        self._metrics.stream_events.labels(wire=channel.wire.name).inc(channel.pop_delivered())
