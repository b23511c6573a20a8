"""feed_service in this process, before simulated venues in this process, over real sockets."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

import httpx2
from tests.harness_http_server import serving

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.external_service import app as external_service
from cotacoes.feed_service import app as feed_service
from cotacoes.feed_service.limits import FeedLimits
from cotacoes.feed_service.watch import WatchLimits

TOKEN = "sesame"
VENUES = ("binance", "coinbase", "kraken", "bitstamp", "okx", "bybit")
BASIS_POINT = Decimal("0.0001")
# A tenth of the real ones, so that the suite stays short.
SMALL = FeedLimits(
    steady_s=1.0,
    renewal_s=3.0,
    renewal_retry_s=3.0,
    absent_s=5.0,
    watch=WatchLimits(
        silent_min_s=2.0,
        never_s=3.0,
        stalled_min_s=2.0,
        stalled_max_s=3.0,
        stalled_gaps=5.0,
        frozen_s=2.0,
        gaps_max=3,
    ),
)


@dataclass
class Feed:
    """A running feed_service, and what it says."""

    asking: httpx2.AsyncClient

    async def get(self, path: str) -> Any:
        answer = await self.asking.get(path)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    async def venue(self, name: str) -> dict[str, Any]:
        """The connection to a venue."""
        return next(one for one in (await self.get("/v1/venues"))["feeds"] if one["venue"] == name)

    async def wait_for(self, name: str, holds: Callable[[dict[str, Any]], object], limit_s: float) -> dict[str, Any]:
        """The connection to a venue once this holds of it."""
        due_s = time.monotonic() + limit_s
        while not holds(shown := await self.venue(name)):
            assert time.monotonic() < due_s, f"not within {limit_s} s: {shown}"
            await asyncio.sleep(0.05)
        return shown

    async def wait_agreed(self, used: int, limit_s: float = 20.0) -> None:
        """Return once so many venues give the price of bitcoin."""
        due_s = time.monotonic() + limit_s
        while (shown := await self.consensus())["used"] < used:
            assert time.monotonic() < due_s, f"not within {limit_s} s: {shown}"
            await asyncio.sleep(0.05)

    async def consensus(self) -> dict[str, Any]:
        answer = await self.asking.get("/v1/venues/bitcoin")
        nothing = {"used": 0, "state": "none", "venues": []}  # before the first second is over
        return answer.json() if answer.status_code == 200 else nothing

    async def newest_index(self) -> int:
        """How many prices the tape has had."""
        return int((await self.get("/quotes"))["next"].rpartition("-")[2])


@dataclass
class External:
    """A running external_service, whose venues can be made to fail."""

    port: int
    client: HttpClient

    async def put(self, path: str, **setting: Any) -> None:
        body = json.dumps(setting).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = await self.client.put(url, body, {"authorization": f"Bearer {TOKEN}"}, deadline_s=5.0)
        assert answer.status == 200, answer.body

    async def set_faults(self, venue: str, **faults: Any) -> None:
        await self.put(f"/venues/{venue}/faults", **faults)

    def address(self, venue: str) -> str:
        return f"ws://127.0.0.1:{self.port}/venues/{venue}/stream"


@contextlib.asynccontextmanager
async def external() -> AsyncIterator[External]:
    with tempfile.TemporaryDirectory() as data:
        settings = config.load({}, admin_token=TOKEN, failure_rate=0.0, data=data)
        stop = asyncio.Event()
        service = external_service.build(settings, stop)
        async with (
            service.resources(),
            serving(service.app, stop, service.websocket) as port,
            HttpClient(2.0, 262_144) as client,
        ):
            yield External(port, client)


@contextlib.asynccontextmanager
async def feeding(addresses: dict[str, str], *, limits: FeedLimits = SMALL) -> AsyncIterator[Feed]:
    """feed_service over these addresses, by venue."""
    with tempfile.TemporaryDirectory() as data:
        settings = config.load(
            {},
            source="exchanges",
            data=data,
            admin_token=TOKEN,
            venues=",".join(addresses),
            venue_urls=",".join(f"{venue}={url}" for venue, url in addresses.items()),
        )
        service = feed_service.build(settings, limits=limits)
        transport = httpx2.ASGITransport(service.app, raise_app_exceptions=False)
        async with service.resources(), httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking:
            yield Feed(asking)


def distance_bps(consensus: dict[str, Any], honest: set[str]) -> Decimal:
    """How far the price is from the median of what these venues say in dollars."""
    mids = [Decimal(one["mid_usd"]) for one in consensus["venues"] if one["venue"] in honest and one.get("mid_usd")]
    return abs(Decimal(consensus["price"]) / median(mids) - 1) / BASIS_POINT
