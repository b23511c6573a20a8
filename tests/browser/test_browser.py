"""A browser's own EventSource and WebSocket, and npm's `ws`, unmodified: they come back, and go on exactly.

`make test-browser` installs what this needs and runs it; elsewhere it is skipped. A quote is written each 50 ms, while
clients are away too, so one that came back without its position would have a hole.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import Server, valkey  # noqa: F401  # a fixture
from tests.contract.harness_gateway import GatewaySystem
from tests.harness_asyncapi import check_frame
from tests.system.conftest import System
from tests.unit.fake_history import breaches

from cotacoes.model.quote import Position

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LIMIT_S = 30.0
TEST_S = 28.0  # for a test with the gateway alone; the first start of a browser may take seconds
SOME = 20  # quotes
pytestmark = pytest.mark.skipif(
    "COTACOES_TEST_BROWSER" not in os.environ, reason="make test-browser installs and runs them"
)


class Page:
    """Serves the page, and collects the events that it reports."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator["Page"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, limit=10_000_000)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            lengths = [line.partition(":")[2] for line in head.splitlines() if line.startswith("content-length:")]
            if lengths:
                self.received += json.loads(await reader.readexactly(int(lengths[0])))
            body = b"" if lengths else (HERE / "page.html").read_bytes()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            await writer.drain()

    def of(self, wire: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.received if event["wire"] == wire and event["kind"] == kind]

    def frames(self) -> list[dict[str, Any]]:
        """Those over the WebSocket."""
        return [event["data"] for event in self.of("websocket", "frame")]

    def events(self) -> list[dict[str, Any]]:
        """The quotes over EventSource, whose `id` says the same."""
        events = self.of("sse", "quote")
        for event in events:
            check_frame(event["data"])
            assert event["id"] == f"bitcoin:{event['data']['epoch']}-{event['data']['seq']}"
        return [event["data"] for event in events]

    def positions(self) -> list[Position]:
        return positions(self.events())


@contextlib.asynccontextmanager
async def browsing(page: Page, gateway_port: int) -> AsyncIterator[None]:
    """A browser on the page; fails at once where it ends. All that it writes is in a folder that goes with it."""
    assert CHROMIUM is not None, "install Chromium"
    # not `tmp_path`, which is too long for the name of the browser's socket; ignoring what it still writes as it dies
    with tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            *(CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile"),
            f"{page.origin}/?gateway=http://127.0.0.1:{gateway_port}",
            env=os.environ | {"TMPDIR": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_fail_once_ended(process))
                yield
                watching.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _fail_once_ended(process: asyncio.subprocess.Process) -> None:
    raise AssertionError(f"the browser ended with {await process.wait()}")


async def until(what: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    async with asyncio.timeout(limit_s):
        while not what():
            await asyncio.sleep(0.05)


def positions(frames: list[dict[str, Any]]) -> list[Position]:
    return [Position(frame["epoch"], frame["seq"]) for frame in frames if frame["type"] == "quote"]


def assert_exact(world: GatewaySystem, frames: list[dict[str, Any]]) -> None:
    """Each is as described, and the quotes are all that were written from the first one to the last, once, in order."""
    for frame in frames:
        check_frame(frame)
    received = positions(frames)
    written = [quote for quote in world.history.written if quote.position <= received[-1]]
    start = next(quote.before for quote in written if quote.position == received[0])
    assert breaches(written, received, [], start) == []


async def disturb(world: GatewaySystem, received: Callable[[], list[dict[str, Any]]]) -> None:
    """Cut the connections, then stop the gateway and start it again; each time some more quotes are to come."""

    async def some() -> None:
        enough = len(positions(received())) + SOME
        await until(lambda: len(positions(received())) >= enough)

    await some()
    world.proxy.reset()
    await some()
    await world.gateway.end(signal.SIGTERM)
    await world.gateway.start()
    await some()


async def test_a_browser_comes_back_by_itself_and_goes_on_exactly(
    valkey: Server,  # noqa: F811
    seeded: random.Random,
) -> None:
    async with (
        asyncio.timeout(TEST_S),
        Page().served() as page,
        GatewaySystem(valkey.port, seeded).running(allowed_origins=page.origin) as world,
    ):
        async with browsing(page, world.proxy.port):
            await until(lambda: len(positions(page.frames())) >= SOME)
            await disturb(world, page.events)
        assert len(page.of("sse", "lost")) >= 2
        assert not page.of("sse", "closed")
        assert not page.of("sse", "gap")
        assert_exact(world, page.events())
        assert_exact(world, page.frames())


async def test_a_page_on_the_whole_system_goes_on_exactly_over_a_restart_of_the_gateway(tmp_path: Path) -> None:
    async with Page().served() as page:
        environment = {"COTACOES_ALLOWED_ORIGINS": page.origin, "COTACOES_POLL_INTERVAL_S": "0.05"}
        with System(tmp_path / "data", "--failure-rate", "0", environment=environment) as system:
            await asyncio.to_thread(system.start)
            async with browsing(page, system.port("gateway_service")):
                await until(lambda: len(page.positions()) > 10)
                await asyncio.to_thread(system.ask, "stop", "gateway_service")
                await until(lambda: page.of("sse", "lost"))
                seen = page.positions()[-1]
                await until(lambda: newest(system) > seen)  # what comes back has something to make up for
                await asyncio.to_thread(system.ask, "start", "gateway_service")
                count = len(page.positions())
                await until(lambda: len(page.positions()) > count + 10)
            received = page.positions()
            path = f"/v1/quotes/bitcoin?after={received[0]}&limit=1000"
            held = [
                Position(quote["epoch"], quote["seq"]) for quote in system.get("quote_service", path).body["quotes"]
            ]
        assert not page.of("sse", "gap")
        assert not page.of("sse", "closed")
        assert received[1:] == held[: len(received) - 1]


def newest(system: System) -> Position:
    """The last quote that is recorded."""
    current = system.get("quote_service", "/v1/quotes/bitcoin?last=1").body["quotes"][0]
    return Position(current["epoch"], current["seq"])


async def test_a_page_of_another_origin_gets_nothing(
    valkey: Server,  # noqa: F811
    seeded: random.Random,
) -> None:
    async with (
        asyncio.timeout(TEST_S),
        Page().served() as page,
        GatewaySystem(valkey.port, seeded).running(allowed_origins="http://127.0.0.1:1") as world,
    ):
        async with browsing(page, world.proxy.port):
            await until(lambda: page.of("sse", "closed") and page.of("websocket", "closed"))
        assert {event["kind"] for event in page.received} == {"closed"}


async def test_an_unmodified_ws_of_npm_is_resumed_exactly(valkey: Server, seeded: random.Random) -> None:  # noqa: F811
    lines: list[dict[str, Any]] = []

    async def read(stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            lines.append(json.loads(line))  # noqa: PERF401  # to be seen as they come

    def frames() -> list[dict[str, Any]]:
        return [line for line in lines if line["type"] != "closed"]

    async with asyncio.timeout(TEST_S), GatewaySystem(valkey.port, seeded).running() as world:
        process = await asyncio.create_subprocess_exec(
            *("node", "client.js", f"ws://127.0.0.1:{world.proxy.port}", "bitcoin"), cwd=HERE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        reading = asyncio.create_task(read(process.stdout))
        try:
            await disturb(world, frames)
        finally:
            process.kill()
            await process.wait()
            await reading
        # what comes after are the tries while there was no gateway
        assert [line["code"] for line in lines if line["type"] == "closed"][:2] == [1006, 1001]
        assert [frame["reason"] for frame in frames() if frame["type"] == "bye"] == ["shutdown"]
        subscribed = [frame["coins"]["bitcoin"]["recovered"] for frame in frames() if frame["type"] == "subscribed"]
        assert subscribed == [False, True, True]
        assert_exact(world, frames())
