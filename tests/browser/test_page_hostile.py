"""Names, origins and reasons that somebody else wrote: shown as text, whatever is in them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.browser.harness_market import Market
from tests.browser.harness_page import ChromiumTab, moment, rows, text, until, until_text

if TYPE_CHECKING:
    from playwright.async_api import WebSocketRoute

MARKUP = '<img src=x onerror="window.wasRun = 1"><script>window.wasRun = 1</script>'
TURNED = "\u202eecirp eurt\u2066"
TERMINAL = "\x1b[31m\x1b]8;;http://example.invalid\x07"
HOSTILE = f"{MARKUP}{TURNED}{TERMINAL}{{{{7*7}}}}'\"&amp;"
# each text, and each value of an attribute that is shown or read out, with the element that has it
TEXTS = """[...document.querySelectorAll("body, body *")].flatMap((one) => [
  ...[...one.attributes].filter(({ name }) => /^(aria-.*|title|data-label)$/.test(name)).map(({ value }) => value),
  ...[...one.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE).map(({ data }) => data),
].map((text) => `${one.tagName}#${one.id}: ${text}`))"""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def spoiled(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame of the gateway with hostile text in every place that somebody else may have written."""
    match frame["type"]:
        case "quote":
            return frame | {"origin": HOSTILE, "currency": HOSTILE}
        case "status":
            for part in [*frame.get("services", {}).values(), *frame.get("shards", {}).values()]:
                part |= {"state": "away", "reason": HOSTILE}
            for part in frame.get("services", {}).values():
                for breaker in part["breakers"]:
                    error = {"at": "2026-11-30T12:00:00Z", "error": HOSTILE, "verdict": HOSTILE}
                    breaker |= {"name": f"external_service.{HOSTILE}", "last_errors": [error], "next_call": HOSTILE}
            for coin in frame.get("coins", {}).values():
                coin |= {"symbol": HOSTILE, "title": HOSTILE, "held": HOSTILE}
            if frame.get("coins"):
                frame["coins"][HOSTILE] = next(iter(frame["coins"].values()))
            if "limits" in frame:
                frame["services"][HOSTILE] = next(iter(frame["services"].values()))
            if frame.get("report"):
                frame["report"]["missing"] = [{"part": HOSTILE, "reason": HOSTILE}]
                for branch in frame["report"]["trace"]:
                    branch |= {"branch": branch["branch"] + HOSTILE, "reason": HOSTILE, "status": HOSTILE}
            if frame.get("faults"):
                frame["faults"]["venues"] = {HOSTILE: {"lie": HOSTILE}}
    return frame


def accepted(message: dict[str, Any]) -> dict[str, Any]:
    """What the page sends, without the name that the gateway would refuse."""
    if "coins" in message:
        message["coins"] = [coin for coin in message["coins"] if coin != HOSTILE]
    return message


async def test_text_of_others_is_shown_as_text(tab: ChromiumTab, market: Market) -> None:
    is_hostile = True

    def between(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            frame = json.loads(message)
            route.send(json.dumps(spoiled(frame) if is_hostile else frame))

        route.on_message(lambda message: server.send(json.dumps(accepted(json.loads(message)))))
        server.on_message(pass_on)

    await tab.page.route_web_socket(re.compile(r"/v1/ws$"), between)
    await tab.go(market.address)

    async def is_priced() -> bool:
        shown = await moment(tab)
        return shown is not None and any("<img src=x" in row["origin"] for row in shown.coins)

    await until("prices with a hostile origin", is_priced)
    await until_text(tab, "#missing", "<img src=x")
    shown = [(await rows(tab, table))[0] for table in ("services", "shards", "breakers", "trace")]
    assert all("<img src=x" in row["reason" if "reason" in row else "error1"] for row in shown)
    is_hostile = False  # the log says what has changed since the page was opened
    await until_text(tab, "#services", "up")
    is_hostile = True
    await until_text(tab, "#lines", "<img src=x")
    assert await tab.run("window.wasRun ?? null") is None
    assert await tab.run("document.querySelectorAll('img, body script, iframe').length") == 0
    assert await tab.run("shown.violations") == []
    assert [one for one in tab.complaints if "TrustedHTML" in one] == []
    assert "{{7*7}}" in await text(tab, "body")
    texts: list[str] = await tab.run(TEXTS)
    assert [one for one in texts if UNSEEN.search(one)] == []


async def test_a_hostile_name_does_not_turn_the_words_around_it(tab: ChromiumTab, market: Market) -> None:
    """Each cell with text of others is a direction of its own."""
    await tab.go(market.address)
    await until_text(tab, "#link", "^live")
    isolated = "[...document.querySelectorAll('tbody td, tbody th')].map((cell) => getComputedStyle(cell).unicodeBidi)"
    assert set(await tab.run(isolated)) <= {"isolate", "plaintext"}
