"""What sources of prices share: who may wait for the tape, and coins that come back after a restart."""

import asyncio
from pathlib import Path

import httpx2
import pytest
from fastapi import APIRouter, Response

from cotacoes import config
from cotacoes.external_service.simulation import Simulation
from cotacoes.observability.metrics import Metrics
from cotacoes.web.app import build_app
from cotacoes.web.source import TAPE_PATH, WAITS_MAX, TapeRoute


async def test_only_so_many_readers_may_wait_and_the_others_get_a_page_at_once() -> None:
    go_on = asyncio.Event()
    waits = 0

    async def page(after: str | None, limit: int, wait_s: float) -> Response:
        nonlocal waits
        if wait_s:
            waits += 1
            await go_on.wait()
        return Response(str(wait_s))

    direct = {TAPE_PATH: TapeRoute(page, wait_s_max=2.5)}
    app = build_app("source", config.load({}), Metrics(), APIRouter(), direct=direct)
    transport = httpx2.ASGITransport(app)
    async with (
        asyncio.timeout(30),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        asyncio.TaskGroup() as group,
    ):
        waiting = [group.create_task(client.get("/quotes?wait_ms=4000")) for _ in range(WAITS_MAX)]
        while waits < WAITS_MAX:
            await asyncio.sleep(0)
        assert (await client.get("/quotes?wait_ms=4000")).text == "0.0"
        gone = waiting.pop()
        gone.cancel()  # a client that has gone makes room
        await asyncio.wait([gone])
        waiting.append(group.create_task(client.get("/quotes?wait_ms=4000")))
        while waits == WAITS_MAX:
            await asyncio.sleep(0)
        go_on.set()
        assert [(await answer).text for answer in waiting] == ["2.5"] * WAITS_MAX


@pytest.mark.parametrize(
    "text", ["", "[", "5", "null", '{"solana": 1}', '[5, null, "BAD", "bit coin"]', "\ufffd", "[" * 100_000]
)
def test_a_damaged_list_of_coins_that_were_added_to_the_market_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "coins.json").write_text(text)
    assert Simulation(config.load({}), tmp_path).coins == ["bitcoin", "ethereum"]


def test_coins_that_were_added_to_the_market_come_back_but_no_field_of_quote(tmp_path: Path) -> None:
    Simulation(config.load({}), tmp_path).add("solana")
    assert Simulation(config.load({}), tmp_path).coins == ["bitcoin", "ethereum", "solana"]
    (tmp_path / "coins.json").write_text('["observed", "monero"]')
    assert Simulation(config.load({}), tmp_path).coins == ["bitcoin", "ethereum", "monero"]
