"""The page's stream through cuts, kills and a frozen gateway: each quote once and in order, and no price called fresh
on a stream that is dead."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.browser.harness_market import Market
from tests.browser.harness_page import (
    ChromiumTab,
    Moment,
    moments,
    price_of,
    row,
    text,
    until,
    until_live,
    until_text,
)
from tests.contract.conftest import Server, valkey  # noqa: F401  # a fixture
from tests.contract.harness_gateway import GatewaySystem
from tests.contract.harness_stream_proxy import StreamProxy
from tests.unit.fake_history import breaches

from cotacoes.model.quote import Position, Quote, format_price

COIN = "Bitcoin"
CUTS = 20
LIVE_S_MAX = 3.0  # once the gateway accepts connections again
FROZEN_S = 20.0
LATE_S_MAX = 12.0  # two heartbeats and a second
FRESH_S, RENDER_S = 5.0, 0.5
CLOCK_S = 0.05  # by which the page's notion of the gateway's time may be off
# what the page's own state gets to show, by the modules that it runs itself
WITNESS = """(async () => {
  const { CoinState } = await import(new URL("/page/state.js", location.href).href);
  shown.heard = [];
  for (const [name, kept] of Object.entries({ hear: ["epoch", "seq"], miss: ["after", "through", "reason"] })) {
    const own = CoinState.prototype[name];
    CoinState.prototype[name] = function (event) {
      shown.heard.push(Object.fromEntries(kept.map((field) => [field, event[field]])));
      return own.call(this, event);
    };
  }
})()"""


class Witness:
    """What the page took into its state since this looks on."""

    def __init__(self, tab: ChromiumTab) -> None:
        self.tab = tab

    async def look(self) -> None:
        await self.tab.run(WITNESS)

    async def heard(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.tab.run("shown.heard")
        return found

    async def breaches(self, written: list[Quote]) -> list[str]:
        """What is wrong with all that was shown and reported as gone, up to the last one shown."""
        events = await self.heard()
        received = [Position(one["epoch"], one["seq"]) for one in events if "seq" in one]
        gone = [
            (None if one["after"] is None else Position.parse(one["after"]), Position.parse(one["through"]))
            for one in events
            if "through" in one
        ]
        known = [quote for quote in written if quote.position <= received[-1]]
        start = next(quote.before for quote in known if quote.position == received[0])
        return breaches(known, received, gone, start)

    async def until_whole(self, world: GatewaySystem) -> None:
        """Return once all came that is written by now."""
        assert world.writer.last is not None
        target = world.writer.last.position

        async def came() -> bool:
            newest: list[dict[str, Any]] = await self.tab.run("shown.heard.slice(-100)")
            return any("seq" in one and Position(one["epoch"], one["seq"]) >= target for one in newest)

        await until("all quotes came", came)


@contextlib.asynccontextmanager
async def witnessed(
    tab: ChromiumTab,
    valkey: Server,  # noqa: F811
    seeded: random.Random,
) -> AsyncIterator[tuple[GatewaySystem, Witness]]:
    """A system behind a proxy, and the page on it, whose quotes are noted once it is live."""
    async with GatewaySystem(valkey.port, seeded).running() as world:
        await tab.go(f"http://127.0.0.1:{world.proxy.port}/")
        await until_live(tab)
        witness = Witness(tab)
        await witness.look()
        yield world, witness


async def test_each_quote_is_shown_once_in_order_over_cuts_and_restarts(
    tab: ChromiumTab,
    valkey: Server,  # noqa: F811
    seeded: random.Random,
) -> None:
    async with witnessed(tab, valkey, seeded) as (world, witness):
        for _ in range(CUTS):
            await asyncio.sleep(seeded.uniform(0.1, 0.8))
            if seeded.random() < 0.5:
                world.proxy.reset()
            else:
                world.proxy.cut_after(seeded.randint(1, 2_000))
        for number in (signal.SIGKILL, signal.SIGTERM):
            world.proxy.mend()
            await until_live(tab)
            ended_at = time.time()
            await world.gateway.end(number)
            await world.gateway.start()
            up_at = time.time()
            live_at = await until_live_since(tab, ended_at)
            assert live_at - up_at <= LIVE_S_MAX
        await witness.until_whole(world)
        assert await witness.breaches(world.history.written) == []
        events = await witness.heard()
        gaps = [one for one in events if "through" in one]

        async def are_counted() -> bool:
            shown = await row(tab, "positions", COIN)
            return int(shown["count"]) >= len(events) - len(gaps) and int(shown["gaps"]) == len(gaps)

        await until("the table counts them", are_counted)


async def until_live_since(tab: ChromiumTab, since: float) -> float:
    """When the page said that it is live after it had said otherwise, in seconds since 1970."""

    async def live() -> float | None:
        story = [one for one in await moments(tab) if one.at > since]
        lost = max((index for index, one in enumerate(story) if not one.is_live), default=len(story))
        return next((one.at for one in story[lost:] if one.is_live), None)

    found = await until("the page is live again", live)
    assert found is not None
    return found


async def test_nothing_is_fresh_on_a_stream_whose_gateway_is_frozen(
    tab: ChromiumTab,
    valkey: Server,  # noqa: F811
    seeded: random.Random,
) -> None:
    async with GatewaySystem(valkey.port, seeded).running() as world:
        await tab.go(f"http://127.0.0.1:{world.proxy.port}/")
        await until_live(tab)
        world.gateway.process.send_signal(signal.SIGSTOP)
        frozen_at = time.time()
        try:
            await until_text(tab, "#link", "^late")
            await asyncio.sleep(frozen_at + FROZEN_S - time.time())
            story = [one for one in await moments(tab) if one.at >= frozen_at]
        finally:
            world.gateway.process.send_signal(signal.SIGCONT)
        assert next(one.at for one in story if one.link.startswith("late")) - frozen_at <= LATE_S_MAX
        stale = next(one for one in story if one.coin(COIN)["state"].startswith("stale"))
        age_s = stale.at - last_shown(stale, world.history.written).observed_at.timestamp()
        assert FRESH_S - CLOCK_S <= age_s <= FRESH_S + RENDER_S
        assert_never_fresh_when_dead(story, stale.at)
        assert {price_of(one.coin(COIN)) for one in story if one.at >= stale.at} == {price_of(stale.coin(COIN))}
        await until_live(tab)
        assert_never_fresh_when_dead(await moments(tab), None)


def last_shown(one: Moment, written: list[Quote]) -> Quote:
    price = price_of(one.coin(COIN))
    return next(quote for quote in written if format_price(quote.price) == price)


def assert_never_fresh_when_dead(story: list[Moment], stale_at: float | None) -> None:
    for one in story:
        if not one.is_live or (stale_at is not None and one.at >= stale_at):
            assert one.fresh == [], one


async def test_without_a_stream_nothing_good_is_said_of_the_parts(tab: ChromiumTab, market: Market) -> None:
    async with StreamProxy(market.port) as proxy:
        await tab.go(f"http://127.0.0.1:{proxy.port}/")
        await until_live(tab)
        await until_text(tab, "#trouble", "^All parts are up")
    await until_text(tab, "#link", "^offline")
    await asyncio.sleep(2 * RENDER_S)
    assert "All parts are up" not in await text(tab, "#trouble")


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_each_quote_is_shown_once_in_order_over_ten_minutes_of_cuts(
    tab: ChromiumTab,
    valkey: Server,  # noqa: F811
    seeded: random.Random,
) -> None:
    async with witnessed(tab, valkey, seeded) as (world, witness):
        due = time.monotonic() + 600
        while time.monotonic() < due:
            await asyncio.sleep(seeded.uniform(0.05, 3))
            if seeded.random() < 0.02:
                await world.gateway.end(seeded.choice([signal.SIGKILL, signal.SIGTERM]))
                await world.gateway.start()
            elif seeded.random() < 0.5:
                world.proxy.reset()
            else:
                world.proxy.cut_after(seeded.randint(1, 20_000))
        world.proxy.mend()
        await until_live(tab)
        await witness.until_whole(world)
        assert await witness.breaches(world.history.written) == []
