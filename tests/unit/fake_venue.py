"""A venue in memory with a protocol of its own, whose links do what a test says, in virtual time."""

import asyncio
import contextlib
import functools
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, NoReturn, ParamSpec

from tests.unit import fake_event_loop

from cotacoes.errors import FrameError, StreamError, StreamUnavailableError
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.feeds import VENUE_BREAKER
from cotacoes.feed_service.limits import FEED_LIMITS, FeedLimits
from cotacoes.feed_service.venue_feed import VenueFeed
from cotacoes.feed_service.venues.venue import (
    Alive,
    Book,
    Event,
    Leaving,
    SequenceGap,
    SubscriptionRefused,
    Venue,
)
from cotacoes.model.venue_symbols import VenueSymbol
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.patterns.consensus import VenueBook
from cotacoes.patterns.resilience import CircuitBreaker

WALL_S = 1_800_000_000.0
BOOK_EVERY_S = 0.3
BITCOIN, ETHER = "BTC", "ETH"
COINS = {"bitcoin": VenueSymbol(BITCOIN, "USD")}
BOTH = {**COINS, "ethereum": VenueSymbol(ETHER, "USD")}


class FakeSession:
    """Reads words: `book BTC 67000`, `gap 3`, `refused BTC why`, `refused - why`, `leaving why`, `alive`."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = symbols

    def opening(self) -> Sequence[str]:
        return [f"subscribe {symbol}" for symbol in self._symbols]

    def read(self, frame: bytes) -> Sequence[Event]:
        match frame.decode().split(" ", 2):
            case ["book", symbol, bid]:
                return [Book(symbol, Decimal(bid), Decimal(bid) + 1)]
            case ["gap", frames]:
                return [SequenceGap(int(frames))]
            case ["refused", symbol, reason]:
                return [SubscriptionRefused(None if symbol == "-" else symbol, reason)]
            case ["leaving", reason]:
                return [Leaving(reason)]
            case ["alive"]:
                return [Alive()]
        raise FrameError("the frame cannot be read")


class FakeLink:
    """A link to the venue. Every 0.3 s it sends a book of each symbol in `symbols` that was subscribed to."""

    def __init__(self, *, symbols: set[str], takes_frames: bool, opened_s: float) -> None:
        self.opened_s = opened_s
        self.ended_s: float | None = None
        self.sent: list[str] = []
        self.symbols = symbols
        self.price = "67000"
        self._takes_frames = takes_frames
        self._frames: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._error: StreamError | None = None
        self._beat()

    def put(self, *frames: str) -> None:
        """The venue sends these."""
        self._frames.extend(frame.encode() for frame in frames)
        self._news.set()

    def end(self, error: StreamError | None = None) -> None:
        """The venue ends the connection, after what it has sent."""
        if self.ended_s is None:
            self.ended_s = asyncio.get_running_loop().time()
            self._error = error or StreamUnavailableError("the connection was cut")
            self._news.set()

    def stall(self) -> None:
        self.symbols = set()

    @property
    def is_open(self) -> bool:
        return self.ended_s is None

    def _beat(self) -> None:
        if self.ended_s is None:
            for symbol in sorted(self.symbols):
                if f"subscribe {symbol}" in self.sent:
                    self.put(f"book {symbol} {self.price}")
            asyncio.get_running_loop().call_later(BOOK_EVERY_S, self._beat)

    # what the feed calls

    async def send(self, text: str) -> None:
        if not self._takes_frames:
            await asyncio.Event().wait()
        self.sent.append(text)

    async def receive(self) -> bytes:
        while not self._frames:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft()

    async def hand_over(self, take: Callable[[bytes], None]) -> NoReturn:
        while True:
            take(await self.receive())

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.end()


@dataclass
class FakeVenue:
    """What the venue does with the next connections, and those that it has had."""

    symbols: set[str] = field(default_factory=lambda: {BITCOIN, ETHER})
    error: StreamError | None = None  # instead of a connection
    opening_s: float = 0.05
    takes_frames: bool = True
    links: list[FakeLink] = field(default_factory=list)
    tried_s: list[float] = field(default_factory=list)

    async def connect(self) -> FakeLink:
        self.tried_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.opening_s)
        if self.error is not None:
            raise self.error
        self.links.append(
            FakeLink(
                symbols=set(self.symbols),
                takes_frames=self.takes_frames,
                opened_s=asyncio.get_running_loop().time(),
            )
        )
        return self.links[-1]

    @property
    def link(self) -> FakeLink:
        """The newest."""
        return self.links[-1]

    @property
    def open_links(self) -> list[FakeLink]:
        return [link for link in self.links if link.is_open]


class FeedRig:
    """Feeds of fake venues, with what they share. The first one is `feed`, of `venue`."""

    def __init__(
        self,
        count: int = 1,
        *,
        symbols: Mapping[str, VenueSymbol] | None = None,
        heartbeat_s: float | None = None,
        lifetime_s: float | None = None,
        ping: str | None = None,
        limits: FeedLimits = FEED_LIMITS,
    ) -> None:
        self.symbols = dict(COINS if symbols is None else symbols)
        self.price: Decimal | None = Decimal(67_000)
        self.books = Books()
        self.breakers: list[CircuitBreaker] = []
        self.metrics = Metrics()
        self.venues = [FakeVenue() for _ in range(count)]
        renewals = asyncio.Lock()
        counted = FeedMetrics(self.metrics)
        self.feeds = []
        clock = asyncio.get_running_loop().time
        for number, venue in enumerate(self.venues):
            breaker = CircuitBreaker(f"venue{number}.connect", VENUE_BREAKER, clock=clock, random=Random(5 + number))
            self.breakers.append(breaker)
            facts = Venue(
                name=f"venue{number}",
                url="ws://venue",
                session=FakeSession,
                heartbeat_s=heartbeat_s,
                lifetime_s=lifetime_s,
                ping=ping,
            )
            self.feeds.append(
                VenueFeed(
                    facts,
                    facts.url,
                    symbols_of=lambda: self.symbols,
                    books=self.books,
                    price_of=lambda _coin: self.price,
                    breaker=breaker,
                    renewals=renewals,
                    metrics=counted,
                    connect=venue.connect,
                    clock=clock,
                    wall_s=lambda: WALL_S + clock(),
                    random=Random(50 + number),
                    limits=limits,
                )
            )

    @property
    def feed(self) -> VenueFeed:
        return self.feeds[0]

    @property
    def venue(self) -> FakeVenue:
        return self.venues[0]

    @property
    def reason(self) -> str | None:
        """Why the last connection of the first feed ended."""
        closing = self.feed.status.last_closing
        return None if closing is None else closing.reason

    def others_send(self, *coins: str) -> None:
        """Two other venues send a book of these coins."""
        now_s = asyncio.get_running_loop().time()
        for coin, other in itertools.product(coins, ("other1", "other2")):
            self.books.note(coin, VenueBook(other, "USD", Decimal(1), Decimal(2), now_s), received_s=now_s)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FeedRig"]:
        """Run the feeds; afterwards no task and no link of theirs may be left."""
        before = asyncio.all_tasks()
        tasks = [asyncio.create_task(feed.run()) for feed in self.feeds]
        try:
            yield self
        finally:
            for task in tasks:
                assert not task.done(), task
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == before
            assert [link for venue in self.venues for link in venue.open_links] == []


P = ParamSpec("P")


def in_virtual_time(work: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test as a function that runs it in virtual time."""

    @functools.wraps(work)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        fake_event_loop.run(work(*args, **kwargs))

    return test
