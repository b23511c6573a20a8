"""The browsers and the system that the tests of the page share, and a tab for each test.

Without Playwright, which `make test-browser` installs, the tests of the page are not even read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from tests.browser.harness_firefox import FIREFOX, Firefox, FirefoxTab, firefox_running
from tests.browser.harness_market import SETTINGS, Market, market_running
from tests.browser.harness_page import RECORDER, ChromiumTab, Tab

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext

if "COTACOES_TEST_BROWSER" not in os.environ:
    collect_ignore_glob = ["test_page*.py"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for all, in which the shared browsers live."""
    return "asyncio"


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def firefox() -> AsyncIterator[Firefox]:
    if FIREFOX is None:
        pytest.skip("Firefox is missing: apt-get install -y firefox-esr")
    async with firefox_running() as browser:
        yield browser


@pytest.fixture(scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    """A system without faults; each test leaves it as it was."""
    data = tmp_path_factory.mktemp("a system") / "data"
    async with market_running(data, settings=SETTINGS) as one:
        yield one


@contextlib.asynccontextmanager
async def profile(chromium: Browser, script: str) -> AsyncIterator[BrowserContext]:
    """A fresh profile of Chromium, in which each page runs this script first."""
    made = await chromium.new_context(locale="en-US", timezone_id="UTC")
    await made.add_init_script(script)
    yield made
    await made.close()


@pytest.fixture
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile of Chromium."""
    async with profile(chromium, RECORDER) as made:
        yield made


@pytest.fixture
async def tab(context: BrowserContext) -> ChromiumTab:
    """A new tab of Chromium."""
    return ChromiumTab(await context.new_page())


@pytest.fixture
async def firefox_tab(firefox: Firefox) -> AsyncIterator[FirefoxTab]:
    """A new tab of Firefox."""
    async with firefox.tab() as one:
        yield one


@pytest.fixture(params=["chromium", "firefox"])
def any_tab(request: pytest.FixtureRequest) -> Tab:
    """A new tab of each browser."""
    one: Tab = request.getfixturevalue({"chromium": "tab", "firefox": "firefox_tab"}[request.param])
    return one
