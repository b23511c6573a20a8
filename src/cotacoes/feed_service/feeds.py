"""The feeds of all venues of the settings, each with its circuit breaker."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random, SystemRandom

from cotacoes.adapters.websocket_client import RawLink, connect
from cotacoes.config import Settings
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.limits import FEED_LIMITS, FeedLimits
from cotacoes.feed_service.venue_feed import FrameTap, VenueFeed
from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.observability.metrics import FeedMetrics
from cotacoes.patterns.resilience import CircuitBreakerConfig, ResilienceConfig
from cotacoes.web.upstreams import Upstreams

OPEN_DEADLINE_S = 10.0  # for DNS, TCP, TLS and the handshake together
PING_S = 20.0  # a connection on which no pong comes within as long is cut
# One connection proves that the venue works again.
VENUE_BREAKER = CircuitBreakerConfig(
    failure_rate_threshold=None,
    consecutive_failures_threshold=5,
    wait_duration_in_open=5.0,
    wait_duration_multiplier=2.0,
    max_wait_duration_in_open=30.0,
    permitted_calls_in_half_open=1,
    max_wait_duration_in_half_open=60.0,
)


@dataclass(frozen=True)
class Clocks:
    """Monotonic seconds and Unix seconds, both of the same course: real ones, or those of a recording."""

    clock: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time


def breaker_name(venue: str) -> str:
    """The name of the circuit breaker of a venue."""
    return f"{venue}.connect"


def new_feeds(
    settings: Settings,
    coins: FollowedCoins,
    books: Books,
    *,
    price_of: Callable[[str], Decimal | None],
    upstreams: Upstreams,
    metrics: FeedMetrics,
    clocks: Clocks = Clocks(),  # frozen
    tap: FrameTap | None = None,
    limits: FeedLimits = FEED_LIMITS,
    connect_to: Callable[[str], Callable[[], Awaitable[RawLink]]] | None = None,
) -> Sequence[VenueFeed]:
    """The feeds, not yet running. `connect_to` gives what opens a link to a venue, by default over the network."""
    renewals = asyncio.Lock()
    feeds = []
    for name in settings.venue_names:
        venue = VENUES[name]
        url = settings.venue_url(name) or venue.url
        dial = functools.partial(connect, url, deadline_s=OPEN_DEADLINE_S, ping_s=PING_S, may_use_proxy=True)
        policy = upstreams.add(breaker_name(name), VENUE_BREAKER, ResilienceConfig())
        assert policy.breaker is not None
        feed = VenueFeed(
            venue,
            url,
            symbols_of=functools.partial(coins.symbols_at, name),
            books=books,
            price_of=price_of,
            breaker=policy.breaker,
            renewals=renewals,
            metrics=metrics,
            connect=dial if connect_to is None else connect_to(name),
            clock=clocks.clock,
            wall_s=clocks.wall_s,
            random=Random(SystemRandom().random()),  # noqa: S311  # waits, not a secret
            tap=tap,
            limits=limits,
        )
        feeds.append(feed)
    return feeds
