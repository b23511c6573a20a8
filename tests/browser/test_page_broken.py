"""The page of a system that is broken, for everybody: axe, reduced motion, and no colours."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from tests.browser.harness_market import Market
from tests.browser.harness_page import ChromiumTab, axe, rows, until, until_text

FAILING_S = 300.0
LOOKS = 20
MOVING = """[...document.querySelectorAll("*")].filter((one) => {
  const { animationName, transitionDuration, scrollBehavior } = getComputedStyle(one);
  return animationName !== "none" || /[1-9]/.test(transitionDuration) || scrollBehavior === "smooth";
}).map((one) => one.outerHTML.slice(0, 100))"""
MARKED = """[...document.querySelectorAll("[data-mark]")].map((one) => ({
  mark: one.dataset.mark,
  shape: getComputedStyle(one, "::before").content,
  text: one.textContent,
}))"""


@pytest.fixture(scope="module")
async def broken(market: Market) -> AsyncIterator[Market]:
    """A system whose source fails and one of whose shards hangs, for all tests here; whole again afterwards."""
    async with market.healed():
        await market.put("/v1/faults", error_rate=1, for_s=FAILING_S)
        await market.ask("freeze", "shard2")
        yield market


@pytest.fixture
async def broken_tab(tab: ChromiumTab, broken: Market) -> ChromiumTab:
    """A tab on its page, once all of that shows."""
    await tab.page.emulate_media(reduced_motion="reduce")
    await tab.go(broken.address)
    await until_text(tab, "#trouble", r"shard2")
    await until_text(tab, "#trouble", r"\(open\)")
    await until_text(tab, "#missing", "shard2")

    async def is_stale() -> bool:
        shown = await rows(tab, "coins")
        return bool(shown) and all(one["state"].startswith("stale") for one in shown)

    await until("prices are stale", is_stale)
    return tab


async def test_axe_finds_nothing_while_parts_are_broken(broken_tab: ChromiumTab) -> None:
    assert await axe(broken_tab) == []


async def test_with_reduced_motion_nothing_moves(broken_tab: ChromiumTab) -> None:
    for _ in range(LOOKS):
        assert await broken_tab.run("document.getAnimations().map((one) => String(one.animationName))") == []
        await asyncio.sleep(0.1)
    assert await broken_tab.run(MOVING) == []


async def test_each_state_has_a_word_and_a_shape_beside_its_colour(broken_tab: ChromiumTab) -> None:
    marked: list[dict[str, str]] = await broken_tab.run(MARKED)
    shapes: dict[str, set[str]] = {}
    words: dict[str, set[str]] = {}
    for one in marked:
        shapes.setdefault(one["mark"], set()).add(one["shape"])
        words.setdefault(one["mark"], set()).add(re.sub(r"[\d.]+", "N", one["text"]))
    assert {"good", "warn", "bad"} <= shapes.keys()
    assert all(len(own) == 1 and re.match(r'"."', min(own)) for own in shapes.values()), shapes
    assert len(set.union(*shapes.values())) == len(shapes)
    assert all(all(own) for own in words.values()), words
    for mark, own in words.items():
        others = set[str]().union(*(texts for other, texts in words.items() if other != mark))
        assert own.isdisjoint(others), (mark, own & others)


async def test_the_state_of_the_breaker_is_drawn_by_a_thicker_line(broken_tab: ChromiumTab) -> None:
    boxes: list[tuple[str, str]] = await broken_tab.run(
        "[...document.querySelectorAll('#diagram g')].map((box) => [box.className.baseVal,"
        " getComputedStyle(box.querySelector('rect')).strokeWidth])"
    )
    now = {float(width.removesuffix("px")) for name, width in boxes if name == "now"}
    others = {float(width.removesuffix("px")) for name, width in boxes if name != "now"}
    assert len(now) == 1
    assert min(now) > max(others)
