"""Whatever happens to its sources, a report is there by its deadline, names what it lacks, and lacks nothing else."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest
from tests.contract.conftest import Databases
from tests.contract.harness_report import PARTS, ReportSystem, Shards, filled
from tests.contract.harness_report_faults import FAULTS, faults, pairs

ONES = [(part, fault) for part in PARTS for fault in FAULTS[part]]
PAIRS = len(pairs(Random(1)))
SLOW_S = 0.1  # of each piece of an answer; a connection to a shard takes some seven
WITHIN_S = 10.0  # a deadline that a busy machine keeps too


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the module, in which the world lives."""
    return "asyncio"


@pytest.fixture(scope="module")
def shards(admin_dsn: str, templates: Databases) -> Iterator[Shards]:
    with filled(admin_dsn, templates) as shards:
        yield shards


@pytest.fixture(scope="module")
async def shared(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReportSystem]:
    async with ReportSystem(shards, tmp_path_factory.mktemp("report")).running() as world:
        yield world


@pytest.fixture
async def world(shared: ReportSystem) -> ReportSystem:
    """The world as at its start: faults are undone, and circuits are closed."""
    await shared.whole()
    return shared


@pytest.mark.parametrize(("part", "fault"), ONES, ids=[f"{part}-{fault}" for part, fault in ONES])
async def test_a_fault_of_one_source_costs_its_own_parts_and_ends_with_the_fault(
    world: ReportSystem, part: str, fault: str, seeded: Random
) -> None:
    async with faults(world, {part: fault}, seeded) as missing:
        await world.exactly(missing)
    await world.whole()


@pytest.mark.parametrize("number", range(PAIRS))
async def test_faults_of_two_sources_cost_both_parts_and_end_with_the_faults(
    world: ReportSystem, number: int, seeded: Random
) -> None:
    """Each source has each of its faults in at least one of the pairs."""
    chosen = pairs(seeded)[number]
    async with faults(world, chosen, seeded) as missing:
        await world.exactly(missing)
    await world.whole()


async def test_with_all_sources_away_the_report_names_what_is_missing(world: ReportSystem, seeded: Random) -> None:
    chosen = {part: seeded.choice(["killed", "frozen", "slow", "refusing", "babbling"]) for part in PARTS}
    async with faults(world, chosen, seeded):
        await world.exactly(set(PARTS))
    await world.whole()


async def test_a_slow_source_that_is_in_time_is_in_the_report(shards: Shards, tmp_path: Path) -> None:
    async with ReportSystem(shards, tmp_path, deadline_s=WITHIN_S).running() as world:
        for slow in [*([part] for part in PARTS), PARTS]:
            for part in slow:
                world.proxies[part].delay(SLOW_S)
            assert await world.missing() == {}
            for proxy in world.proxies.values():
                proxy.mend()


def test_the_pairs_cover_every_fault_of_every_source_and_every_two_sources() -> None:
    for seed in range(20):
        found = pairs(Random(seed))
        assert {(part, fault) for chosen in found for part, fault in chosen.items()} == set(ONES)
        assert len({frozenset(chosen) for chosen in found}) == len(PARTS)
        assert len(found) == PAIRS
