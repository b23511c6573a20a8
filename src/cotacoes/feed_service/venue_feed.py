"""The feed of one venue: one connection after the other, for as long as the service runs.

    waiting ──▶ connecting ──▶ subscribed ──▶ live ──▶ (ended: the reason is kept) ──▶ waiting …

A connection is opened through the venue's circuit breaker. It counts as a success once it has brought good books for
10 s, and only then does the back-off begin again; one that ends before is a failure, however it began.

Before the venue's own limit is reached, or when the venue says that it will close, the next connection is opened first,
and the old one is closed when the new one is live. So is one that subscribes to further coins.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Literal, Protocol

from cotacoes.adapters.websocket_client import RawLink
from cotacoes.errors import FrameError, StreamUnavailableError
from cotacoes.feed_service.books import Books, VenueClock
from cotacoes.feed_service.closings import PLANNED, Closing
from cotacoes.feed_service.connection import Connection
from cotacoes.feed_service.limits import FEED_LIMITS, FeedLimits
from cotacoes.feed_service.openings import Openings
from cotacoes.feed_service.venues.venue import Venue
from cotacoes.feed_service.watch import EndReason, Rhythm
from cotacoes.model.venue_symbols import VenueSymbol
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import FeedMetrics
from cotacoes.patterns.resilience import CallVerdict, CircuitBreaker, Permit

RENEWAL_SHARE = 0.9  # of a connection's lifetime, less up to a tenth more
NO_COINS_S = 3600.0  # to wait for if a venue has none of the coins; a new coin ends the wait

State = Literal["waiting", "connecting", "subscribed", "live"]


@dataclass
class FeedCounts:
    """What a feed has counted since the service started."""

    frames: int = 0
    books: int = 0
    malformed: int = 0
    gaps: int = 0
    openings: int = 0


@dataclass
class Absence:
    """A coin that the venue does not send: why, how often in a row, and until when it is left out."""

    reason: str
    tries: int = 0
    until_s: float = float("-inf")


@dataclass
class FeedStatus:
    """What `/v1/venues` shows of a feed; times are seconds of the monotonic clock."""

    state: State = "waiting"
    since_s: float = 0.0
    last_closing: Closing | None = None
    closed_s: float | None = None
    counts: FeedCounts = field(default_factory=FeedCounts)
    absent: dict[str, Absence] = field(default_factory=dict)


class FrameTap(Protocol):
    """Hears of what a feed receives, as it comes."""

    def note_opened(self, venue: str, symbols: Mapping[str, VenueSymbol]) -> None:
        """A connection is open, which subscribes to these symbols."""
        ...

    def note_frame(self, venue: str, frame: bytes) -> None:
        """A frame has come."""
        ...

    def note_closed(self, venue: str, reason: str) -> None:
        """A connection has ended."""
        ...


class VenueFeed:
    """The feed of one venue; `run` is its task.

    `url` is shown, `connect` opens a link to it. `symbols_of` gives the venue's symbols of the coins that are wanted
    now. `renewals` is shared by all venues, so that one at a time renews its connection. `tap` hears of each
    connection and frame.
    """

    def __init__(
        self,
        venue: Venue,
        url: str,
        *,
        symbols_of: Callable[[], Mapping[str, VenueSymbol]],
        books: Books,
        price_of: Callable[[str], Decimal | None],
        breaker: CircuitBreaker,
        renewals: asyncio.Lock,
        metrics: FeedMetrics,
        connect: Callable[[], Awaitable[RawLink]],
        clock: Callable[[], float],
        wall_s: Callable[[], float],
        random: Random,
        tap: FrameTap | None = None,
        limits: FeedLimits = FEED_LIMITS,
    ) -> None:
        self.venue = venue
        self.url = url
        self.status = FeedStatus(since_s=clock())
        self.venue_clock = VenueClock(wall_s=wall_s)
        self._symbols_of = symbols_of
        self._books = books
        self._price_of = price_of
        self._breaker = breaker
        self._renewals = renewals
        self._metrics = metrics
        self._connect = connect
        self._clock = clock
        self._random = random
        self._tap = tap
        self._limits = limits
        self._openings = Openings(random)
        self._rhythms: dict[str, Rhythm] = {}
        self._renew = asyncio.Event()
        self._logged: str | None = None  # the reason of the outage that is logged; None while all is well
        self._live_since_s: float | None = None
        self._renew_at_s = float("inf")
        self._show("waiting")

    def renew(self) -> None:
        """Replace the connection by a new one, which subscribes to the coins that are wanted now."""
        self._renew.set()

    async def run(self) -> None:
        """Follow the venue until cancelled."""
        while True:
            permit = await self._wait_turn()
            async with asyncio.TaskGroup() as group:
                await self._follow(group, permit)

    # what a connection reports

    def note_opened(self, symbols: Mapping[str, VenueSymbol]) -> None:
        if self._tap is not None:
            self._tap.note_opened(self.venue.name, symbols)

    def note_frame(self, frame: bytes) -> None:
        self.status.counts.frames += 1
        if self._tap is not None:
            self._tap.note_frame(self.venue.name, frame)

    def note_book(self, coin: str) -> None:
        self.status.counts.books += 1
        self.status.absent.pop(coin, None)

    def note_gap(self, frames: int) -> None:
        self.status.counts.gaps += 1
        self._metrics.sequence_gaps.labels(venue=self.venue.name).inc()

    def note_malformed(self, error: FrameError) -> None:
        counts = self.status.counts
        counts.malformed += 1
        self._metrics.frames_malformed.labels(venue=self.venue.name).inc()
        if counts.malformed == 1:  # the rest is in the metric
            get_logger().warning("frame.malformed", venue=self.venue.name, reason=str(error))

    def note_subscribed(self) -> None:
        if self.status.state == "connecting":
            self._show("subscribed")

    def note_live(self) -> None:
        if self._live_since_s is None:
            self._live_since_s = self._clock()
        self._show("live")
        if self._logged is not None:
            get_logger().info("venue.live", venue=self.venue.name, after=self._logged)
            self._logged = None

    def note_absent(self, coin: str, reason: str) -> None:
        tries, before = self._limits.absent_tries, self.status.absent.get(coin)
        if before is None or before.tries < tries:
            get_logger().warning("venue.coin_absent", venue=self.venue.name, coin=coin, reason=reason)
        until_s = self._clock() + self._limits.absent_s
        self.status.absent[coin] = Absence(reason, tries, until_s)
        self._renew_at_s = min(self._renew_at_s, until_s)

    def note_leaving(self, reason: str) -> None:
        get_logger().info("venue.leaving", venue=self.venue.name, reason=reason)
        self._renew.set()

    # the way of the connections

    async def _wait_turn(self) -> Permit:
        """Wait until a connection may be opened."""
        self._show("waiting")
        while True:
            while not self._wanted():
                self._renew.clear()
                again_s = min(self._absent_until_s(), default=float("inf")) - self._clock()
                await _first_of(self._renew.wait(), timeout_s=min(again_s, NO_COINS_S))
            if (wait_s := self._openings.wait_s(self._clock())) > 0:
                await asyncio.sleep(wait_s)
            elif permit := self._breaker.try_acquire():
                return permit
            else:
                await asyncio.sleep(min(max(0.05, self._breaker.retry_after() or 0.0), 5.0))

    async def _follow(self, group: asyncio.TaskGroup, permit: Permit) -> None:
        """Follow one connection, and each that replaces it, until one ends that was not replaced."""
        self._live_since_s = None
        self._show("connecting")
        present = self._open(group, permit)
        while not present.is_over():
            wait_s = max(0.0, self._renew_at_s - self._clock())  # it may come nearer meanwhile
            wait_s = min(wait_s, self._limits.renewal_retry_s)
            await _first_of(present.wait(), self._renew.wait(), timeout_s=wait_s)
            if not present.is_over() and (self._renew.is_set() or self._clock() >= self._renew_at_s):
                present = await self._replaced(group, present)
        self._note_closed(await present.wait())

    async def _replaced(self, group: asyncio.TaskGroup, present: _Open) -> _Open:
        """The next connection in place of the present one, which stays if the next one does not become live."""
        async with self._turn_to_renew(present) as is_our_turn:
            if not is_our_turn or present.is_over():
                return present
            self._renew.clear()
            retry_at_s = self._renew_at_s = self._clock() + self._limits.renewal_retry_s  # if this one does not succeed
            permit = self._breaker.try_acquire() if self._openings.wait_s(self._clock()) <= 0 else None
            if permit is None:
                return present
            following = self._open(group, permit)
            its = following.connection
            await _first_of(its.live.wait(), following.wait(), present.wait(), timeout_s=self._limits.renewal_s)
            if present.is_over():
                self._note_closed(await present.wait())
                self._show("live" if its.live.is_set() else "subscribed" if its.was_opened else "connecting")
                return following
            if its.live.is_set() and not following.is_over():
                present.close(PLANNED)
                return following
            following.close(PLANNED)
            self._renew_at_s = retry_at_s
            return present

    @contextlib.asynccontextmanager
    async def _turn_to_renew(self, present: _Open) -> AsyncIterator[bool]:
        """Wait until no other venue renews its connection; False if the present one has ended before."""
        turn = asyncio.ensure_future(self._renewals.acquire())
        try:
            await _first_of(turn, present.wait())
            yield _is_done(turn)
        finally:
            if _is_done(turn):
                self._renewals.release()

    def _open(self, group: asyncio.TaskGroup, permit: Permit) -> _Open:
        self._openings.note_opening(self._clock())
        self._renew.clear()
        self._renew_at_s = self._next_renewal_s()
        self.status.counts.openings += 1
        self._metrics.connections_opened.labels(venue=self.venue.name).inc()
        symbols = self._wanted()
        for coin in symbols:
            self._rhythms.setdefault(coin, Rhythm())
        connection = Connection(
            self.venue,
            symbols,
            books=self._books,
            venue_clock=self.venue_clock,
            rhythms=self._rhythms,
            price_of=self._price_of,
            observer=self,
            connect=self._connect,
            clock=self._clock,
            limits=self._limits,
        )
        return _Open(connection, group.create_task(self._judged(connection, permit)))

    async def _judged(self, connection: Connection, permit: Permit) -> Closing:
        """Run a connection; the breaker learns that it is steady, or that it ended before it was."""
        verdict = CallVerdict.IGNORED
        try:
            async with asyncio.TaskGroup() as group:
                steady = group.create_task(self._note_steady(connection, permit))
                try:
                    closing = await connection.run()
                finally:
                    steady.cancel()
            self._metrics.connections_closed.labels(venue=self.venue.name, reason=closing.reason).inc()
            if closing is not PLANNED:
                verdict = CallVerdict.FAILURE
                self._openings.note_failure(self._clock(), closing.retry_after_s)
            if self._tap is not None and connection.was_opened:
                self._tap.note_closed(self.venue.name, closing.reason)
            return closing
        finally:
            permit.settle(verdict, StreamUnavailableError(closing.text) if verdict is CallVerdict.FAILURE else None)

    async def _note_steady(self, connection: Connection, permit: Permit) -> None:
        await connection.steady.wait()
        permit.settle(CallVerdict.SUCCESS)
        self._openings.note_steady()

    def _note_closed(self, closing: Closing) -> None:
        self.status.last_closing, self.status.closed_s = closing, self._clock()
        if closing.reason == EndReason.NEVER and self._live_since_s is not None:
            self._note_never(closing)
        if self._logged != closing.reason:
            self._logged = closing.reason
            get_logger().warning("venue.closed", venue=self.venue.name, reason=closing.reason, text=closing.text)

    def _note_never(self, closing: Closing) -> None:
        """A coin never came while others did: after a second time it is left out for a while."""
        if (coin := closing.coin) is None:
            return
        reason, before = "the venue sends nothing of it", self.status.absent.get(coin)
        tries = 1 if before is None else before.tries + 1
        if tries >= self._limits.absent_tries:
            self.note_absent(coin, reason)
        else:
            self.status.absent[coin] = Absence(reason, tries)

    def _wanted(self) -> dict[str, VenueSymbol]:
        """The coins to subscribe to: those of the venue, without those that are left out for now."""
        now_s = self._clock()
        absent = self.status.absent
        return {
            coin: symbol
            for coin, symbol in self._symbols_of().items()
            if coin not in absent or absent[coin].until_s <= now_s
        }

    def _next_renewal_s(self) -> float:
        """When the present connection is to be renewed: before the venue ends it, or to try an absent coin again."""
        times = self._absent_until_s()
        if self.venue.lifetime_s is not None:
            times.append(self._clock() + self.venue.lifetime_s * (RENEWAL_SHARE - 0.1 * self._random.random()))
        return min(times, default=float("inf"))

    def _absent_until_s(self) -> list[float]:
        """When coins that are left out now are to be tried again."""
        return [absence.until_s for absence in self.status.absent.values() if absence.until_s > self._clock()]

    def _show(self, state: State) -> None:
        if state != self.status.state:
            self.status.state, self.status.since_s = state, self._clock()
        self._metrics.venue_live.labels(venue=self.venue.name).set(state == "live")


@dataclass(frozen=True)
class _Open:
    connection: Connection
    task: asyncio.Task[Closing]

    def is_over(self) -> bool:
        return self.task.done()

    async def wait(self) -> Closing:
        """Wait for its end; cancelling the wait does not end it."""
        return await asyncio.shield(self.task)

    def close(self, closing: Closing) -> None:
        self.connection.close(closing)


async def _first_of(*waits: Awaitable[object], timeout_s: float | None = None) -> None:
    """Wait for the first of these, or for the time to be over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _is_done(task: asyncio.Task[Literal[True]]) -> bool:
    return task.done() and not task.cancelled()
