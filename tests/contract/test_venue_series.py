"""The series of venues: placed beside their coins, recorded from a feed's page, hidden from lists, whole by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.contract.conftest import Databases, Placed, Server, psql
from tests.harness_http_server import serving
from websockets.asyncio.client import connect

from cotacoes import config
from cotacoes.adapters.postgres.schema import QUERIES, known_migrations
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin import audit, directory, migrate
from cotacoes.admin.audit_snapshot import CoinAudit
from cotacoes.admin.copies import open_shards
from cotacoes.admin.copying import MoveProgress
from cotacoes.admin.move import Mover
from cotacoes.aggregator_service import app as aggregator_service
from cotacoes.cli.app import main
from cotacoes.client_subscriber.app import known_coins
from cotacoes.config import Settings
from cotacoes.doctor.questions import ask_prices
from cotacoes.errors import SettingError
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.pricing import Pricing
from cotacoes.feed_service.routes import source_routes, tape_route
from cotacoes.feed_service.tape import ConsensusTape
from cotacoes.feed_service.venue_prices import VenuePrices
from cotacoes.gateway_service import app as gateway_service
from cotacoes.model.quote import parse_time, utc_now
from cotacoes.model.venue_symbols import STABLECOINS
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.patterns.consensus import VenueBook
from cotacoes.patterns.sharding.shard import Home
from cotacoes.quote_service import app as quote_service
from cotacoes.web.app import build_app
from cotacoes.web.background import background
from cotacoes.web.process import Stop
from cotacoes.web.service_client import Addresses
from cotacoes.web.source import TAPE_PATH

COINS = "bitcoin:shard1,ethereum:shard2"
VENUES = "binance,kraken"
BEFORE_KINDS = 8  # the schema without kinds
LONG = "a-coin-with-a-name-of-its-own"
LONG_SYMBOLS = f"kraken:{LONG}:LONG/USD,okx:{LONG}:LONG-USDT"
IN_USD = ("coinbase", "kraken", "bitstamp", "gemini")
LIAR = "kraken"
SERIES = f"bitcoin-{LIAR}"
BOOKS_EVERY_S = 0.1
LIMIT_S = 60.0  # of what only a bug keeps from happening


@pytest.fixture
def settings(placed: Placed) -> Settings:
    """Two migrated shards with the two coins and no series; further runs of `migrate` would record venues."""
    first, second = placed(COINS)
    return config.load(
        {}, shard1_dsn=first, shard2_dsn=second, coins=COINS, source="exchanges", venues=VENUES, record_venues=True
    )


async def series(settings: Settings) -> dict[str, tuple[str, str | None]]:
    """Shard and currency of each series of a venue."""
    homes = (await directory.read(settings)).homes
    return {name: (home.shard, home.currency) for name, home in homes.items() if home.kind == "venue"}


async def test_each_coin_gets_a_series_at_each_venue_on_its_own_shard(settings: Settings) -> None:
    await directory.add_coin(settings, "monero", "shard2")  # which Binance does not list
    lines = await migrate.main(settings)
    assert all(line.endswith("0 applied now") for line in lines)
    assert await series(settings) == {
        "bitcoin-binance": ("shard1", "USDT"),
        "bitcoin-kraken": ("shard1", "USD"),
        "ethereum-binance": ("shard2", "USDT"),
        "ethereum-kraken": ("shard2", "USD"),
        "monero-kraken": ("shard2", "USD"),
    }
    async with PostgresShard("shard2", settings.dsn("shard2"), deadline_s=5.0) as shard:
        assert (await shard.fence("ethereum-kraken")).placement == 1
    before = (await directory.read(settings)).homes
    await migrate.main(settings)
    assert (await directory.read(settings)).homes == before


@pytest.mark.parametrize("change", [{"record_venues": False}, {"source": "sim"}])
async def test_there_is_no_series_unless_venues_are_followed_and_recorded(
    settings: Settings, change: dict[str, object]
) -> None:
    await migrate.main(settings.model_copy(update=change))
    assert {home.kind for home in (await directory.read(settings)).homes.values()} == {"coin"}


async def test_a_series_whose_name_is_too_long_or_a_coins_is_left_out_with_a_warning(settings: Settings) -> None:
    settings = settings.model_copy(update={"venue_symbols": LONG_SYMBOLS, "venues": "kraken,okx"})
    for coin in (LONG, "bitcoin-okx"):
        await directory.add_coin(settings, coin, "shard1")
    lines = await migrate.main(settings)
    assert lines[2:] == [
        "bitcoin at okx has no series of its own: there is a coin bitcoin-okx",
        f"{LONG} at kraken is not recorded: {LONG}-kraken is too long for a name",
        f"{LONG} at okx is not recorded: {LONG}-okx is too long for a name",
    ]
    assert list(await series(settings)) == ["bitcoin-kraken", "ethereum-kraken", "ethereum-okx"]
    assert (await directory.read(settings)).homes["bitcoin-okx"].kind == "coin"


async def test_a_new_coin_gets_the_series_of_the_venues_that_the_others_have(settings: Settings) -> None:
    await directory.add_coin(settings, "cardano", "shard2")
    assert await directory.add_venue_series(settings, "cardano", {}) == []
    assert await series(settings) == {}
    await migrate.main(settings)
    elsewhere = settings.model_copy(update={"record_venues": False, "venues": "coinbase"})  # as a shell may have it
    await directory.add_coin(elsewhere, "solana", "shard2")
    assert await directory.add_venue_series(elsewhere, "solana", {}) == []
    added = await series(settings)
    assert {name: added[name] for name in added if name.startswith("solana")} == {
        "solana-binance": ("shard2", "USDT"),
        "solana-kraken": ("shard2", "USD"),
    }
    assert psql(settings.dsn("shard2"), "SELECT count(*) FROM fence WHERE coin LIKE 'solana-%'") == "2"
    await directory.add_coin(elsewhere, "newcoin")
    await directory.add_venue_series(elsewhere, "newcoin", {("kraken", "newcoin"): "NEW/USD"})
    assert (await series(settings))["newcoin-kraken"][1] == "USD"
    psql(settings.dsn("shard2"), "DELETE FROM fence WHERE coin = 'solana-kraken'")  # as if it had been interrupted
    await directory.add_venue_series(elsewhere, "solana", {})
    assert psql(settings.dsn("shard2"), "SELECT count(*) FROM fence WHERE coin LIKE 'solana-%'") == "2"


async def test_a_full_directory_takes_no_further_series(settings: Settings) -> None:
    await migrate.main(settings)
    known = len((await directory.read(settings)).homes)
    fill = f"SELECT 'c' || n, 1000 + n, 'shard1', 1 FROM generate_series({known}, {directory.COINS_MAX - 2}) AS n"
    psql(settings.dsn("shard1"), f"INSERT INTO directory (coin, coin_id, shard, placement) {fill}")
    psql(settings.dsn("shard1"), "UPDATE directory SET coin = 'cardano' WHERE coin = 'c100'")
    assert await directory.add_venue_series(settings, "cardano", {}) == [
        "cardano at kraken is not recorded: the limit of 10,000 coins is reached"
    ]
    homes = (await directory.read(settings)).homes
    assert len(homes) == directory.COINS_MAX
    assert homes["cardano-binance"].kind == "venue"


def test_the_list_of_coins_shows_series_only_with_venues(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(migrate.main(settings))
    for name in ("shard1", "shard2"):
        monkeypatch.setenv(f"COTACOES_{name.upper()}_DSN", settings.dsn(name))
    monkeypatch.setenv("COTACOES_DATA", str(tmp_path))

    def listed(*options: str) -> str:
        assert main(["coins", "list", *options]) == 0
        return capsys.readouterr().out

    assert "bitcoin" in listed()
    assert "bitcoin-kraken" not in listed()
    assert "bitcoin-kraken" in listed("--venues")
    kinds = {name: home["kind"] for name, home in json.loads(listed("--venues", "--json")).items()}
    assert (kinds["bitcoin"], kinds["bitcoin-kraken"]) == ("coin", "venue")
    assert {home["kind"] for home in json.loads(listed("--json")).values()} == {"coin"}


async def test_a_directory_older_than_the_shards_assigns_no_id_of_a_series_twice(settings: Settings) -> None:
    await migrate.main(settings)
    await directory.add_coin(settings, "solana", "shard2")
    psql(settings.dsn("shard1"), "DELETE FROM directory WHERE coin IN ('solana', 'bitcoin-kraken')")
    assert (await migrate.main(settings))[2:] == [
        "no series of a venue is added: the directory lacks coins: run `cotacoes directory rebuild`"
    ]
    assert "bitcoin-kraken" not in await series(settings)
    with pytest.raises(SettingError, match="run `cotacoes directory rebuild` first"):
        await directory.add_venue_series(settings, "bitcoin", {})
    await directory.rebuild(settings, {})
    await directory.add_venue_series(settings, "solana", {})
    assert {"bitcoin-kraken", "solana-kraken"} <= (await series(settings)).keys()


async def test_a_rebuilt_directory_tells_series_from_coins(settings: Settings) -> None:
    await migrate.main(settings)
    await directory.add_coin(settings, "shiba-inu", "shard1")
    before = {name: home.kind for name, home in (await directory.read(settings)).homes.items()}
    psql(settings.dsn("shard1"), "DELETE FROM directory")
    await directory.rebuild(settings, {})
    assert {name: home.kind for name, home in (await directory.read(settings)).homes.items()} == before


async def test_the_entries_of_a_directory_without_kinds_are_coins(made: Databases) -> None:
    first, second = (made.dsn(made.make(shard)) for shard in ("shard1", "shard2"))
    for dsn, shard in ((first, "shard1"), (second, "shard2")):
        psql(dsn, QUERIES["create_migration_table"])
        for one in known_migrations()[:BEFORE_KINDS]:
            psql(dsn, one.sql)
            psql(dsn, f"INSERT INTO schema_migration VALUES ({one.version}, '{one.name}', '{one.sha256}')")
        psql(dsn, f"INSERT INTO identity (name) VALUES ('{shard}')")
    psql(first, "INSERT INTO directory VALUES ('bitcoin', 1, 'shard1', 1, 90, 'USD')")
    psql(first, "INSERT INTO fence (coin_id, coin, placement) VALUES (1, 'bitcoin', 1)")
    settings = config.load({}, shard1_dsn=first, shard2_dsn=second, coins="bitcoin:shard1")
    await migrate.main(settings)
    assert (await directory.read(settings)).homes == {"bitcoin": Home(1, "shard1", 1, 90, "USD", "coin")}


@dataclass
class Feed:
    """feed_service without exchanges: a book of each venue comes ten times a second, and one venue is 10 % off."""

    pricing: Pricing
    books: Books
    began_s: float

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            for venue in IN_USD:
                mid = Decimal(67_000) * (Decimal("1.1") if venue == LIAR else 1) + Decimal(number).scaleb(-2)
                book = VenueBook(venue, "USD", mid - 1, mid + 1, time.monotonic())
                self.books.note("bitcoin", book, received_s=book.as_of_s)
            await asyncio.sleep(BOOKS_EVERY_S)


@contextlib.asynccontextmanager
async def feeding(*, records: bool) -> AsyncIterator[tuple[Feed, str]]:
    """The feed, and the address of its pages."""
    coins = FollowedCoins(["bitcoin"], IN_USD, {}, file=None)
    books, tape = Books(), ConsensusTape(f"feed.{round(time.time() * 1000)}")
    pricing = Pricing(
        books,
        tape,
        coins=coins,
        stablecoins=STABLECOINS,
        metrics=FeedMetrics(Metrics()),
        clock=time.monotonic,
        now=utc_now,
        venue_prices=VenuePrices(coins) if records else None,
    )
    feed = Feed(pricing, books, time.monotonic())
    settings = config.load({})
    direct = {TAPE_PATH: tape_route(settings, tape)}
    app = build_app("feed_service", settings, Metrics(), source_routes(tape), direct=direct)
    async with serving(app) as port, background(feed.run(), pricing.run()):
        yield feed, f"http://127.0.0.1:{port}"


@dataclass
class System:
    """quote_service and aggregator_service over real servers."""

    settings: Settings
    http: httpx2.AsyncClient

    async def get(self, path: str) -> Any:
        """The answer of quote_service, or of the report."""
        base = "http://aggregator" if path.startswith("/report") else self.settings.quote_url
        answer = await self.http.get(base + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def recorded(self, count: int) -> list[dict[str, Any]]:
        """The quotes of the series, when there are so many on its shard."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                progress = (await self.get("/v1/positions?venues=1"))["coins"][SERIES]
                if progress["pending"] == 0 and progress["through"] is not None:
                    quotes: list[dict[str, Any]] = (await self.get(f"/v1/quotes/{SERIES}"))["quotes"]
                    if len(quotes) >= count:
                        return quotes
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(settings: Settings, valkey: Server, folder: Path, **changed: Any) -> AsyncIterator[System]:
    changed |= {"redis_url": f"redis://127.0.0.1:{valkey.port}", "data": folder, "venues": ",".join(IN_USD)}
    settings = config.load({}, **(settings.model_dump(exclude_unset=True) | changed))
    async with contextlib.AsyncExitStack() as stack:
        quotes = quote_service.build(settings, Stop())
        await stack.enter_async_context(quotes.resources())
        port = await stack.enter_async_context(serving(quotes.app))
        settings = settings.model_copy(update={"quote_url": f"http://127.0.0.1:{port}"})
        reports = aggregator_service.build(settings)
        await stack.enter_async_context(reports.resources())
        mounts = {"http://aggregator": httpx2.ASGITransport(reports.app)}
        http = await stack.enter_async_context(httpx2.AsyncClient(mounts=mounts, timeout=LIMIT_S))
        yield System(settings, http)


@contextlib.asynccontextmanager
async def gateway_of(system: System) -> AsyncIterator[str]:
    """The address of a gateway."""
    gateway = gateway_service.build(system.settings)
    async with gateway.resources(), serving(gateway.app, websocket=gateway.websocket) as port:
        yield f"127.0.0.1:{port}"


async def _note_nothing(step: str, progress: MoveProgress) -> None:
    """The move goes on."""


@pytest.mark.parametrize("mode", ["latest", "tape"])
async def test_a_venues_price_goes_from_the_feeds_page_to_history_and_candles_once_a_second(
    settings: Settings, valkey: Server, tmp_path: Path, mode: str
) -> None:
    settings = settings.model_copy(update={"venues": ",".join(IN_USD)})
    await migrate.main(settings)
    async with (
        feeding(records=True) as (feed, feed_url),
        running(settings, valkey, tmp_path, feed_url=feed_url, source_mode=mode, poll_interval_s=0.1) as system,
    ):
        quotes = await system.recorded(4)
        elapsed_s = time.monotonic() - feed.began_s
        consensus = (await system.get("/v1/quotes/bitcoin?last=1"))["quotes"]
        candles = await system.get(f"/v1/candles/{SERIES}")
        mean = await system.get(f"/media_ultimos_10_logs/{SERIES}")
        current = await system.get(f"/cotacao_atual/{SERIES}")
    assert len(quotes) <= elapsed_s + 1
    assert {(quote["origin"], quote["currency"]) for quote in quotes} == {(LIAR, "USD")}
    assert all(quote.keys().isdisjoint({"state", "confidence", "used", "of"}) for quote in quotes)
    assert all(Decimal(quote["price"]) > 73_000 for quote in quotes), "the price of an outlier, in its own currency"
    times = [parse_time(quote["observed_at"]) for quote in quotes]
    assert all(later - earlier > timedelta(seconds=0.8) for earlier, later in pairwise(times))
    assert (consensus[0]["origin"], consensus[0]["used"], consensus[0]["of"]) == ("consensus", 3, 4)
    assert (candles["origin"], candles["currency"]) == (LIAR, "USD")
    assert sum(candle["count"] for candle in candles["candles"]) >= len(quotes)
    assert (mean["coin"], current["origin"]) == (SERIES, LIAR)


async def test_a_series_is_in_no_list_and_answers_by_its_name(
    settings: Settings, valkey: Server, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"venues": ",".join(IN_USD)})
    await migrate.main(settings)
    names = {"bitcoin", "ethereum"}
    async with (
        feeding(records=True) as (_, feed_url),
        running(settings, valkey, tmp_path, feed_url=feed_url, source_mode="tape") as system,
    ):
        await system.recorded(2)
        every = names | {f"{coin}-{venue}" for coin in names for venue in IN_USD}
        assert (await system.get("/v1/positions"))["coins"].keys() == names
        assert (await system.get("/v1/positions?venues=1"))["coins"].keys() == every
        assert (await system.get("/v1/overview?parts=position"))["position"].keys() == names
        assert (await system.get("/v1/overview?parts=position&venues=1"))["position"].keys() == every
        assert (await system.get("/report/full"))["coins"].keys() == names
        assert set(await known_coins(system.settings)) == names
        assert set(await known_coins(system.settings, venues=True)) == every
        prices = await ask_prices(Addresses(quote_service=system.settings.quote_url))
        assert {*prices.currents, *prices.progress} == names
        assert set(prices.unheard) == {"bitcoin"}, "nobody listens, and ethereum has no quote"

        report = await system.get(f"/report/full?coins={SERIES},bitcoin&window=1h")
        assert (report["coins"].keys(), report["missing"]) == ({"bitcoin", SERIES}, [])
        part = report["coins"][SERIES]
        assert (part["current"]["origin"], part["last_logs"][0]["origin"]) == (LIAR, LIAR)
        async with asyncio.timeout(LIMIT_S), gateway_of(system) as gateway:
            assert (await system.http.get(f"http://{gateway}/v1/coins")).json()["coins"].keys() == names
            async with connect(f"ws://{gateway}/v1/ws") as link:
                await link.send(json.dumps({"op": "subscribe", "coins": [SERIES]}))
                while (frame := json.loads(await link.recv()))["type"] != "quote":
                    pass
            assert (frame["coin"], frame["origin"]) == (SERIES, LIAR)
            async with system.http.stream("GET", f"http://{gateway}/v1/stream?coins={SERIES}") as events:
                async for line in events.aiter_lines():
                    if line.startswith("data:") and (event := json.loads(line[5:])).get("type") == "quote":
                        assert event["origin"] == LIAR
                        break


async def test_a_series_is_audited_moved_and_retained_like_a_coin(
    settings: Settings, valkey: Server, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"venues": ",".join(IN_USD)})
    await migrate.main(settings)
    async with (
        feeding(records=True) as (_, feed_url),
        running(settings, valkey, tmp_path, feed_url=feed_url, source_mode="tape") as system,
    ):
        before = await system.recorded(2)
        async with open_shards(system.settings) as (shards, away):
            mover = Mover(SERIES, shards, away, random=random.Random(1), clock=time.monotonic, on_step=_note_nothing)
            await mover.move("shard2")
        after = await system.recorded(len(before) + 2)
        await directory.set_retention(system.settings, SERIES, 30)
        home = (await directory.read(system.settings)).homes[SERIES]
    assert after[: len(before)] == before
    assert (home.shard, home.retention_days, home.kind) == ("shard2", 30, "venue")
    reported: list[CoinAudit] = []
    found = await audit.main(settings, on_coin=reported.append, say=lambda _: None, second_look_after_s=0)
    assert found.verdict == "right"
    assert SERIES in {one.coin for one in reported}


async def test_a_feed_that_records_no_venues_gives_no_price_of_one(
    settings: Settings, valkey: Server, tmp_path: Path
) -> None:
    async with (
        feeding(records=False) as (_, feed_url),
        running(settings, valkey, tmp_path, feed_url=feed_url) as system,
    ):
        async with asyncio.timeout(LIMIT_S):
            while (await system.get("/v1/positions"))["coins"]["bitcoin"]["position"] is None:
                await asyncio.sleep(0.1)
        quote = (await system.http.get(f"{feed_url}/quote")).json()
        assert (await system.get("/v1/positions?venues=1"))["coins"].keys() == {"bitcoin", "ethereum"}
    assert quote["observed"].keys() == {"bitcoin"}
    assert "origins" not in quote
