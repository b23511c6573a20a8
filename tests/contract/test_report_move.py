"""While a coin moves from shard to shard and back, every report has its newest quotes, or names them as missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.contract.conftest import Placed
from tests.contract.harness_move import COIN, ThreeShards, Writer, filled, on_postgres
from tests.contract.harness_report import ALL, BACK_S, NO_CACHE, OUT_OF_TIME, source_of
from tests.harness_http_server import serving
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes import config
from cotacoes.admin.copying import MoveProgress
from cotacoes.aggregator_service import app
from cotacoes.model.quote import QuoteJson

DEADLINE_S = 5.0


class Asker:
    """A client that requests the `last` logs again and again.

    Two clients of the same `last` would share a report, which may be older than the second request. `delivered` is how
    many quotes of the log the shards certainly hold.
    """

    def __init__(self, asking: httpx2.AsyncClient, writer: Writer, *, last: int) -> None:
        self.delivered = len(writer.log)
        self.checked = 0
        self._asking = asking
        self._writer = writer
        self._newest = 0
        self._last = last

    async def ask(self) -> set[str]:
        """What is missing, by name; AssertionError if the history is wrong or older than it may be."""
        least = max(self.delivered, self._newest)
        answer = await self._asking.get(f"{ALL},window&last={self._last}")
        assert answer.status_code == 200
        report = answer.json()
        missing = {one["part"] for one in report["missing"]}
        logs = f"{COIN}.last_logs"
        late = missing - {logs, f"{COIN}.window"}
        assert {report["sources"][source_of(part)]["status"] for part in late} <= OUT_OF_TIME
        shown: dict[str, Any] = report["coins"][COIN]
        assert (shown["window"] is None) == (shown["last_logs"] is None)
        if shown["last_logs"] is None:
            assert missing & {logs, "shard1", "shard2", "shard3"}
            return missing
        assert logs not in missing
        assert shown["window"]["holes"] == 0
        held = [msgspec.to_builtins(QuoteJson.from_quote(quote)) for quote in self._writer.log]
        self._newest = held.index(shown["last_logs"][-1]) + 1
        assert shown["last_logs"] == held[self._newest - self._last : self._newest]
        assert shown["through"] == str(self._writer.log[self._newest - 1].position)
        assert least <= self._newest <= len(held)
        self.checked += 1
        return missing

    async def ask_on(self) -> None:
        while True:
            await self.ask()

    async def whole(self) -> None:
        async with asyncio.timeout(BACK_S):
            while await self.ask():
                await asyncio.sleep(0.02)


@pytest.fixture
async def moving(placed: Placed) -> AsyncIterator[tuple[ThreeShards, Writer]]:
    async with on_postgres(placed) as world:
        yield world, await filled(world, days=1)


async def test_a_report_during_a_move_is_right_or_names_what_it_lacks_and_is_complete_afterwards(
    moving: tuple[ThreeShards, Writer], tmp_path: Path
) -> None:
    world, writer = moving
    async with serving(QuoteServiceTwin({COIN: writer.log})) as twin_port:
        settings = config.load(
            {},
            data=tmp_path,
            coins=f"{COIN}:shard1",
            quote_url=f"http://127.0.0.1:{twin_port}",
            shard1_dsn=world.dsns["shard1"],
            shard2_dsn=world.dsns["shard2"],
            report_deadline_s=DEADLINE_S,
        )
        service = app.build(settings)
        transport = httpx2.ASGITransport(service.app)
        async with (
            service.resources(),
            httpx2.AsyncClient(transport=transport, base_url="http://aggregator", headers=NO_CACHE) as asking,
        ):
            at_steps, beside = Asker(asking, writer, last=10), Asker(asking, writer, last=5)
            asked: list[str] = []

            async def step(name: str, _: MoveProgress) -> None:
                """Between any two steps the writer continues, and a client asks."""
                writer.record(2)
                if await writer.deliver():
                    at_steps.delivered = beside.delivered = len(writer.log)
                await at_steps.ask()
                asked.append(name)

            on = asyncio.create_task(beside.ask_on())
            try:
                for to in ("shard2", "shard1"):
                    await world.move(to, step)
                    writer.record(2)
                    assert await writer.deliver()
                    at_steps.delivered = beside.delivered = len(writer.log)
                    await at_steps.whole()
                    assert not on.done()
            finally:
                on.cancel()
                (ended,) = await asyncio.gather(on, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended
    assert {"begun", "closed", "opened", "left", "placed"} <= set(asked)
    assert at_steps.checked > 0
    assert beside.checked > 0
