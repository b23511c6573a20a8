"""The routes of feed_service: the contract of a source (`/quote`, `/quotes`, `/coins`), and what the venues say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Response
from fastapi import Path as InPath

from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, UnauthorizedError, UnknownCoinError
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.described import Describing
from cotacoes.feed_service.feeds import breaker_name
from cotacoes.feed_service.pricing import Pricing
from cotacoes.feed_service.tape import ORIGIN, ConsensusTape
from cotacoes.feed_service.venue_feed import VenueFeed
from cotacoes.model.coins import require_coin
from cotacoes.model.payloads import SourceCoins, SourceQuoteJson
from cotacoes.model.quote import COIN_RULE, agreement_fields, format_price, format_time
from cotacoes.model.venues import ConsensusJson, ListingJson, VenuesJson
from cotacoes.patterns.consensus import USD
from cotacoes.web.document import answering
from cotacoes.web.requests import admins_only, json_answer
from cotacoes.web.source import TapeRoute, document_tape
from cotacoes.web.upstreams import Upstreams

CURSOR_RULE = "^feed[.][0-9]{1,17}-[0-9]{1,19}$"
_encode = msgspec.json.Encoder().encode


def source_routes(tape: ConsensusTape) -> APIRouter:
    """The routes that quote_service takes prices from."""
    router = APIRouter()

    @router.get("/quote", summary="The newest consensus price of each coin", **answering(SourceQuoteJson))
    async def quote() -> Response:
        """`consensus` says how the venues agreed on each price, `reasons` why a coin has no price or no newer one.

        If the prices of single venues are recorded, they are here as well, and `origins` names the venue of each.
        """
        return json_answer(_newest(tape))

    document_tape(router, first="now on", cursor_rule=CURSOR_RULE)
    return router


def tape_route(settings: Settings, tape: ConsensusTape) -> TapeRoute:
    """The app that answers `/quotes`."""

    async def page(after: str | None, limit: int, wait_s: float) -> Response:
        return json_answer(await tape.page(after, limit, wait_s))

    return TapeRoute(page, wait_s_max=settings.request_deadline_s / 2)


def coin_routes(settings: Settings, coins: FollowedCoins, on_added: Callable[[], None]) -> APIRouter:
    """The routes that show the coins and add one; `on_added` is called after a coin was added."""
    router = APIRouter()

    @router.get("/coins", summary="The coins that are followed", **answering(SourceCoins))
    async def show_coins() -> Response:
        return json_answer(_encode(SourceCoins(list(coins), open=False)))

    @router.get("/coins/{coin}", summary="The venues that list a coin, followed or not", **answering(ListingJson))
    async def show_listing(coin: Annotated[str, InPath(json_schema_extra={"pattern": COIN_RULE})]) -> Response:
        """No venue is asked: the answer is that of our table and of `COTACOES_VENUE_SYMBOLS`."""
        return json_answer(_encode(ListingJson(coin, coins.symbols_of(coin))))

    @router.put(
        "/coins/{coin}",
        summary="Follow a coin at every venue that lists it (administrators)",
        dependencies=[admins_only(settings)],
        **answering(SourceCoins, UnauthorizedError, BadRequestError),
    )
    async def add_coin(coin: Annotated[str, InPath(json_schema_extra={"pattern": COIN_RULE})]) -> Response:
        if coins.add(coin):
            on_added()
        return json_answer(_encode(SourceCoins(list(coins), open=False)))

    return router


def venue_routes(
    coins: FollowedCoins,
    pricing: Pricing,
    describing: Describing,
    feeds: Sequence[VenueFeed],
    upstreams: Upstreams,
) -> APIRouter:
    """The routes that show the venues: what each says, what is used, and why not."""
    router = APIRouter()

    @router.get("/v1/venues", summary="The venues, and the consensus on each coin", **answering(VenuesJson))
    async def show_venues() -> Response:
        shown = VenuesJson(
            feeds=[
                describing.feed(
                    feed,
                    breaker=upstreams.describe(breaker_name(feed.venue.name)).state,
                    coins=[coin for coin in coins if feed.venue.name in coins.venues_of(coin)],
                )
                for feed in feeds
            ],
            rates={currency: format_price(rate) for currency, rate in pricing.rates.items()},
            coins=[describing.consensus(coin, pricing.results[coin]) for coin in coins if coin in pricing.results],
        )
        return json_answer(_encode(shown))

    @router.get(
        "/v1/venues/{coin}",
        summary="The consensus on one coin, with the book of each venue",
        **answering(ConsensusJson, UnknownCoinError),
    )
    async def show_coin(coin: Annotated[str, InPath(json_schema_extra={"pattern": COIN_RULE})]) -> Response:
        return json_answer(_encode(describing.consensus(coin, pricing.results[require_coin(coin, pricing.results)])))

    return router


def _newest(tape: ConsensusTape) -> bytes:
    """The body of `/quote`."""
    newest, of_venues = tape.newest, tape.newest_of_venues
    observed = {
        **{coin: format_time(priced.observed_at) for coin, priced in newest.items()},
        **{series: entry.observed_at for series, entry in of_venues.items()},
    }
    consensus: dict[str, dict[str, object]] = {}
    for coin, priced in newest.items():
        agreed = priced.consensus
        consensus[coin] = {
            **agreement_fields(agreed.agreement),
            "low": format_price(agreed.low),
            "high": format_price(agreed.high),
        }
    return _encode(
        {
            **{coin: format_price(priced.consensus.price) for coin, priced in newest.items()},
            **{series: entry.price for series, entry in of_venues.items()},
            "observed_at": min(observed.values(), default=None),
            "observed": observed,
            "currency": dict.fromkeys(newest, USD) | {series: entry.currency for series, entry in of_venues.items()},
            "origin": ORIGIN,
            **({"origins": {series: entry.origin for series, entry in of_venues.items()}} if of_venues else {}),
            "consensus": consensus,
            "reasons": tape.reasons,
        }
    )
