"""The facts that the doctor gathers, without a judgement. None or an empty mapping: there was nothing to examine.

A `problem` says why something is not known; if it is None, the fields beside it are.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from cotacoes.model.payloads import CurrentJson, Progress
from cotacoes.model.venues import VenuesJson
from cotacoes.up.supervision.service import ServiceState


@dataclass(frozen=True)
class Machine:
    """This computer. `no_servers` and `no_namespaces` say why our own PostgreSQL and Valkey cannot run here."""

    python: tuple[int, int, int]
    platform: str
    no_servers: str | None
    no_namespaces: str | None
    disk_free_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True)
class Folder:
    """The data folder. `open_modes` has the permission bits of what others than the owner can access, by name.

    `leftovers` are processes that outlived a killed `up`, `drafts` half-made databases, `log_format` the number in the
    local log's file.
    """

    exists: bool
    problem: str | None = None
    version: str | None = None
    open_modes: Mapping[str, int] = field(default_factory=dict)
    leftovers: Sequence[str] = ()
    drafts: Sequence[str] = ()
    logs_bytes: int = 0
    log_format: int | None = None


@dataclass(frozen=True)
class Port:
    """A port of the topology; `taken_by` is the other process that has it, None if it is free or our own."""

    service: str
    number: int
    taken_by: str | None


@dataclass(frozen=True)
class Local:
    """The facts about this machine and folder. If a port is taken, `free_port_base` is one to move to."""

    machine: Machine
    folder: Folder
    ports: Sequence[Port] = ()
    free_port_base: int | None = None


@dataclass(frozen=True)
class RunningService:
    """A service as `cotacoes status` shows it, the last line of its log, and the age of its process."""

    state: ServiceState
    restarts: int
    last_words: str = ""
    alive_s: float = 0.0


@dataclass(frozen=True)
class StoredLog:
    """The content of the local log, read while no quote_service has it open."""

    problem: str | None = None
    newest_at: datetime | None = None
    pending: Mapping[str, int] = field(default_factory=dict)
    oldest_pending_at: datetime | None = None
    source_gaps: int = 0


@dataclass(frozen=True)
class ShardFacts:
    """The answer of one shard. `migrations` are the rows of its `schema_migration`."""

    problem: str | None = None
    migrations: Sequence[dict[str, Any]] = ()
    missing_days: Sequence[date] = ()
    newest_at: datetime | None = None


@dataclass(frozen=True)
class Prices:
    """The answers of quote_service. `currents` has by coin the answer, or why there is none.

    `readiness` has the reason of each check of /readyz that is not ok; `unheard` and `unpublished` are the coins whose
    counters rose while the doctor watched.
    """

    problem: str | None = None
    currents: Mapping[str, CurrentJson | str] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    oldest_pending_s: Mapping[str, float] = field(default_factory=dict)
    readiness: Mapping[str, str] = field(default_factory=dict)
    unheard: Sequence[str] = ()
    unpublished: Sequence[str] = ()
    source_gaps: int = 0


@dataclass(frozen=True)
class Facts:
    """All facts. If `local` is None, `local_problem` says why.

    `up_problem`: an `up` runs on the folder but does not answer; then, and if there is none, `services` is empty.
    `silent` has the services that run but do not answer /livez in time. `source_service` is the one that prices come
    from. `venues` is the answer of feed_service; None without a `venues_problem`: exchanges are not the source.
    """

    path: Path
    now: datetime
    settings_problem: str | None = None
    local: Local | None = None
    local_problem: str | None = None
    is_running: bool = False
    up_problem: str | None = None
    up_suspended_pid: int | None = None
    services: Mapping[str, RunningService] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    shards: Mapping[str, ShardFacts] = field(default_factory=dict)
    redis_problem: str | None = None
    has_redis: bool = False
    prices: Prices | None = None
    stored_log: StoredLog | None = None
    source_service: str = "external_service"
    venues: VenuesJson | None = None
    venues_problem: str | None = None

    def command(self, *words: str) -> str:
        """A command for the system of this folder, as a person types it."""
        return shlex.join(["cotacoes", *words, "--data", str(self.path)])

    def start_of(self, service: str) -> str | None:
        """The command that starts a stopped, paused or failed service; None if it is in another state."""
        one = self.services.get(service)
        is_away = one is not None and one.state in {ServiceState.STOPPED, ServiceState.PAUSED, ServiceState.FAILED}
        return self.command("start", service) if is_away else None

    def start_of_source(self) -> str | None:
        """The command that starts what the prices come from: feed_service, or external_service, which may feed it."""
        return self.start_of(self.source_service) or self.start_of("external_service")
