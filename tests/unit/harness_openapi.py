"""Each HTTP service in memory, with the document at `/openapi.json` against which its answers are held."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
from tests.unit.fake_quote_service import QuoteServiceTwin
from tests.unit.harness_directory import directory_over
from tests.unit.harness_quote_service import COIN, QuoteServiceCore

from cotacoes import config
from cotacoes.adapters.http_server.connection import ASGIApp
from cotacoes.aggregator_service import app as aggregator_service
from cotacoes.external_service import app as external_service
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.described import Describing
from cotacoes.feed_service.feeds import new_feeds
from cotacoes.feed_service.pricing import Pricing
from cotacoes.feed_service.routes import coin_routes, source_routes, tape_route, venue_routes
from cotacoes.feed_service.tape import ConsensusTape
from cotacoes.gateway_service import app as gateway_service
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import Quote, utc_now
from cotacoes.model.venue_symbols import STABLECOINS
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.patterns.consensus import VenueBook
from cotacoes.quote_service.routes import routes
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.app import Check, build_app
from cotacoes.web.breaker_routes import breaker_routes
from cotacoes.web.source import TAPE_PATH
from cotacoes.web.upstreams import INTERNAL_BREAKER, internal_policy, new_upstreams

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SETTINGS = config.load({}, admin_token="sesame", coins=f"{COIN}:shard1", failure_rate=0)
FOLLOWING = config.load({}, admin_token="sesame", coins=f"{COIN}:shard1", source="exchanges")
QUOTES = [Quote(COIN, "USD", Decimal("67012.30"), 5, seq, NOON, NOON, "sim") for seq in range(1, 13)]


class Contract:
    """A service that answers in memory, and its document, against which each answer is held."""

    def __init__(self, asking: httpx2.AsyncClient, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, int]] = set()
        self._asking = asking

    async def ask(self, method: str, url: str, **given: Any) -> httpx2.Response:
        """The answer; AssertionError unless its status, media type and body are those of the document."""
        answer = await self._asking.request(method, url, **given)
        template, operation = self._operation(method, answer.url.path)
        response = operation["responses"].get(str(answer.status_code)) or operation["responses"].get(
            f"{answer.status_code // 100}XX"
        )
        assert response is not None, f"{method} {template} does not say that it may answer {answer.status_code}"
        self.seen.add((method, template, answer.status_code))
        if "content" not in response:
            return answer
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in response["content"], f"{method} {template} {answer.status_code} is {media_type}"
        schema = response["content"][media_type].get("schema")
        if schema is not None:
            whole = {**schema, "components": self.document["components"]}
            jsonschema_rs.validator_for(whole).validate(answer.json())
        return answer

    async def page(self) -> httpx2.Response:
        """The same for people."""
        return await self._asking.get("/docs")

    def _operation(self, method: str, path: str) -> tuple[str, Mapping[str, Any]]:
        for template in sorted(self.document["paths"], key=lambda one: one.count("{")):
            if re.fullmatch(re.sub("{[a-z]+}", "[^/]+", template), path):
                return template, self.document["paths"][template][method.lower()]
        raise AssertionError(f"the document has no {path}")

    def unseen(self) -> list[tuple[str, str]]:
        """The operations that gave no good answer to anything that was asked."""
        good = {(method, template) for method, template, status in self.seen if status == 200}
        return [one for one in self.operations() if one not in good]

    def operations(self) -> list[tuple[str, str]]:
        """All of them."""
        return [(method.upper(), path) for path, its in self.document["paths"].items() for method in its]


@contextlib.asynccontextmanager
async def contract(app: ASGIApp) -> AsyncIterator[Contract]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking:
        yield Contract(asking, (await asking.get("/openapi.json")).json())


@contextlib.asynccontextmanager
async def external(folder: Path) -> AsyncIterator[Contract]:
    settings = SETTINGS.model_copy(update={"data": folder})
    async with contract(external_service.build(settings, asyncio.Event()).app) as asking:
        yield asking


@contextlib.asynccontextmanager
async def feed(folder: Path) -> AsyncIterator[Contract]:
    """A feed_service that connects to nobody; two of its venues have sent a book of the coin."""
    settings = FOLLOWING.model_copy(update={"data": folder})
    metrics = Metrics()
    counted = FeedMetrics(metrics)
    upstreams = new_upstreams(metrics)
    coins = FollowedCoins([COIN], settings.venue_names, {}, folder / "coins.json")
    books, tape = Books(), ConsensusTape("feed.1")
    pricing = Pricing(
        books, tape, coins=coins, stablecoins=STABLECOINS, metrics=counted, clock=time.monotonic, now=utc_now
    )
    now_s = time.monotonic()
    for venue, price in (("kraken", "67012.30"), ("coinbase", "67013.10")):
        book = VenueBook(venue, "USD", Decimal(price), Decimal(price), now_s)
        books.note(COIN, book, received_s=now_s)
    pricing.price([COIN])
    feeds = new_feeds(settings, coins, books, price_of=pricing.price_of, upstreams=upstreams, metrics=counted)
    router = source_routes(tape)
    router.include_router(coin_routes(settings, coins, lambda: None))
    describing = Describing(books, pricing, clock=time.monotonic, now=utc_now)
    router.include_router(venue_routes(coins, pricing, describing, feeds, upstreams))
    router.include_router(breaker_routes("feed_service", settings, upstreams))
    direct = {TAPE_PATH: tape_route(settings, tape)}
    async with contract(build_app("feed_service", settings, metrics, router, checks={}, direct=direct)) as asking:
        yield asking


@contextlib.asynccontextmanager
async def quote(folder: Path, *, recorded: int = 12) -> AsyncIterator[Contract]:
    core = QuoteServiceCore(folder)
    await core.recorder.start()
    upstreams = new_upstreams(Metrics())
    upstreams.add("external_service.quote", INTERNAL_BREAKER, internal_policy(1.0))
    if recorded:
        await core.record(*["67012.30"] * recorded)
    router = routes(core.answers, {COIN: core.history})
    router.include_router(breaker_routes("quote_service", SETTINGS, upstreams))

    async def log_is_full() -> str | None:
        return "the log is full"

    lean = {"/cotacao_atual": lambda coin: core.answers.current(require_coin(coin, [COIN]))}
    checks = {"log": Check(log_is_full, required=not recorded)}
    async with contract(build_app("quote_service", SETTINGS, Metrics(), router, checks=checks, lean=lean)) as asking:
        yield asking
    await core.recorder.close()


@contextlib.asynccontextmanager
async def aggregator(_: Path) -> AsyncIterator[Contract]:
    shard = MemoryShard("shard1", [COIN])
    shard.copies[COIN].store(QUOTES)
    async with QuoteServiceTwin({COIN: QUOTES}).client() as client:
        directory = directory_over({"shard1": shard, "shard2": MemoryShard("shard2", [])}, {COIN: "shard1"})
        async with contract(aggregator_service.wire(SETTINGS, client, directory).app) as asking:
            yield asking


@contextlib.asynccontextmanager
async def gateway(_: Path, twin: QuoteServiceTwin | None = None) -> AsyncIterator[Contract]:
    async with (
        (twin or QuoteServiceTwin({COIN: QUOTES})).client() as client,
        contract(gateway_service.wire(SETTINGS, client, MemoryBus()).app) as asking,
    ):
        yield asking


SERVICES = {"external": external, "feed": feed, "quote": quote, "aggregator": aggregator, "gateway": gateway}
