"""One connection to a venue: open, subscribe, read and watch, until it ends. It says why it ended, and never raises."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from cotacoes.adapters.websocket_client import RawLink
from cotacoes.errors import FrameError, StreamError
from cotacoes.feed_service.books import Books, VenueClock
from cotacoes.feed_service.closings import Closing, closing_by, closing_of
from cotacoes.feed_service.limits import FEED_LIMITS, FeedLimits
from cotacoes.feed_service.venues.venue import Book, ClockSeen, Event, Leaving, SequenceGap, SubscriptionRefused, Venue
from cotacoes.feed_service.watch import Rhythm, Watch
from cotacoes.model.venue_symbols import VenueSymbol
from cotacoes.patterns.consensus import VenueBook

LOOK_S = 0.25  # how often the watch is asked
SEND_S = 5.0  # for a frame of ours to leave


class Observer(Protocol):
    """What a connection reports while it is open."""

    def note_opened(self, symbols: Mapping[str, VenueSymbol]) -> None: ...
    def note_frame(self, frame: bytes) -> None: ...
    def note_malformed(self, error: FrameError) -> None: ...
    def note_gap(self, frames: int) -> None: ...
    def note_book(self, coin: str) -> None: ...
    def note_subscribed(self) -> None: ...
    def note_live(self) -> None: ...
    def note_absent(self, coin: str, reason: str) -> None: ...
    def note_leaving(self, reason: str) -> None: ...


class Connection:
    """One connection to `venue` for these coins. `price_of` gives the present consensus of a coin.

    `connect` opens a link to its address. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        venue: Venue,
        symbols: Mapping[str, VenueSymbol],
        *,
        books: Books,
        venue_clock: VenueClock,
        rhythms: Mapping[str, Rhythm],
        price_of: Callable[[str], Decimal | None],
        observer: Observer,
        connect: Callable[[], Awaitable[RawLink]],
        clock: Callable[[], float],
        limits: FeedLimits = FEED_LIMITS,
    ) -> None:
        self.live = asyncio.Event()
        self.steady = asyncio.Event()  # good books have come for `limits.steady_s`
        self._venue = venue
        self._symbols = symbols
        self._coins: dict[str, list[tuple[str, str]]] = {}  # by symbol; a stablecoin can be a coin and a rate
        for coin, at in symbols.items():
            self._coins.setdefault(at.symbol, []).append((coin, at.currency))
        self._session = venue.open(list(self._coins))
        self._books = books
        self._venue_clock = venue_clock
        self._rhythms = rhythms
        self._price_of = price_of
        self._observer = observer
        self._connect = connect
        self._clock = clock
        self._limits = limits
        self._opening: asyncio.Future[RawLink] | None = None
        self._link: RawLink | None = None
        self._closing: Closing | None = None
        self._live_since_s = float("inf")
        self._is_left = False
        self._watch = self._new_watch()

    def close(self, closing: Closing) -> None:
        """End the connection for this reason; the first one counts."""
        self._closing = self._closing or closing
        if self._link is not None:
            self._link.abort()
        elif self._opening is not None:
            self._opening.cancel()

    @property
    def was_opened(self) -> bool:
        """Whether there has been a connection at all."""
        return self._link is not None

    async def run(self) -> Closing:
        """Open it and follow it to its end; returns why it ended."""
        self._link = link = await self._open()
        if link is None:
            assert self._closing is not None
            return self._closing
        self._observer.note_opened(self._symbols)
        self._watch = self._new_watch()  # from now on, when the connection is open
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(work) for work in (self._subscribe(link), self._look(link))]
                try:
                    await link.hand_over(self._read)
                except StreamError as error:
                    self._closing = self._closing or closing_of(error)
                finally:
                    for task in beside:
                        task.cancel()
        finally:
            link.abort()
        assert self._closing is not None
        return self._closing

    async def _open(self) -> RawLink | None:
        """The open link; None if there is none, and then `_closing` says why."""
        self._opening = asyncio.ensure_future(self._connect())
        try:
            return await self._opening
        except StreamError as error:
            self._closing = self._closing or closing_of(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closing is None or (task is not None and task.cancelling()):
                raise
        return None

    def _new_watch(self) -> Watch:
        watch = Watch(
            self._venue.heartbeat_s,
            lambda coin, since_s: self._books.heard_since(coin, since_s, besides=self._venue.name),
            self._clock(),
            self._limits.watch,
        )
        watch.expect((coin, self._rhythms[coin]) for named in self._coins.values() for coin, _ in named)
        return watch

    async def _subscribe(self, link: RawLink) -> None:
        with contextlib.suppress(StreamError):  # the reader learns of it as well
            await self._send(link, self._session.opening())
            self._observer.note_subscribed()

    async def _send(self, link: RawLink, frames: Sequence[str]) -> None:
        for number, frame in enumerate(frames):
            if number:
                await asyncio.sleep(self._venue.pause_s)
            try:
                async with asyncio.timeout(SEND_S):
                    await link.send(frame)
            except TimeoutError:
                self.close(Closing("cut", "the venue takes nothing that is sent to it"))

    def _read(self, frame: bytes) -> None:
        received_s = self._clock()
        self._watch.note_frame(received_s)
        self._observer.note_frame(frame)
        try:
            events = self._session.read(frame)
        except FrameError as error:
            self._observer.note_malformed(error)
        else:
            for event in events:
                self._handle(event, received_s)

    def _handle(self, event: Event, received_s: float) -> None:
        match event:
            case Book():
                self._note_book(event, received_s)
            case ClockSeen(exchange_at=exchange_at):
                self._venue_clock.as_of_s(received_s, exchange_at)
            case SequenceGap(frames=frames):
                self._watch.note_gap(received_s)
                self._observer.note_gap(frames)
            case SubscriptionRefused(symbol=symbol, reason=reason):
                self._note_refused(symbol, reason)
            case Leaving(reason=reason):
                if not self._is_left:
                    self._is_left = True
                    self._observer.note_leaving(reason)

    def _note_book(self, book: Book, received_s: float) -> None:
        as_of_s = self._venue_clock.as_of_s(received_s, book.exchange_at)
        for coin, currency in self._coins.get(book.symbol, ()):
            self._observer.note_book(coin)
            if not self._watch.note_book(coin, received_s, (book.bid, book.ask), self._price_of(coin)):
                continue
            if not self.live.is_set():
                self.live.set()
                self._live_since_s = received_s
                self._observer.note_live()
            if received_s - self._live_since_s >= self._limits.steady_s:
                self.steady.set()
            held = VenueBook(self._venue.name, currency, book.bid, book.ask, as_of_s)
            self._books.note(coin, held, received_s=received_s)

    def _note_refused(self, symbol: str | None, reason: str) -> None:
        if symbol is None or symbol not in self._coins:
            self.close(Closing("subscription_refused", f"the venue refused the subscription: {reason}"))
            return
        for coin, _ in self._coins[symbol]:
            self._watch.give_up(coin)
            self._observer.note_absent(coin, reason)

    async def _look(self, link: RawLink) -> None:
        """Ask the watch, and send the venue's own kind of ping."""
        ping_s = self._clock() + self._venue.ping_s
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = self._clock()
            if ending := self._watch.verdict(now_s):
                self.close(closing_by(ending))
            if self._venue.ping is not None and now_s >= ping_s:
                ping_s = now_s + self._venue.ping_s
                with contextlib.suppress(StreamError):
                    await self._send(link, [self._venue.ping])
