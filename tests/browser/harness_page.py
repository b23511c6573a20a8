"""A tab of a browser on the gateway's page, what it shows, and when it showed what.

A tab is one of Chromium, driven by Playwright, or of Firefox, driven over WebDriver BiDi: the tests that take a `Tab`
run in both. Whatever is read comes from what a visitor sees: the texts of the page, by the ids and columns of its HTML.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cotacoes.model.quote import Position

if TYPE_CHECKING:
    from playwright.async_api import Page

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
LIMIT_S = 30.0
POLL_S = 0.05
T = TypeVar("T")

# the rows of a table, by the names of its columns
ROWS = """(table) => {
  const heads = [...document.querySelectorAll(`#${table} thead th`)].map((head) => head.dataset.t);
  return [...document.querySelectorAll(`#${table} tbody tr`)].map((row) =>
    Object.fromEntries([...row.cells].map((cell, column) => [heads[column], cell.textContent])));
}"""
# `moments` has each state of the head, of the prices and of their positions that the page showed, with the time;
# `violations` what the content security policy refused; `rows` reads a table
RECORDER = """(() => {
  const shown = { moments: [], violations: [] };
  window.shown = shown;
  addEventListener("securitypolicyviolation", (event) =>
    shown.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
  const text = (id) => document.getElementById(id)?.textContent ?? "";
  shown.rows = ROWS;
  let last = "";
  const note = () => {
    const moment = {
      link: text("link"), trouble: text("trouble"), coins: shown.rows("coins"), positions: shown.rows("positions"),
    };
    const now = JSON.stringify(moment);
    if (now !== last) shown.moments.push({ at: Date.now() / 1000, ...moment });
    last = now;
  };
  new MutationObserver(note).observe(document, { subtree: true, childList: true, characterData: true });
})()""".replace("ROWS", ROWS)


class Tab(Protocol):
    """`requests` are the addresses that it asked for, `complaints` what it wrote into its console."""

    requests: list[str]
    complaints: list[str]

    async def go(self, address: str) -> None:
        """Open an address, and return once the page is loaded."""
        ...

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited, as JSON has it."""
        ...


class ChromiumTab:
    """A tab that Playwright drives; `page` is its own handle."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    async def go(self, address: str) -> None:
        await self.page.goto(address)

    async def run(self, expression: str) -> Any:
        return await self.page.evaluate(f"async () => ({expression})")


@dataclass(frozen=True)
class Moment:
    """What the head and the tables of prices and positions showed from `at` on.

    `at` is in seconds since 1970 by the browser's clock.
    """

    at: float
    link: str
    trouble: str
    coins: list[dict[str, str]]
    positions: list[dict[str, str]]

    @property
    def is_live(self) -> bool:
        return self.link == "live"

    def coin(self, title: str) -> dict[str, str]:
        """The row of a coin; empty before it is there."""
        return next((row for row in self.coins if row["coin"].startswith(title)), {})

    def received(self, title: str) -> Position | None:
        """The position of the coin's newest quote that came; None before one did."""
        here = next((row["here"] for row in self.positions if row["coin"] == title), "–")
        return None if here == "–" else Position.parse(here)

    @property
    def fresh(self) -> list[str]:
        """The coins whose price is called fresh."""
        return [row["coin"] for row in self.coins if row["state"].startswith("fresh")]


async def until(what: str, condition: Callable[[], Awaitable[T]], limit_s: float = LIMIT_S) -> T:
    """What `condition` returns once that is true; fails, naming `what` and the last answer, after `limit_s`."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + limit_s
    while not (found := await condition()):
        assert loop.time() < due_s, f"not within {limit_s:g} s: {what}; last: {found!r}"
        await asyncio.sleep(POLL_S)
    return found


async def text(tab: Tab, selector: str) -> str:
    """The text of the first such element; empty without one."""
    found = await tab.run(f"document.querySelector({selector!r})?.textContent ?? ''")
    return str(found)


async def until_text(tab: Tab, selector: str, pattern: str, limit_s: float = LIMIT_S) -> str:
    """The text of an element once it has this."""
    seen = ""

    async def has() -> bool:
        nonlocal seen
        seen = await text(tab, selector)
        return re.search(pattern, seen) is not None

    try:
        await until(f"{selector} says {pattern!r}", has, limit_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {seen!r}") from None
    return seen


async def rows(tab: Tab, table: str) -> list[dict[str, str]]:
    """The rows of a table by its id or that of its section, each by the names of its columns."""
    found: list[dict[str, str]] = await tab.run(f"shown.rows({table!r})")
    return found


async def row(tab: Tab, table: str, begins: str) -> dict[str, str]:
    """The row whose first cell begins so; empty without one."""
    return next((one for one in await rows(tab, table) if next(iter(one.values())).startswith(begins)), {})


async def moments(tab: Tab) -> list[Moment]:
    """All that it showed so far."""
    return [Moment(**one) for one in await tab.run("shown.moments")]


async def moment(tab: Tab) -> Moment | None:
    """What it shows now; None if that is nothing yet."""
    found = await tab.run("shown.moments.at(-1) ?? null")
    return None if found is None else Moment(**found)


async def until_live(tab: Tab, limit_s: float = LIMIT_S) -> None:
    """Return once the stream is live, and each coin has a price that is fresh."""

    async def is_live() -> bool:
        now = await moment(tab)
        return now is not None and now.is_live and 0 < len(now.coins) == len(now.fresh)

    await until("the page is live", is_live, limit_s)


def price_of(row: dict[str, str]) -> str | None:
    """The price in a row of the table of prices, with every digit; None without one."""
    found = re.match(r"\d+(\.\d+)?(?= |$)", row.get("price", ""))
    return found[0] if found else None


def age_s(row: dict[str, str]) -> int:
    """The age in a row of the table of prices, which is shown in seconds up to 100."""
    found = re.fullmatch(r"(\d+) s", row["age"])
    assert found is not None, row
    return int(found[1])


async def choose(tab: Tab, selector: str, value: str) -> None:
    """Choose in a select, as a visitor does."""
    await tab.run(
        f"""(() => {{
          const select = document.querySelector({selector!r});
          select.value = {value!r};
          select.dispatchEvent(new Event('change', {{ bubbles: true }}));
        }})()"""
    )


async def axe(tab: Tab) -> list[str]:
    """What axe finds fault with, each with the elements."""
    await tab.run(f"(() => {{ {AXE.read_text(encoding='utf-8')} }})()")
    found: list[str] = await tab.run(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map((one) =>"
        " `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join('; ')}`))"
    )
    return found
