"""feed_service: wires the feeds of the venues, the consensus and the routes.

exchange ─▶ VenueFeed ─▶ Books ─▶ Pricing ─▶ ConsensusTape ─▶ GET /quote, GET /quotes
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator
from itertools import starmap

from cotacoes.config import Settings
from cotacoes.errors import SettingError
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.described import Describing
from cotacoes.feed_service.feeds import Clocks, new_feeds
from cotacoes.feed_service.limits import FEED_LIMITS, FeedLimits
from cotacoes.feed_service.playback import Playback
from cotacoes.feed_service.pricing import Pricing
from cotacoes.feed_service.routes import coin_routes, source_routes, tape_route, venue_routes
from cotacoes.feed_service.tape import ConsensusTape
from cotacoes.feed_service.venue_feed import VenueFeed
from cotacoes.feed_service.venue_prices import VenuePrices
from cotacoes.model.quote import utc_now
from cotacoes.model.venue_symbols import STABLECOINS
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.web.app import Check, build_app
from cotacoes.web.background import Restarts, background
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.process import HttpService, Stop, serve_http
from cotacoes.web.source import TAPE_PATH
from cotacoes.web.upstreams import new_upstreams

NAME = "feed_service"


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until stopped; SettingError if a setting cannot be used."""
    await serve_http(build(settings), settings, stop)


def build(settings: Settings, *, limits: FeedLimits = FEED_LIMITS) -> HttpService:
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
        venue_prices=VenuePrices(coins) if settings.record_venues else None,
    )
    playback = Playback(settings.frame_paths) if settings.frame_paths else None
    feeds = new_feeds(
        settings,
        coins,
        books,
        price_of=pricing.price_of,
        upstreams=upstreams,
        metrics=counted,
        clocks=Clocks() if playback is None else playback.clocks,
        limits=limits,
        connect_to=None if playback is None else playback.connect_to,
    )
    router = source_routes(tape)

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
        **({} if playback is None else {"playback": playback.run}),
    }

    async def has_price() -> str | None:
        missing = [coin for coin in coins if pricing.price_of(coin) is None]
        return f"no price of {', '.join(missing)}" if missing else None

    @contextlib.asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        async with background(*starmap(restarts.kept, tasks.items())):
            yield

    checks = {
        "consensus": Check(has_price),
        **{feed.venue.name: Check(functools.partial(_why_not_live, feed)) for feed in feeds},
    }
    direct = {TAPE_PATH: tape_route(settings, tape)}
    app = build_app(NAME, settings, metrics, router, checks=checks, direct=direct)
    return HttpService(NAME, app, metrics, resources)


async def _why_not_live(feed: VenueFeed) -> str | None:
    status = feed.status
    if status.state == "live":
        return None
    return status.state if status.last_closing is None else f"{status.state}: {status.last_closing.text}"
