"""The page for everybody: screen readers (axe), phones, zoom, the keyboard, reduced motion, no colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.browser.harness_market import Market
from tests.browser.harness_page import (
    RECORDER,
    ChromiumTab,
    Tab,
    axe,
    choose,
    moment,
    until,
    until_live,
    until_text,
)
from tests.contract.harness_stream_proxy import StreamProxy

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext

TABS_MAX = 300  # presses of a key, to get once round the page


async def test_axe_finds_nothing_in_any_state_of_the_page(any_tab: Tab, market: Market) -> None:
    found = {}
    async with StreamProxy(market.port) as proxy:
        await any_tab.go(f"http://127.0.0.1:{proxy.port}/#token={await market.token()}")
        await until_live(any_tab)
        await until_text(any_tab, "#summary", "opened at")
        await until_text(any_tab, "#report", "ms")
        found["normal"] = await axe(any_tab)
        await choose(any_tab, "#theme", "dark")
        found["dark"] = await axe(any_tab)
        await choose(any_tab, "#language", "pt-BR")
        found["dark, pt-BR"] = await axe(any_tab)
        await choose(any_tab, "#theme", "light")
        found["pt-BR"] = await axe(any_tab)
        assert await any_tab.run("document.documentElement.lang") == "pt-BR"
        await choose(any_tab, "#language", "en")
        proxy.blackhole()

        async def is_stale() -> bool:
            now = await moment(any_tab)
            return now is not None and all(row["state"].startswith("stale") for row in now.coins)

        await until("prices are stale", is_stale)
        found["stale"] = await axe(any_tab)
        await until_text(any_tab, "#link", "^late")
        found["late"] = await axe(any_tab)
    await until_text(any_tab, "#link", "^offline")
    found["offline"] = await axe(any_tab)
    await choose(any_tab, "#theme", "dark")
    found["dark, offline"] = await axe(any_tab)
    assert {state: faults for state, faults in found.items() if faults} == {}


SIDEWAYS = """(() => {
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth <= clientWidth) return [];
  const all = [...document.body.querySelectorAll("*")];
  const wide = all.filter((one) => one.getBoundingClientRect().right > clientWidth);
  return [`${scrollWidth} > ${clientWidth}`, ...wide.slice(0, 5).map((one) => one.outerHTML.slice(0, 120))];
})()"""


@pytest.mark.parametrize("language", ["en", "pt-BR"])
@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [(360, 740, 3), (320, 640, 2), (640, 360, 2)],
    ids=["phone", "the narrowest that WCAG names", "1280 pixels at 200 %"],
)
async def test_nothing_needs_scrolling_sideways(
    chromium: Any, market: Market, width: int, height: int, scale: int, language: str
) -> None:
    """At 200 % a browser gives the page half the pixels, each twice as large."""
    context = await chromium.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale)
    try:
        tab = await recorded_tab(context)
        await tab.go(market.address)
        await until_live(tab)
        await until_text(tab, "#summary", "opened at")
        await until_text(tab, "#report", "ms")
        await choose(tab, "#language", language)
        assert await tab.run(SIDEWAYS) == []
    finally:
        await context.close()


async def recorded_tab(context: BrowserContext) -> ChromiumTab:
    await context.add_init_script(RECORDER)
    return ChromiumTab(await context.new_page())


CONTROLS = """[...document.querySelectorAll("a[href], button, select, input, [tabindex='0']")]
  .filter((one) => !one.disabled && one.checkVisibility({ visibilityProperty: true }))"""
NAME = """((one) => [one.tagName, one.id, one.dataset.t ?? "", one.getAttribute("href") ?? "",
  one.getAttribute("aria-label") ?? (one.id ? "" : one.textContent)].join(" "))"""
FOCUSED = f"""(() => {{
  const one = document.activeElement;
  if (one === document.body || one === null) return null;
  const {{ outlineStyle, outlineWidth }} = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  return {{
    name: {NAME}(one),
    isOutlined: outlineStyle !== "none" && parseFloat(outlineWidth) >= 1,
    isInView: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth && box.width > 1,
  }};
}})()"""


async def test_each_control_is_reached_by_the_keyboard_and_its_focus_is_visible(
    tab: ChromiumTab, market: Market
) -> None:
    await tab.go(f"{market.address}/#token={await market.token()}")
    await until_live(tab)
    await until_text(tab, "#summary", "opened at")
    await until_text(tab, "#token", "Each button")
    controls: list[str] = await tab.run(f"{CONTROLS}.map({NAME})")
    assert len(controls) > 30
    reached = await focused_in_turn(tab)
    names = [one["name"] for one in reached]
    assert [name for name in controls if name not in names] == []
    assert [one for one in reached if not (one["isOutlined"] and one["isInView"])] == []
    assert "skip" in names[0]


async def focused_in_turn(tab: ChromiumTab) -> list[dict[str, Any]]:
    """What has the focus after each press of Tab, once round the page."""
    reached: list[dict[str, Any]] = []
    for _ in range(TABS_MAX):
        await tab.page.keyboard.press("Tab")
        one = await tab.run(FOCUSED)
        if reached and (one is None or one["name"] == reached[0]["name"]):
            return reached
        if one is not None:
            reached.append(one)
    raise AssertionError(f"Tab does not come round: {reached[-3:]}")


async def press_until(tab: ChromiumTab, name: str) -> None:
    """Press Tab until this has the focus, which its name begins to say."""
    for _ in range(TABS_MAX):
        await tab.page.keyboard.press("Tab")
        one = await tab.run(FOCUSED)
        if one is not None and name in one["name"]:
            return
    raise AssertionError(f"{name} is not reached")


async def test_the_chart_and_a_fault_are_operated_by_the_keyboard(tab: ChromiumTab, market: Market) -> None:
    await tab.go(f"{market.address}/#token={await market.token()}")
    await until_live(tab)
    await until_text(tab, "#token", "Each button")
    await press_until(tab, "Ethereum")
    await tab.page.keyboard.press("Enter")
    await until_text(tab, "#chart-title", "Ethereum")
    assert await tab.run("document.activeElement.closest('section').id") == "chart"
    await press_until(tab, "SELECT interval")
    await tab.page.keyboard.press("ArrowDown")
    await until_text(tab, "#summary", r"^Ethereum, 5m,")
    async with market.healed():
        await press_until(tab, "wrong_coin")
        await tab.page.keyboard.press("Space")
        await until_text(tab, "#answer", "^Done")
        await until_text(tab, "#faults", "In force: wrong_coin=1")
