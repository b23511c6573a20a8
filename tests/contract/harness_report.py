"""aggregator_service as it runs, with each of its sources behind a proxy; and what its reports must be.

                          ┌─▶ FaultProxy ─▶ shard1: bitcoin, other
    GET /report/full ─▶ aggregator_service ─▶ FaultProxy ─▶ shard2: ethereum
                          └─▶ FaultProxy ─▶ quote_service, as its twin, over HTTP

The oracle is `ReportSystem.read`: the answer came by its deadline, what it says is missing is null and nothing else is,
what is there is right to the last digit, and nothing shows a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from tests.contract.conftest import Databases, psql
from tests.contract.harness_fault_proxy import FaultProxy
from tests.harness_http_server import serving
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.aggregator_service import app
from cotacoes.config import Settings
from cotacoes.model.quote import Position, Quote, QuoteJson
from cotacoes.web.process import HttpService

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOMES = {"bitcoin": "shard1", "ethereum": "shard2", "other": "shard1"}
COINS = ",".join(f"{coin}:{shard}" for coin, shard in HOMES.items())
PLACEMENT = 3  # each coin has moved away and back
PARTS = ("quote_service", "shard1", "shard2")
EPOCH = 5
HELD = {
    coin: [
        Quote(coin, "USD", Decimal(f"{seq}.{digits}"), EPOCH, seq, NOON, NOON, "sim", before if seq == 1 else None)
        for seq in range(1, 13)
    ]
    for coin, digits, before in (
        ("bitcoin", "1000", Position(4, 2)),
        ("ethereum", "1" * 28, Position(4, 7)),
        ("other", "5", None),
    )
}
LAST = 10
AGE_MS = 200  # of every quote, as the twin has it
ALL = "/report/full?parts=current,average,last_logs,pending"
NO_CACHE = {"cache-control": "no-cache"}

DEADLINE_S = 0.5  # of a report
HUNG_S = 30.0  # a source that hangs answers after a minute or never: an earlier report was ended by its deadline
BACK_S = 20.0
PASSWORD = "hunter2-of-the-shards"
SECRETS = (
    PASSWORD,
    "reader_",
    "127.0.0.1",
    "localhost",
    "postgresql:",
    "http:",
    "Traceback",
    'File "',
    "asyncpg",
    "httpx",
)
OF_READERS = "FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'reader\\_%'"
OUT_OF_TIME = {"timed_out", "rejected", "skipped", "abandoned"}


def expected_of(coin: str, last: int = LAST) -> dict[str, Any]:
    """What a complete report says about the coin."""
    quotes = [msgspec.to_builtins(QuoteJson.from_quote(quote)) for quote in HELD[coin]]
    return {
        "current": {name: value for name, value in quotes[-1].items() if name != "prev"}
        | {"age_ms": AGE_MS, "status": "fresh", "source": "live", "breaker": None},
        "average": {"coin": coin, "currency": "USD", "average": "1.5", "count": 10, "from": "5-3", "to": "5-12"},
        "last_logs": quotes[-last:],
        "through": str(HELD[coin][-1].position),
        "pending": 3,
    }


def parts_of(coin: str) -> dict[str, set[str]]:
    """Each part of the coin, with the names in `missing` that say it is null."""
    logs = {HOMES[coin], f"{coin}.last_logs"}
    return {
        "current": {"quote_service", f"{coin}.current"},
        "average": {"quote_service", f"{coin}.average"},
        "last_logs": logs,
        "through": logs,
        "pending": {"quote_service", "pending"},
    }


def source_of(part: str) -> str:
    """The source of a missing part."""
    coin, _, kind = part.partition(".")
    if part in PARTS:
        return part
    return HOMES[coin] if kind == "last_logs" else "quote_service"


@dataclass(frozen=True)
class Shards:
    """The DSNs of shard1 and shard2: of a role that may only read, and of the administrator."""

    reader: tuple[str, str]
    admin: tuple[str, str]


@contextlib.contextmanager
def filled(admin_dsn: str, templates: Databases) -> Iterator[Shards]:
    """Two shards that hold `HELD`, for as many tests as leave them as they are."""
    made = Databases(admin_dsn)
    role = f"reader_{uuid.uuid4().hex[:8]}"
    first, second = templates.placed(COINS)
    admin = made.dsn(made.make("shard1", first)), made.dsn(made.make("shard2", second))
    psql(admin_dsn, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_read_all_data")
    try:
        for dsn in admin:
            psql(dsn, f"UPDATE fence SET placement = {PLACEMENT}; UPDATE directory SET placement = {PLACEMENT}")
        asyncio.run(_fill(admin))
        first, second = (_as_user(dsn, f"{role}:{PASSWORD}") for dsn in admin)
        yield Shards((first, second), admin)
    finally:
        made.drop()
        psql(admin_dsn, f"DROP ROLE {role}")


def _as_user(dsn: str, user: str) -> str:
    url = urllib.parse.urlsplit(dsn)
    return url._replace(netloc=f"{user}@{url.netloc.rpartition('@')[2]}").geturl()


async def _fill(dsns: tuple[str, str]) -> None:
    for name, dsn in zip(config.SHARDS, dsns, strict=True):
        async with PostgresShard(name, dsn, deadline_s=10.0) as shard:
            for coin, home in HOMES.items():
                if home == name:
                    fence = await shard.become_writer(coin, EPOCH, "writer")
                    await shard.append(coin, fence.placement, EPOCH, HELD[coin])


class ReportSystem:
    """See the head of this file. It is asked over a real socket, and asks over real ones; `build` is how it is made."""

    def __init__(
        self,
        shards: Shards,
        folder: Path,
        *,
        deadline_s: float = DEADLINE_S,
        build: Callable[[Settings], HttpService] = app.build,
    ) -> None:
        self.admin_dsns = dict(zip(config.SHARDS, shards.admin, strict=True))
        self.deadline_s = deadline_s
        self.twin = QuoteServiceTwin(HELD)
        self.proxies: dict[str, FaultProxy] = {}
        self.port = 0
        self._dsns = dict(zip(config.SHARDS, shards.reader, strict=True))
        self._folder = folder
        self._build = build
        self._asking: httpx2.AsyncClient | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ReportSystem]:
        async with contextlib.AsyncExitStack() as stack:
            twin_port = await stack.enter_async_context(serving(self.twin))
            for part, server in {"quote_service": f"http://127.0.0.1:{twin_port}", **self._dsns}.items():
                self.proxies[part] = await stack.enter_async_context(FaultProxy(server))
            settings = config.load(
                {},
                data=self._folder,
                coins=COINS,
                quote_url=self.proxies["quote_service"].dsn,
                shard1_dsn=self.proxies["shard1"].dsn,
                shard2_dsn=self.proxies["shard2"].dsn,
                report_deadline_s=self.deadline_s,
                request_deadline_s=60,
            )
            service = self._build(settings)
            await stack.enter_async_context(service.resources())
            self.port = await stack.enter_async_context(serving(service.app))
            await stack.enter_async_context(self.asking())
            yield self

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """With a client of its own, to which no number of questions is too many."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        before = self._asking
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", limits=limits, timeout=None, headers=NO_CACHE, trust_env=False
        ) as self._asking:
            yield
        self._asking = before

    async def get(self, path: str = ALL, *, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """An answer; TimeoutError if it waited for a source that hangs."""
        assert self._asking is not None
        async with asyncio.timeout(HUNG_S):
            return await self._asking.get(path, headers=headers)

    def read(self, answer: httpx2.Response, last: int = LAST) -> dict[str, str]:
        """What is missing from a report, each part with the status of its source; AssertionError as above."""
        assert answer.status_code == 200
        report = answer.json()
        reasons = {one["part"]: one["reason"] for one in report["missing"]}
        assert len(reasons) == len(report["missing"])
        assert answer.headers.get("x-partial", "") == ", ".join(reasons)
        assert report["complete"] == (not reasons)
        assert all(reasons.values()), "each missing part has a reason"
        assert list(report["coins"]) == list(HOMES)
        for coin in HOMES:
            missing = {part for part, names in parts_of(coin).items() if names & reasons.keys()}
            expected = {part: None if part in missing else value for part, value in expected_of(coin, last).items()}
            if (current := report["coins"][coin]["current"]) is not None:
                # its age has grown by no more than the wait and the merge
                assert AGE_MS <= current["age_ms"] <= AGE_MS + report["elapsed_ms"] + 1000 * HUNG_S
                current["age_ms"] = AGE_MS
            assert report["coins"][coin] == expected
        self._tells_no_secret(answer, reasons)
        return {part: report["sources"][source_of(part)]["status"] for part in reasons}

    def _tells_no_secret(self, answer: httpx2.Response, reasons: dict[str, str]) -> None:
        said = f"{answer.headers.raw!r} {answer.text}"
        assert [secret for secret in SECRETS if secret in said] == []
        places = [urllib.parse.urlsplit(dsn) for dsn in self._dsns.values()]
        hidden = {*(str(proxy.port) for proxy in self.proxies.values()), *(place.path[1:] for place in places)}
        assert [(word, reason) for word in hidden for reason in reasons.values() if word in reason] == []

    async def missing(self) -> dict[str, str]:
        return self.read(await self.get())

    async def exactly(self, expected: set[str]) -> None:
        """Every report names these parts, and one of them no other: another source may be late on a busy machine."""
        async with asyncio.timeout(BACK_S):
            while True:
                missing = await self.missing()
                assert expected <= missing.keys()
                late = missing.keys() - expected
                assert [part for part in late if missing[part] not in OUT_OF_TIME] == []
                if not late:
                    return
                await asyncio.sleep(0.02)

    async def whole(self) -> None:
        """Return the first complete report; until then each report is honest."""
        async with asyncio.timeout(BACK_S):
            while await self.missing():
                await asyncio.sleep(0.02)
