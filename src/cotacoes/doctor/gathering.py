"""Gathers the facts concurrently. A missed deadline is a fact too, so the whole ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil

from cotacoes import config
from cotacoes.config import HTTP_SERVICES, PORT_OFFSETS, PREFIX, Settings
from cotacoes.doctor import data, questions
from cotacoes.doctor.facts import Facts, Local, Prices, RunningService, ShardFacts, StoredLog
from cotacoes.doctor.machine import Listeners, inspect_machine
from cotacoes.doctor.system_checks import RESTARTS_CALM
from cotacoes.errors import BadRequestError, ServiceUnavailableError, SettingError
from cotacoes.model.venues import VenuesJson
from cotacoes.up import control
from cotacoes.up.data_folder import read_running, read_secret
from cotacoes.up.supervision import processes
from cotacoes.up.supervision.service import ServiceState
from cotacoes.web.service_client import Addresses

UP_DEADLINE_S = 0.8  # of each of the two requests to `up`
DEADLINE_S = 3.0  # of everything else, concurrently; about 5 s in all with the start of Python
LATE = f"no answer within {DEADLINE_S:g} s"

T = TypeVar("T")


@dataclass(frozen=True)
class _Up:
    """The `up` that runs on the folder, if any: its services, and how its system is reached."""

    pid: int | None = None
    problem: str | None = None
    rows: Sequence[dict[str, Any]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Targets:
    """The addresses of what should answer now."""

    shards: Mapping[str, str] = field(default_factory=dict)
    redis: str | None = None
    services: Addresses | None = None


async def gather(path: Path, environment: Mapping[str, str]) -> Facts:
    """All facts about the folder, this machine, and the system that runs there, else the one the environment names."""
    up = await aside(lambda: _ask_up(path))  # it keeps its own deadlines
    settings, refusal = _settings({name: text for name, text in environment.items() if name.startswith(PREFIX)}, up)
    targets = _targets(path, settings, up)
    services = {row["name"]: _part(path, row) for row in up.rows}
    local, stored_log, redis_problem, silent, (prices, venues), shards = await asyncio.gather(
        _local(path, settings, up),
        _stored_log(path, up),
        _redis(targets),
        _silent(targets, services),
        asyncio.gather(_prices(targets), _venues(targets)),
        asyncio.gather(*(_shard(name, dsn) for name, dsn in targets.shards.items())),
    )
    return Facts(
        path=path,
        now=datetime.now(UTC),  # after the facts that it is compared with
        settings_problem=refusal,
        local=local if isinstance(local, Local) else None,
        local_problem=local if isinstance(local, str) else None,
        is_running=up.pid is not None,
        up_problem=up.problem,
        up_suspended_pid=up.pid if up.problem is not None and up.pid is not None and _is_suspended(up.pid) else None,
        services=services,
        silent=silent,
        shards=dict(zip(targets.shards, shards, strict=True)),
        has_redis=targets.redis is not None,
        redis_problem=redis_problem,
        prices=prices,
        stored_log=stored_log,
        source_service=settings.source_service,
        venues=venues if isinstance(venues, VenuesJson) else None,
        venues_problem=venues if isinstance(venues, str) else None,
    )


def _ask_up(path: Path) -> _Up:
    """Ask for status and environment. Blocks for at most twice UP_DEADLINE_S."""
    running = read_running(path)
    if running is None or not running.is_alive:
        return _Up()
    try:
        rows = control.ask(path, "status", deadline_s=UP_DEADLINE_S)["parts"]
        environment = control.ask(path, "env", deadline_s=UP_DEADLINE_S)["env"]
    except (ServiceUnavailableError, BadRequestError) as error:
        return _Up(running.pid, error.detail)
    return _Up(running.pid, None, rows, environment)


def _is_suspended(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False


def _settings(environment: Mapping[str, str], up: _Up) -> tuple[Settings, str | None]:
    """The settings of the system, and why those of the environment are refused, if they are."""
    try:
        return config.load({**environment, **up.environment}), None
    except SettingError as error:
        return config.load(up.environment), str(error)


def _targets(path: Path, settings: Settings, up: _Up) -> _Targets:
    """Everything if `up` names the addresses; else what the environment names and this folder does not own."""
    if up.pid is not None and not up.environment:
        return _Targets()
    given = {shard: dsn for shard, dsn in (("shard1", settings.shard1_dsn), ("shard2", settings.shard2_dsn)) if dsn}
    if up.pid is None and any((password := read_secret(path, shard)) and password in given[shard] for shard in given):
        return _Targets()  # what `cotacoes env` exported of this very folder, where nothing runs now
    return _Targets(given, settings.redis_url or None, Addresses.of(settings) if settings.quote_url else None)


def _part(path: Path, row: Mapping[str, Any]) -> RunningService:
    state, restarts = ServiceState(row["state"]), int(row["restarts"])
    is_ill = state in {ServiceState.FAILED, ServiceState.RESTARTING} or restarts > RESTARTS_CALM
    words = data.last_words(path, row["name"]) if is_ill else ""
    return RunningService(state, restarts, words, 0.0 if row["pid"] is None else _alive_s(row["pid"]))


def _alive_s(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        return max(0.0, time.time() - psutil.Process(pid).create_time())
    return 0.0


async def _local(path: Path, settings: Settings, up: _Up) -> Local | str:
    """The machine and the folder, or why they could not be examined."""
    try:
        return await by_deadline(aside(lambda: _examine_machine(path, settings, up)), f"the disk gave {LATE}")
    except OSError as error:
        return f"cannot read {path} ({error.strerror})"


def _examine_machine(path: Path, settings: Settings, up: _Up) -> Local:
    found = read_running(path)
    ours = {up.pid} if up.pid is not None else {pid for pid, _ in found.children.values()} if found else set()
    families = {member.pid for pid in ours for member in processes.family(pid)}
    listeners = Listeners()
    ports = listeners.check(_ports(settings, up), families)
    return Local(
        inspect_machine(path),
        data.inspect_folder(path),
        ports,
        listeners.free_base(settings.port_base) if any(port.taken_by for port in ports) else None,
    )


def _ports(settings: Settings, up: _Up) -> dict[str, int]:
    """The ports that an `up` uses or would use; none if the environment names services, which run without one."""
    if up.pid is not None:
        own = (row for row in up.rows if row["address"] and row["state"] != ServiceState.EXTERNAL)
        return {row["name"]: int(urlsplit(row["address"]).port or 0) for row in own}
    if any(settings.url(name) != f"http://127.0.0.1:{settings.port(name)}" for name in settings.http_services):
        return {}
    elsewhere = {"redis": settings.redis_url, "shard1": settings.shard1_dsn, "shard2": settings.shard2_dsn}
    names = [name for name in PORT_OFFSETS if name not in HTTP_SERVICES or name in settings.http_services]
    return {name: settings.port(name) for name in names if not elsewhere.get(name)}


async def _stored_log(path: Path, up: _Up) -> StoredLog | None:
    """The local log, unless a service can be asked about it."""
    is_open = any(row["name"] == "quote_service" and row["pid"] is not None for row in up.rows)
    if is_open or (up.pid is not None and not up.rows):
        return None
    try:
        return await by_deadline(
            aside(lambda: asyncio.run(data.read_log(path))), StoredLog(problem=f"the disk gave {LATE}")
        )
    except OSError as error:
        return StoredLog(problem=str(error.strerror))


async def _shard(name: str, dsn: str) -> ShardFacts:
    return await by_deadline(
        questions.ask_shard(name, dsn, datetime.now(UTC)), ShardFacts(problem=f"{name} gave {LATE}")
    )


async def _redis(targets: _Targets) -> str | None:
    return (
        None if targets.redis is None else await by_deadline(questions.ask_redis(targets.redis), f"Redis gave {LATE}")
    )


async def _silent(targets: _Targets, services: Mapping[str, RunningService]) -> dict[str, str]:
    running = [name for name in HTTP_SERVICES if name in services and services[name].state is ServiceState.RUNNING]
    if targets.services is None or not running:
        return {}
    return await by_deadline(questions.ask_alive(targets.services, running), dict.fromkeys(running, LATE))


async def _prices(targets: _Targets) -> Prices | None:
    return (
        None
        if targets.services is None
        else await by_deadline(questions.ask_prices(targets.services), Prices(problem=f"quote_service gave {LATE}"))
    )


async def _venues(targets: _Targets) -> VenuesJson | str | None:
    if targets.services is None or not targets.services.feed_service:
        return None
    return await by_deadline(questions.ask_venues(targets.services), f"feed_service gave {LATE}")


async def by_deadline(answer: Awaitable[T], late: T, deadline_s: float = DEADLINE_S) -> T:
    """The answer, or `late` if it does not come by the deadline."""
    try:
        async with asyncio.timeout(deadline_s):
            return await answer
    except TimeoutError:
        return late


async def aside(read: Callable[[], T]) -> T:
    """Call `read` in a daemon thread, which does not hold up the end of the process: a disk may hang for ever."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not found.done():  # else its deadline has passed
            set_outcome(outcome)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], object] = (found.set_result, read())
        except Exception as error:
            outcome = (found.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await found
