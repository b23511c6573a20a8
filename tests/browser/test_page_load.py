"""Loading the page: it asks the gateway alone, complains of nothing, weighs little, and shows what the gateway has."""

import json
import random
import re
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from tests.browser.harness_market import COINS, TITLES, Market
from tests.browser.harness_page import ChromiumTab, Tab, choose, moments, price_of, rows, until, until_live, until_text
from tests.contract.conftest import Server, valkey  # noqa: F401  # a fixture
from tests.contract.harness_gateway import GatewaySystem

from cotacoes.model.quote import Position, format_price

WEIGHT_MAX = 90_000  # bytes of all files, compressed
SHOWN_S_MAX = 1.0  # from the answer of a route to the page
SOME = 20
HELD_S = 0.3  # between two renderings: what stands there when it is asked counts


async def test_the_page_asks_only_the_gateway_and_nothing_complains(any_tab: Tab, market: Market) -> None:
    """Neither its scripts nor the browser's policy, while every view is shown and each choice is made."""
    await any_tab.go(f"{market.address}/#token={await market.token()}")
    await until_live(any_tab)
    await until_text(any_tab, "#summary", r"opened at [\d.]+")
    assert await any_tab.run("document.querySelectorAll('#canvas canvas').length > 0")
    await choose(any_tab, "#interval", "1h")
    await choose(any_tab, "#coin", "ethereum")
    await until_text(any_tab, "#summary", r"Ethereum, 1h.*opened at [\d.]+")
    await choose(any_tab, "#theme", "dark")
    await choose(any_tab, "#language", "pt-BR")
    await until_text(any_tab, "#link", "ao vivo")
    await until_text(any_tab, "#report", r"\d+ ms")
    own = (f"{market.address}/", f"ws://127.0.0.1:{market.port}/", "data:")
    assert [address for address in any_tab.requests if not address.startswith(own)] == []
    assert any(address.endswith("/page/main.js") for address in any_tab.requests)
    assert any_tab.complaints == []
    assert await any_tab.run("shown.violations") == []


async def test_the_page_weighs_at_most_90_kb(tab: ChromiumTab, market: Market) -> None:
    await tab.go(market.address)
    await until_live(tab)
    await until_text(tab, "#summary", r"opened at [\d.]+")
    sizes: dict[str, int] = await tab.run(
        "Object.fromEntries(['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))"
        ".map((entry) => [entry.name, entry.encodedBodySize]))"
    )
    files = {address: size for address, size in sizes.items() if re.search(r"/$|/page/", address)}
    assert any("lightweight-charts" in address for address in files)
    assert all(files.values())
    assert sum(files.values()) <= WEIGHT_MAX, files


async def test_each_price_is_what_the_history_has_and_no_later_than_a_second(any_tab: Tab, market: Market) -> None:
    await any_tab.go(market.address)
    await until_live(any_tab)
    await until_many_moments(any_tab)
    for coin, title in zip(COINS, TITLES, strict=True):
        asked = time.time()
        newest = await market.newest(coin)
        target = Position(newest["epoch"], newest["seq"])

        async def held(coin: str = coin) -> list[tuple[str, Position]]:
            answer = await market.get(f"/v1/quotes/{coin}?last=1000")
            return [(quote["price"], Position(quote["epoch"], quote["seq"])) for quote in answer.body["quotes"]]

        await until_shown(any_tab, title, held, target, asked)
        story = [price for one in await moments(any_tab) if (price := price_of(one.coin(title))) is not None]
        assert len(set(story)) > SOME / 4
        assert_in_order(story, await held())


def long_price(seq: int) -> Decimal:
    """30 digits and 18 decimals; another type would round all of them."""
    return Decimal(f"123456789012345678901234567890.{seq:018d}")


def tiny_price(seq: int) -> Decimal:
    """18 decimals: a number would be shown as 1.2e-16."""
    return Decimal(f"0.{seq:018d}")


@pytest.mark.parametrize("price", [long_price, tiny_price])
async def test_a_price_is_shown_with_every_digit(
    any_tab: Tab,
    valkey: Server,  # noqa: F811
    seeded: random.Random,
    price: Callable[[int], Decimal],
) -> None:
    async with GatewaySystem(valkey.port, seeded, price).running() as world:
        await any_tab.go(f"http://127.0.0.1:{world.proxy.port}/")
        await until_live(any_tab)
        assert world.writer.last is not None
        asked, target = time.time(), world.writer.last.position

        async def held() -> list[tuple[str, Position]]:
            return [(format_price(quote.price), quote.position) for quote in world.history.written]

        await until_shown(any_tab, "Bitcoin", held, target, asked)
        await until_many_moments(any_tab)
        story = [digits for one in await moments(any_tab) if (digits := price_of(one.coin("Bitcoin"))) is not None]
        assert_in_order(story, await held())


async def until_many_moments(tab: Tab) -> None:
    """Return once the page has shown something new many times."""

    async def are_many() -> bool:
        return len(await moments(tab)) >= SOME

    await until("some prices", are_many)


async def until_shown(
    tab: Tab, title: str, held: Callable[[], Awaitable[list[tuple[str, Position]]]], target: Position, asked: float
) -> None:
    """Return once the price of this quote or of a later one was shown.

    That was within a second of `asked`, by the clock that browser and test share.
    """

    async def shown_at() -> list[float]:
        good = {price for price, position in await held() if position >= target}
        return [one.at for one in await moments(tab) if price_of(one.coin(title)) in good and one.at >= asked - HELD_S]

    at, *_ = await until(f"{title} {target}", shown_at)
    assert at - asked <= SHOWN_S_MAX


def assert_in_order(story: list[str], held: list[tuple[str, Position]]) -> None:
    """The prices that were shown are those of quotes, each of the same quote as the one before or of a later one."""
    rest = iter(price for price, _ in held)
    price: str | None = None
    for shown in story:
        while shown != price:
            price = next(rest, None)
            assert price is not None, f"{shown} is no price, or comes after a later one"


async def test_a_table_has_a_row_for_each_part_that_the_gateway_names(tab: ChromiumTab, market: Market) -> None:
    """Coins, services, shards, breakers: as many as there are, and none by a name that the page knows itself."""
    await tab.go(market.address)
    await until_live(tab)
    status = (await market.get("/v1/status")).body
    breakers = [f"{name} → {one['name']}" for name, part in status["services"].items() for one in part["breakers"]]
    assert [row["service"] for row in await rows(tab, "services")] == list(status["services"])
    assert [row["shard"] for row in await rows(tab, "shards")] == list(status["shards"])
    assert [row["upstream"] for row in await rows(tab, "breakers")] == breakers
    assert [row["coin"] for row in await rows(tab, "positions")] == [one["title"] for one in status["coins"].values()]
    branches = [one["branch"] for one in status["report"]["trace"]]
    assert [row["branch"] for row in await rows(tab, "trace")] == branches, json.dumps(status["report"])
