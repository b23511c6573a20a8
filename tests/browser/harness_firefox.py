"""Firefox, driven over WebDriver BiDi: what Playwright cannot drive, in the few commands that the tests need.

https://www.w3.org/TR/webdriver-bidi/ has the protocol: a command is {"id", "method", "params"}, its answer has the same
`id`, and events come in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from tests.browser.harness_page import RECORDER
from websockets.asyncio.client import ClientConnection, connect

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
START_S = 60.0  # the first start of a browser on a loaded machine
COMMAND_S = 30.0
ANSWER_BYTES_MAX = 50_000_000  # a report of axe
# a browser that asks nobody but the page under test
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.server": "",
}


class Firefox:
    """A running Firefox with one session. `tabs` of it are opened in containers of their own, so they share nothing."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, FirefoxTab] = {}

    async def begin(self) -> Self:
        await self.command("session.new", capabilities={})
        await self.command("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        await self.command("script.addPreloadScript", functionDeclaration=f"() => {{ {RECORDER} }}")
        return self

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._link.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(COMMAND_S):
            result: dict[str, Any] = await answer
        return result

    async def listen(self) -> None:
        """Hand out answers and events until the connection ends."""
        async for message in self._link:
            frame = json.loads(message)
            if "id" in frame and frame["id"] is not None:
                answer = self._answers.pop(frame["id"])
                if answer.done():  # its command was given up
                    continue
                if frame["type"] == "success":
                    answer.set_result(frame["result"])
                else:
                    answer.set_exception(AssertionError(f"Firefox: {frame['error']}: {frame['message']}"))
            elif frame["type"] == "event":
                self._note(frame["method"], frame["params"])

    def _note(self, event: str, params: dict[str, Any]) -> None:
        context = params.get("context") or params.get("source", {}).get("context")
        tab = self._tabs.get(context)
        if tab is None:
            return
        if event == "log.entryAdded":
            tab.complaints.append(f"{params['level']}: {params['text']}")
        else:
            tab.requests.append(params["request"]["url"])

    @contextlib.asynccontextmanager
    async def tab(self) -> AsyncIterator[FirefoxTab]:
        """A new tab, without cookies and memories."""
        user = (await self.command("browser.createUserContext"))["userContext"]
        created = await self.command("browsingContext.create", type="tab", userContext=user)
        context = str(created["context"])
        tab = self._tabs[context] = FirefoxTab(self, context)
        await self.command("browsingContext.setViewport", context=context, viewport={"width": 1280, "height": 720})
        try:
            yield tab
        finally:
            del self._tabs[context]
            await self.command("browser.removeUserContext", userContext=user)


class FirefoxTab:
    """See `Tab`."""

    def __init__(self, browser: Firefox, context: str) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._browser = browser
        self._context = context

    async def go(self, address: str) -> None:
        await self._browser.command("browsingContext.navigate", context=self._context, url=address, wait="complete")

    async def run(self, expression: str) -> Any:
        answer = await self._browser.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({expression})) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise AssertionError(f"Firefox: {answer['exceptionDetails']['text']}")
        return json.loads(answer["result"]["value"])


@contextlib.asynccontextmanager
async def firefox_running() -> AsyncIterator[Firefox]:
    """A Firefox on a port that it found; all that it writes is in a folder that goes with it."""
    assert FIREFOX is not None
    with tempfile.TemporaryDirectory(prefix="firefox", ignore_cleanup_errors=True) as folder:
        profile = Path(folder) / "profile"
        profile.mkdir()
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items())
        (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(FIREFOX, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"),
            env=os.environ | {"HOME": folder, "TMPDIR": folder, "MOZ_CRASHREPORTER_DISABLE": "1"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(START_S):
                address = await _address(process.stderr)
            draining = asyncio.create_task(_drain(process.stderr))
            async with connect(f"{address}/session", max_size=ANSWER_BYTES_MAX, ping_interval=None) as link:
                browser = Firefox(link)
                listening = asyncio.create_task(browser.listen())
                try:
                    yield await browser.begin()
                finally:
                    listening.cancel()
                    draining.cancel()
                    await asyncio.gather(listening, draining, return_exceptions=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _address(lines: asyncio.StreamReader) -> str:
    said = b""
    async for line in lines:
        said += line
        if found := re.search(rb"WebDriver BiDi listening on (ws://\S+)", line):
            return found[1].decode()
    raise AssertionError(f"Firefox ended: {said.decode(errors='replace')}")


async def _drain(lines: asyncio.StreamReader) -> None:
    """Read on, so that the pipe never fills."""
    while await lines.read(65_536):
        pass
