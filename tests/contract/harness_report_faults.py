"""Faults of the sources of a report, each as a scope at whose end it is undone."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from random import Random

from fastapi import Response
from tests.contract.conftest import psql
from tests.contract.harness_fault_proxy import FaultProxy
from tests.contract.harness_report import HOMES, OF_READERS, PARTS, PLACEMENT, ReportSystem

from cotacoes.errors import OverloadedError

LATE_S = 60.0
# asyncpg itself spins, for ever, on a message of length 0, and ends the process on some of a negative one: no test of
# ours can show that
OTHER_PROTOCOLS = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "Redis": b"-ERR unknown command\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "PostgreSQL": b"E\x00\x00\x00\x1fSFATAL\x00C0A000\x00Mno\x00\x00",
}

Scope = AbstractAsyncContextManager[None]
Fault = Callable[[ReportSystem, str, Random], Scope]


@contextlib.asynccontextmanager
async def killed(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    """The source ends in the middle of a report, after it was asked."""
    proxy = world.proxies[part]
    proxy.freeze()
    killing = asyncio.create_task(_kill(proxy))
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        await _mend(proxy)


async def _kill(proxy: FaultProxy) -> None:
    while not proxy.held:
        await asyncio.sleep(0.005)
    proxy.refuse()
    proxy.reset()
    proxy.thaw()


@contextlib.asynccontextmanager
async def frozen(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    world.proxies[part].freeze()
    try:
        yield
    finally:
        await _mend(world.proxies[part])


@contextlib.asynccontextmanager
async def slow(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    world.proxies[part].delay(LATE_S)
    try:
        yield
    finally:
        await _mend(world.proxies[part])


@contextlib.asynccontextmanager
async def refusing(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    world.proxies[part].refuse()
    world.proxies[part].reset()
    try:
        yield
    finally:
        await _mend(world.proxies[part])


@contextlib.asynccontextmanager
async def babbling(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    """Another process listens on its port."""
    own = "HTTP" if part == "quote_service" else "PostgreSQL"
    world.proxies[part].babble(OTHER_PROTOCOLS[dice.choice(sorted(OTHER_PROTOCOLS.keys() - {own}))])
    try:
        yield
    finally:
        await _mend(world.proxies[part])


@contextlib.asynccontextmanager
async def crowded(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    """The server accepts no further connection, and has ended ours."""
    dsn = world.admin_dsns[part]
    database = urllib.parse.urlsplit(dsn).path[1:]
    await asyncio.to_thread(psql, dsn, f"ALTER DATABASE {database} CONNECTION LIMIT 0")
    try:
        await asyncio.to_thread(psql, dsn, f"SELECT count(pg_terminate_backend(pid)) {OF_READERS}")
        yield
    finally:
        await asyncio.to_thread(psql, dsn, f"ALTER DATABASE {database} CONNECTION LIMIT -1")


@contextlib.asynccontextmanager
async def outdated(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
    """The shard was restored from a copy that was made before its coin moved to and fro."""
    change = "UPDATE fence SET placement = {} WHERE coin = '{}'"
    coin = next(coin for coin, home in HOMES.items() if home == part)
    await asyncio.to_thread(psql, world.admin_dsns[part], change.format(PLACEMENT - 2, coin))
    try:
        yield
    finally:
        await asyncio.to_thread(psql, world.admin_dsns[part], change.format(PLACEMENT, coin))


def answering(answer: Exception | bytes | Response) -> Fault:
    """quote_service answers every question with this."""

    @contextlib.asynccontextmanager
    async def fault(world: ReportSystem, part: str, dice: Random) -> AsyncIterator[None]:
        world.twin.faults["*"] = answer
        try:
            yield
        finally:
            world.twin.faults.clear()

    return fault


async def _mend(proxy: FaultProxy) -> None:
    proxy.mend()
    await proxy.listen()


OF_ALL: dict[str, Fault] = {
    "killed": killed,
    "frozen": frozen,
    "slow": slow,
    "refusing": refusing,
    "babbling": babbling,
}
OF_A_SHARD: Mapping[str, Fault] = OF_ALL | {"crowded": crowded, "outdated": outdated}
OF_QUOTE_SERVICE: Mapping[str, Fault] = OF_ALL | {
    "crowded": answering(OverloadedError("512 requests are under way")),
    "not JSON": answering(b"<html>It works!</html>"),
    "not what was asked": answering(b'{"coin":"dogecoin","price":"1.5","average":"1.5","coins":[]}'),
}
FAULTS: Mapping[str, Mapping[str, Fault]] = {
    part: OF_QUOTE_SERVICE if part == "quote_service" else OF_A_SHARD for part in PARTS
}
Chosen = Mapping[str, str]  # the fault of each source that has one


@contextlib.asynccontextmanager
async def faults(world: ReportSystem, chosen: Chosen, dice: Random) -> AsyncIterator[set[str]]:
    """All of these at the same time; yields what is then missing from a report."""
    async with contextlib.AsyncExitStack() as stack:
        for part, fault in chosen.items():
            await stack.enter_async_context(FAULTS[part][fault](world, part, dice))
        yield {_missing(part, fault) for part, fault in chosen.items()}


def _missing(part: str, fault: str) -> str:
    if fault != "outdated":
        return part
    return f"{next(coin for coin, home in HOMES.items() if home == part)}.last_logs"


def pairs(dice: Random) -> list[Chosen]:
    """Pairs of sources, until each source has had each of its faults."""
    most = max(len(faults) for faults in FAULTS.values())
    left = {part: _shuffled(faults, most + most % 2, dice) for part, faults in FAULTS.items()}
    found: list[Chosen] = []
    while all(left.values()):
        found += [{part: left[part].pop() for part in PARTS if part != spared} for spared in PARTS]
    return found


def _shuffled(faults: Mapping[str, Fault], count: int, dice: Random) -> list[str]:
    names = [*faults, *dice.choices([*faults], k=count - len(faults))]
    return dice.sample(names, count)
