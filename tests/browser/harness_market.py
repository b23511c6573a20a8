"""The whole system behind the page, for all tests that can share one: broken on purpose, and whole again after each.

`up` and its commands block, so they run in threads: the event loop is the proxies' and the browser's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.browser.harness_page import until
from tests.system.conftest import GET_DEADLINE_S, Answer, System

COINS = ("bitcoin", "ethereum")
TITLES = ("Bitcoin", "Ethereum")
SETTINGS = {
    "COTACOES_POLL_INTERVAL_S": "0.25",  # so that five failures take a second
    "COTACOES_FETCH_DEADLINE_S": "0.2",
    "COTACOES_BREAKER_OPEN_S": "1",
    "COTACOES_BREAKER_OPEN_MAX_S": "2",
}
WELL_S = 60.0  # until everything is as it was, breakers included
STOPPED, PAUSED = ("stopped", "frozen")


class Market:
    """A running system, asked without blocking the event loop."""

    def __init__(self, system: System) -> None:
        self.system = system

    @property
    def port(self) -> int:
        return self.system.port("gateway_service")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def token(self) -> str:
        environment = await self.ask("env")
        return str(environment["env"]["COTACOES_ADMIN_TOKEN"])

    async def ask(self, command: str, service: str = "") -> dict[str, Any]:
        """Stop, start, freeze a service, and what else `up` does."""
        return await asyncio.to_thread(self.system.ask, command, service)

    async def get(self, path: str, service: str = "gateway_service") -> Answer:
        return await asyncio.to_thread(self.system.get, service, path)

    async def put(self, path: str, **setting: Any) -> None:
        """With the administrator's token, at the gateway."""
        asked = urllib.request.Request(
            self.address + path,
            json.dumps(setting).encode(),
            {"authorization": f"Bearer {await self.token()}", "content-type": "application/json"},
            method="PUT",
        )

        def send() -> None:
            with urllib.request.urlopen(asked, timeout=GET_DEADLINE_S) as answer:
                assert answer.status == 200

        await asyncio.to_thread(send)

    async def newest(self, coin: str) -> dict[str, Any]:
        """The newest quote, as the history has it."""
        answer = await self.get(f"/v1/quotes/{coin}?last=1")
        quote: dict[str, Any] = answer.body["quotes"][0]
        return quote

    @contextlib.asynccontextmanager
    async def healed(self) -> AsyncIterator[None]:
        """Whatever is broken within is whole at the end."""
        try:
            yield
        finally:
            for name, part in (await asyncio.to_thread(self.system.status)).items():
                if part["state"] in (STOPPED, PAUSED):
                    await self.ask("start", name)
            await until("the services run", self._runs, WELL_S)
            await self.put("/v1/faults")
            await until("the system is well", self._is_well, WELL_S)

    async def _runs(self) -> bool:
        parts = await asyncio.to_thread(self.system.status)
        return {part["state"] for part in parts.values()} == {"running"}

    async def _is_well(self) -> bool:
        try:
            status = (await self.get("/v1/status")).body
        except OSError:
            return False
        parts = [*status["services"].values(), *status["shards"].values()]
        breakers = [one for part in status["services"].values() for one in part["breakers"]]
        return (
            {part["state"] for part in parts} == {"up"}
            and {one["state"] for one in breakers} == {"closed"}
            and {coin["pending"] for coin in status["coins"].values()} == {0}
            and status["report"] is not None
            and status["report"]["complete"]
        )


@contextlib.asynccontextmanager
async def market_running(data: Path, *options: str, settings: dict[str, str]) -> AsyncIterator[Market]:
    """A system on free ports, stopped at the end."""
    system = System(data, "--failure-rate", "0", *options, environment=settings)
    try:
        await asyncio.to_thread(system.start)
        yield Market(system)
    finally:
        await asyncio.to_thread(system.__exit__)
