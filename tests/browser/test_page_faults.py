"""Parts are broken one by one: the page says so in words within three seconds, and good prices stay."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from tests.browser.harness_market import COINS, TITLES, Market
from tests.browser.harness_page import ChromiumTab, moments, price_of, row, rows, until, until_live, until_text

SAID_S_MAX = 3.0
FAILING_S = 60.0


@dataclass(frozen=True)
class Fault:
    """How to break something, what the head of the page then says, and the row of a table that says so too."""

    name: str
    cause: Callable[[Market], Awaitable[object]]
    said: str
    table: str
    row: str
    state: str
    is_fresh: bool = True  # whether prices go on


async def kill_quote_service(market: Market) -> None:
    await asyncio.to_thread(market.system.kill, "quote_service")


FAULTS = (
    Fault(
        "the source fails",
        lambda market: market.put("/v1/faults", error_rate=1, for_s=FAILING_S),
        "quote_service → external_service.quote (open)",
        "breakers",
        "quote_service → external_service.quote",
        "open",
        is_fresh=False,
    ),
    Fault("shard1 is stopped", lambda market: market.ask("stop", "shard1"), "shard1", "shards", "shard1", "away"),
    Fault("shard2 is frozen", lambda market: market.ask("freeze", "shard2"), "shard2", "shards", "shard2", "away"),
    Fault("redis is stopped", lambda market: market.ask("stop", "redis"), "redis", "services", "redis", "away", False),
    Fault("quote_service is killed", kill_quote_service, "quote_service", "services", "quote_service", "away", False),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_what_is_broken_is_said_within_three_seconds_and_good_prices_stay(
    tab: ChromiumTab, market: Market, fault: Fault
) -> None:
    await tab.go(market.address)
    await until_live(tab)
    await until_text(tab, "#trouble", "^All parts are up")
    began = time.time()
    async with market.healed():
        await fault.cause(market)
        broken_at = time.time()

        async def said() -> list[float]:
            return [one.at for one in await moments(tab) if one.at >= began and fault.said in one.trouble]

        at, *_ = await until("the head says it", said)

        async def row_says() -> bool:
            shown = await row(tab, fault.table, fault.row)
            return shown["state"] == fault.state or fault.state in await logged(tab, fault.row)

        await until("the table or the log says it", row_says)
        story = [one for one in await moments(tab) if one.at >= began]
        assert at - broken_at <= SAID_S_MAX
        assert [one for one in story for title in TITLES if price_of(one.coin(title)) is None] == []
        if fault.is_fresh:
            assert [one for one in story if len(one.fresh) < len(COINS)] == []
    await until_text(tab, "#trouble", "^All parts are up")
    await until_live(tab)


async def logged(tab: ChromiumTab, part: str) -> str:
    """The lines of the log that name this part."""
    lines: list[str] = await tab.run("[...document.querySelectorAll('#lines p')].map((line) => line.textContent)")
    return "\n".join(line for line in lines if part in line)


async def test_a_breaker_that_opens_is_drawn_and_its_changes_are_listed_with_their_reasons(
    tab: ChromiumTab, market: Market
) -> None:
    await tab.go(market.address)
    await until_live(tab)
    assert await tab.run("[...document.querySelectorAll('#diagram .now')].map((box) => box.dataset.of)") == ["closed"]
    async with market.healed():
        await market.put("/v1/faults", error_rate=1, for_s=FAILING_S)
        await until_text(tab, "#now", "open")
        await until_text(tab, "#timeline", "closed → open: too many failures in a row|too large a share failed")
        await until_text(tab, "#timeline", "half open → open: a probe failed")
        await until_text(tab, "#faults", r"error_rate=1, \d+ s left")
    await until_text(tab, "#timeline", "half open → closed: the probes succeeded")
    assert await tab.run("[...document.querySelectorAll('#diagram .now')].map((box) => box.dataset.of)") == ["closed"]
    await until_text(tab, "#lines", "half open → closed: the probes succeeded")  # it was pushed, not polled for


async def test_a_stopped_shard_has_pending_quotes_that_are_stored_once_it_is_back(
    tab: ChromiumTab, market: Market
) -> None:
    await tab.go(market.address)
    await until_live(tab)
    async with market.healed():
        await market.ask("stop", "shard1")

        async def is_pending() -> bool:
            shown = await row(tab, "kept", "Bitcoin")
            count = re.match(r"\d+", shown["pending"])  # what holds them may stand behind it
            return count is not None and int(count[0]) > 1

        await until("quotes are pending", is_pending)
        await until_text(tab, "#report", "parts are missing")
        assert "shard1" in await until_text(tab, "#missing", "shard1")

    async def is_stored() -> bool:
        shown = await rows(tab, "kept")
        return {one["pending"] for one in shown} == {"0"}

    await until("all is stored", is_stored)
