"""feed_service: wires the feeds of the venues, the consensus and the routes.

exchange ─▶ VenueFeed ─▶ Books ─▶ Pricing ─▶ ConsensusTape ─▶ GET /quote, GET /quotes
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from itertools import starmap
from random import Random, SystemRandom

from cotacoes.adapters.websocket_client import connect
from cotacoes.config import Settings
from cotacoes.errors import SettingError
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.described import Describing
from cotacoes.feed_service.pricing import Pricing
from cotacoes.feed_service.routes import coin_routes, source_routes, venue_routes
from cotacoes.feed_service.tape import ConsensusTape
from cotacoes.feed_service.venue_feed import VenueFeed
from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import Venue
from cotacoes.model.quote import utc_now
from cotacoes.model.venue_symbols import STABLECOINS
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.patterns.resilience import CircuitBreakerConfig, ResilienceConfig
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import Restarts, background
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.process import HttpService, Stop, serve_http
from cotacoes.web.upstreams import Upstreams, new_upstreams

NAME = "feed_service"
OPEN_DEADLINE_S = 10.0  # for DNS, TCP, TLS and the handshake together
PING_S = 20.0  # a connection on which no pong comes within as long is cut
LIVE_MIN = 3  # venues: fewer cannot outvote one that lies
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


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped; SettingError if a setting cannot be used."""
    await serve_http(build(settings), settings, stop)


def build(settings: Settings) -> HttpService:
    """The wired service; nothing is connected yet. SettingError if the source is not made of venues."""
    if not settings.is_live_source:
        raise SettingError(
            f"COTACOES_SOURCE={settings.source} has no venues to follow: set it to exchanges, or to venues"
        )
    metrics = Metrics()
    counted = FeedMetrics(metrics)
    restarts = Restarts(metrics)
    upstreams = new_upstreams(metrics)
    coins = FollowedCoins(
        list(settings.seed_placement),
        settings.venue_names,
        settings.venue_symbol_overrides,
        settings.data / NAME / "coins.json",
    )
    books = Books()
    tape = ConsensusTape(f"feed.{round(time.time() * 1000)}")
    pricing = Pricing(
        books,
        tape,
        coins=coins,
        stablecoins=STABLECOINS,
        metrics=counted,
        clock=time.monotonic,
        now=utc_now,
    )
    renewals = asyncio.Lock()
    feeds = [
        _feed(
            VENUES[name],
            settings.venue_url(name) or VENUES[name].url,
            coins=coins,
            books=books,
            pricing=pricing,
            upstreams=upstreams,
            renewals=renewals,
            metrics=counted,
        )
        for name in settings.venue_names
    ]
    router = source_routes(settings, pricing, tape)

    def follow_added() -> None:
        for feed in feeds:
            feed.renew()

    router.include_router(coin_routes(settings, coins, follow_added))
    describing = Describing(books, pricing, clock=time.monotonic, now=utc_now)
    router.include_router(venue_routes(coins, pricing, describing, feeds, upstreams))
    router.include_router(breaker_routes(NAME, settings, upstreams))
    tasks = {
        "pricing": pricing.run,
        **{f"feed_{feed.venue.name}": feed.run for feed in feeds},
    }

    async def has_venues() -> str | None:
        live = [feed.venue.name for feed in feeds if feed.status.state == "live"]
        missing = [feed.venue.name for feed in feeds if feed.status.state != "live"]
        if len(live) >= min(LIVE_MIN, len(feeds)):
            return None
        return f"{len(live)} of {len(feeds)} venues are live; not live: {', '.join(missing)}"

    async def has_price() -> str | None:
        missing = [coin for coin in coins if pricing.price_of(coin) is None]
        return f"no price of {', '.join(missing)}" if missing else None

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with background(*starmap(restarts.kept, tasks.items())):
            yield

    checks = {"venues": Check(has_venues), "consensus": Check(has_price)}
    return HttpService(NAME, build_app(NAME, settings, metrics, router, checks=checks), metrics, resources)


def _feed(
    venue: Venue,
    url: str,
    *,
    coins: FollowedCoins,
    books: Books,
    pricing: Pricing,
    upstreams: Upstreams,
    renewals: asyncio.Lock,
    metrics: FeedMetrics,
) -> VenueFeed:
    policy = upstreams.add(f"{venue.name}.connect", VENUE_BREAKER, ResilienceConfig())
    assert policy.breaker is not None
    return VenueFeed(
        venue,
        url,
        symbols_of=functools.partial(coins.symbols_at, venue.name),
        books=books,
        price_of=pricing.price_of,
        breaker=policy.breaker,
        renewals=renewals,
        metrics=metrics,
        connect=functools.partial(connect, url, deadline_s=OPEN_DEADLINE_S, ping_s=PING_S, may_use_proxy=True),
        clock=time.monotonic,
        wall_s=time.time,
        random=Random(SystemRandom().random()),  # noqa: S311  # waits, not a secret
    )
