"""The administrator's token stays in the page: it is in no address, no log and no Referer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.harness_market import Market
from tests.browser.harness_page import ChromiumTab, until_live, until_text

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Request

FILE_BYTES_MAX = 10_000_000  # not the files of the databases
WRONG = "wrong-token-of-nobody"
BUTTONS = "[...document.querySelectorAll('button[data-fault]')].map((button) => button.disabled)"


async def test_the_token_of_the_fragment_is_in_no_address_no_log_and_no_referer(
    context: BrowserContext, tab: ChromiumTab, market: Market
) -> None:
    token = await market.token()
    secrets = files_with(token, market)
    asked: list[Request] = []

    def note(request: Request) -> None:
        asked.append(request)

    context.on("request", note)
    await tab.go(f"{market.address}/#token={token}")
    await until_live(tab)
    assert await tab.run("location.href") == f"{market.address}/"
    assert await tab.run("history.length") <= 2
    async with market.healed():
        await tab.page.get_by_role("button", name="Let every request fail").click()
        await until_text(tab, "#answer", "^Done")
        await until_text(tab, "#faults", "In force: error_rate=1")
    await tab.page.reload()
    await until_live(tab)
    await until_text(tab, "#token", "Each button")  # it is kept for this tab
    await tab.page.locator("footer a[href='/docs']").click()
    await tab.page.wait_for_load_state()
    carrying = []
    for request in asked:
        headers = await request.all_headers()
        assert token not in request.url
        assert token not in headers.get("referer", "")
        carrying += [(request.method, request.url) for name, value in headers.items() if token in value]
    assert carrying == [("PUT", f"{market.address}/v1/faults")]
    assert token not in await tab.run("JSON.stringify([{ ...localStorage }, document.cookie, document.referrer])")
    said = market.system.stderr + repr(market.system.events).encode()
    assert token.encode() not in said
    assert files_with(token, market) == secrets


def files_with(token: str, market: Market) -> list[Path]:
    """The files of the system that have the token in them, logs included."""
    folder = market.system.data
    found = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size < FILE_BYTES_MAX]
    return sorted(file for file in found if token.encode() in file.read_bytes())


async def test_without_the_token_nothing_can_be_set(context: BrowserContext, tab: ChromiumTab, market: Market) -> None:
    await tab.go(market.address)
    await until_live(tab)
    await until_text(tab, "#token", "#token=")
    assert set(await tab.run(BUTTONS)) == {True}
    status = (await market.get("/v1/status")).body
    name = status["services"]["quote_service"]["breakers"][0]["name"]
    for path in ("/v1/faults", f"/v1/breakers/quote_service/{name}"):
        for authorization in (None, "Bearer ", f"Bearer {WRONG}", await market.token()):
            headers = {"content-type": "application/json"} | (
                {} if authorization is None else {"authorization": authorization}
            )
            answer = await context.request.put(market.address + path, data={}, headers=headers)
            assert answer.status == 401, (path, authorization)


async def test_a_wrong_token_is_refused_in_words_and_the_buttons_close(tab: ChromiumTab, market: Market) -> None:
    await tab.go(f"{market.address}/#token={WRONG}")
    await until_live(tab)
    await until_text(tab, "#token", "Each button")
    await tab.page.locator("button[data-fault='hang']").click()
    await until_text(tab, "#answer", "refused the token")
    await until_text(tab, "#token", "#token=")
    assert set(await tab.run(BUTTONS)) == {True}


async def test_another_tab_does_not_get_the_token(context: BrowserContext, tab: ChromiumTab, market: Market) -> None:
    await tab.go(f"{market.address}/#token={await market.token()}")
    await until_live(tab)
    other = ChromiumTab(await context.new_page())
    await other.go(market.address)
    await until_live(other)
    assert set(await other.run(BUTTONS)) == {True}
