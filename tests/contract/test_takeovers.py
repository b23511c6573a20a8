"""Takeovers between running and cut-off writers leave one chain behind, and every quote is accounted for."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.conftest import free_port
from tests.contract.conftest import Placed
from tests.contract.harness_fault_proxy import FaultProxy
from tests.unit.harness_quote_service import COIN, NOON, QuoteServiceCore, until

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin import audit, discrepancies
from cotacoes.config import Settings
from cotacoes.errors import WriterSupersededError
from cotacoes.model.live_message import decode_message
from cotacoes.model.quote import Position, Quote, first_gap

RETRIES: dict[str, Any] = {"retry_s": 0.005, "retry_max_s": 0.05}
pytestmark = pytest.mark.anyio

EVERY_S = 0.02  # fifty quotes a second


class TakeoverSystem:
    """One shard, the writers that take it over in turn, each with its own log and network, and the published quotes."""

    def __init__(self, folder: Path, settings: Settings, proxies: Sequence[FaultProxy]) -> None:
        self.folder = folder
        self.settings = settings
        self.proxies = proxies
        self.wall = NOON
        self.published: dict[Position, Quote] = {}

    def writer(self, number: int, shard: PostgresShard) -> QuoteServiceCore:
        core = QuoteServiceCore(self.folder / str(number), shard, **RETRIES)  # type: ignore[arg-type]
        publish = core.bus.publish

        async def note(messages: Sequence[tuple[str, bytes]]) -> list[int]:
            for _, message in messages:
                self.published |= {one.position: one for one in decode_message(message) if isinstance(one, Quote)}
            return await publish(messages)

        core.bus.publish = note  # type: ignore[method-assign]
        return core

    async def write(self, core: QuoteServiceCore) -> None:
        """Record, deliver and publish until superseded or cancelled."""
        core.wall = self.wall
        async with core.running():
            while not core.superseded:
                await core.record(str(1 + len(self.published) % 97))
                self.wall = max(self.wall, core.wall)
                await asyncio.sleep(EVERY_S)

    async def heard(self, count: int) -> None:
        """Return when so many quotes were published."""
        await until(lambda: len(self.published) >= count, 60)

    async def check(self, straight: PostgresShard) -> set[Position]:
        """Check the chain after accepting all discrepancies; published quotes that are neither held nor orphans."""
        held = await straight.after(COIN, None, 10**6)
        assert first_gap(held, None) is None
        orphans = {one.quote.position: str(one.quote.price) async for one in discrepancies.orphans(self.settings, COIN)}
        for position, quote in self.published.items():
            assert orphans.get(position, str(quote.price)) == str(quote.price)
        assert (await discrepancies.accept(self.settings, COIN)).holes == 0
        found = await audit.main(self.settings, on_coin=lambda _: None, say=lambda _: None, second_look_after_s=0)
        assert (found.verdict, found.wrong) == ("right", 0)
        by_position = {quote.position: quote for quote in held}
        return {
            position
            for position, quote in self.published.items()
            if position not in orphans and by_position.get(position) != quote
        }


async def delivered(core: QuoteServiceCore, count: int) -> None:
    """Return once the shard has so many quotes of the writer's present epoch."""

    def is_done() -> bool:
        through = core.history.delivered
        return through is not None and through.epoch == core.history.epoch and through.seq >= count

    await until(is_done, 60)


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
async def test_takeovers_from_running_and_cut_off_writers_lose_nothing_unreported(
    placed: Placed, tmp_path: Path, seeded: Random, rounds: int
) -> None:
    dsns = placed(f"{COIN}:shard1")
    settings = config.load({}, shard1_dsn=dsns[0], shard2_dsn=dsns[1], coins=f"{COIN}:shard1", port_base=free_port())
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(dsns[0])) for _ in range(2)]
        shards = [
            await stack.enter_async_context(PostgresShard("shard1", proxy.dsn, deadline_s=5.0)) for proxy in proxies
        ]
        straight = await stack.enter_async_context(PostgresShard("shard1", dsns[0], deadline_s=10.0))
        world = TakeoverSystem(tmp_path, settings, proxies)
        group = await stack.enter_async_context(asyncio.TaskGroup())

        def start(number: int) -> tuple[QuoteServiceCore, asyncio.Task[Any]]:
            core = world.writer(number, shards[number])
            return core, group.create_task(world.write(core))

        now, task = start(0)
        for number in range(1, rounds + 1):
            enough = seeded.randrange(3, 20)
            await delivered(now, enough)
            is_cut_off = number % 3 != 1
            if is_cut_off:  # it goes on recording and publishing, without its shard
                proxies[1 - number % 2].refuse()
                heard = len(world.published)
                await world.heard(heard + enough)
            later, later_task = start(number % 2)
            await delivered(later, 3)
            if is_cut_off:
                await proxies[1 - number % 2].listen()
            await task  # superseded
            await world.check(straight)
            now, task = later, later_task
        for number in (rounds + 1, rounds):  # both logs come back and deliver to their end
            later, later_task = start(number % 2)
            await delivered(later, 3)
            await task  # superseded
            now, task = later, later_task
        now.writer.stand_down(COIN, WriterSupersededError("the test ends"))  # the last one stops recording
        await task
        assert await world.check(straight) == set()
        assert len(world.published) > 5 * rounds
