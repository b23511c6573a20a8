"""The browser's clock is wrong, jumps, or stood still while nobody looked: ages and prices are right all the same."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.browser.harness_market import TITLES, Market
from tests.browser.harness_page import ChromiumTab, age_s, moment, row, rows, until, until_live, until_text
from tests.contract.harness_stream_proxy import StreamProxy

from cotacoes.model.quote import Position, parse_time

AGE_S_MAX = 2  # of a price that comes four times a second
AWAY_S = 4.0
MINUTE_S = 60
AHEAD = timedelta(minutes=10)
# a browser without a screen always says that its page is seen
HIDE = """((isHidden) => {
  const state = { hidden: isHidden, visibilityState: isHidden ? "hidden" : "visible" };
  for (const [name, value] of Object.entries(state)) {
    Object.defineProperty(document, name, { configurable: true, value });
  }
  document.dispatchEvent(new Event("visibilitychange"));
})"""


@pytest.mark.parametrize("ahead", [AHEAD, -AHEAD], ids=["ahead", "behind"])
async def test_ages_are_right_if_the_browsers_clock_is_ten_minutes_off(
    tab: ChromiumTab, market: Market, ahead: timedelta
) -> None:
    async with StreamProxy(market.port) as proxy:
        await tab.page.clock.install(time=datetime.now(UTC) + ahead)
        await tab.go(f"http://127.0.0.1:{proxy.port}/")
        await until_live(tab)
        off_s = await tab.run("Date.now() / 1000") - time.time()
        assert abs(off_s - ahead.total_seconds()) < 60
        for _ in range(5):
            assert max(await ages(tab)) <= AGE_S_MAX
            await asyncio.sleep(0.2)
        said_s = seconds_of_day(await newest_line(tab)) - seconds_of_day(f"{datetime.now(UTC):%T}")
        assert abs(said_s) % (86_400 - MINUTE_S) <= MINUTE_S
        proxy.blackhole()
        await asyncio.sleep(AWAY_S)
        quoted = {title: await quoted_at(tab, market, title) for title in TITLES}
        for title in TITLES:
            shown = await row(tab, "coins", title)
            true_s = time.time() - quoted[title]
            assert age_s(shown) == pytest.approx(true_s, abs=1.5)


async def ages(tab: ChromiumTab) -> list[int]:
    """The ages of all prices, in seconds."""
    return [age_s(one) for one in await rows(tab, "coins")]


async def newest_line(tab: ChromiumTab) -> str:
    """The time of the newest line of the log."""
    found = re.match(r"\d\d:\d\d:\d\d", await until_text(tab, "#lines p", r"^\d\d:"))
    assert found is not None
    return found[0]


def seconds_of_day(clock: str) -> int:
    hours, minutes, seconds = map(int, clock.split(":"))
    return (hours * 60 + minutes) * 60 + seconds


async def quoted_at(tab: ChromiumTab, market: Market, title: str) -> float:
    """When the quote that is shown was observed, in seconds since 1970, as the history has it."""
    shown = await moment(tab)
    assert shown is not None
    position = shown.received(title)
    assert position is not None
    answer = await market.get(f"/v1/quotes/{title.lower()}?last=1000")
    quote: dict[str, Any] = next(one for one in answer.body["quotes"] if Position(one["epoch"], one["seq"]) == position)
    return parse_time(quote["observed_at"]).timestamp()


@pytest.mark.parametrize("date_moves_by", [timedelta(0), timedelta(hours=-1)], ids=["", "set back meanwhile"])
async def test_a_page_that_was_hidden_for_ten_minutes_goes_on_with_the_newest_prices(
    tab: ChromiumTab, market: Market, date_moves_by: timedelta
) -> None:
    """The page's clock is moved; what it missed is three seconds of quotes."""
    await tab.page.clock.install()
    await tab.go(market.address)
    await until_live(tab)
    await until_drawn(tab, 8)
    before = await row(tab, "positions", "Bitcoin")
    await tab.run(f"{HIDE}(true)")
    await tab.page.clock.fast_forward("10:00")
    if date_moves_by:
        now: float = await tab.run("Date.now() / 1000")
        await tab.page.clock.set_system_time(datetime.fromtimestamp(now, UTC) + date_moves_by)
    await asyncio.sleep(3)
    newest = await market.newest("bitcoin")
    await tab.run(f"{HIDE}(false)")
    await assert_it_goes_on(tab, Position(newest["epoch"], newest["seq"]), int(before["count"]))


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_page_that_is_hidden_for_ten_real_minutes_goes_on_with_the_newest_prices(
    tab: ChromiumTab, market: Market
) -> None:
    await tab.go(market.address)
    await until_live(tab)
    await until_drawn(tab, 8)
    before = await row(tab, "positions", "Bitcoin")
    await tab.run(f"{HIDE}(true)")
    await asyncio.sleep(600)
    newest = await market.newest("bitcoin")
    await tab.run(f"{HIDE}(false)")
    await assert_it_goes_on(tab, Position(newest["epoch"], newest["seq"]), int(before["count"]))


async def assert_it_goes_on(tab: ChromiumTab, newest: Position, count: int) -> None:
    """At the newest quotes, without those missed, with true ages, and with no line from the old ones to the new."""

    async def has_newest() -> bool:
        shown = await moment(tab)
        position = None if shown is None else shown.received("Bitcoin")
        return shown is not None and shown.is_live and position is not None and position >= newest

    await until("the newest quote is shown", has_newest)
    for _ in range(10):
        assert max(await ages(tab)) <= AGE_S_MAX
        await asyncio.sleep(0.2)
    await until_text(tab, "#lines", "The page was hidden")
    assert await parts_of_line(tab) == 2
    after = await row(tab, "positions", "Bitcoin")
    epoch, seq = after["here"].split("-")
    assert (int(epoch), int(seq)) >= (newest.epoch, newest.seq)
    assert int(after["count"]) - count <= int(seq) - newest.seq + 4, "it read what came meanwhile"
    assert int(after["gaps"]) == 0


async def until_drawn(tab: ChromiumTab, points: int) -> None:
    """Return once the line of a coin has so many points, all joined."""

    async def is_drawn() -> bool:
        line = await line_of(tab)
        return line.count("L") >= points and line.count("M") == 1

    await until("the line is drawn", is_drawn)


async def line_of(tab: ChromiumTab) -> str:
    """The path of the first coin's line."""
    return str(await tab.run("document.querySelector('#coins tbody .course path').getAttribute('d') ?? ''"))


async def parts_of_line(tab: ChromiumTab) -> int:
    """Into how many parts gaps cut the line of the first coin."""
    line = await line_of(tab)
    return line.count("M")
