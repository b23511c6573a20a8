"""What the doctor has learnt, and no opinion on it. None, or an empty mapping: there is nothing of the kind to ask.

A `problem` says in words why something is not known; where it is None, the fields beside it are.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from cotacoes.model.payloads import Progress
from cotacoes.up.supervision.service import ServiceState


@dataclass(frozen=True)
class Machine:
    """This computer. `no_servers`, `no_namespaces`: why our own PostgreSQL and Valkey can not run here."""

    python: tuple[int, int, int]
    platform: str
    no_servers: str | None
    no_namespaces: str | None
    disk_free_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True)
class Folder:
    """The data folder. `open_modes`: the permission bits, by name, of what others than its owner can get at.

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
    """A port of the topology; `taken_by` is who else has it, None where it is free or used by the service itself."""

    service: str
    number: int
    taken_by: str | None


@dataclass(frozen=True)
class Local:
    """What can be seen without asking anybody. `free_port_base` is one to move to where a port is taken."""

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
    """The local log, read while no quote_service has it open."""

    problem: str | None = None
    newest_at: datetime | None = None
    pending: Mapping[str, int] = field(default_factory=dict)
    oldest_pending_at: datetime | None = None
    source_gaps: int = 0


@dataclass(frozen=True)
class ShardFacts:
    """One shard, asked directly. `migrations` are the rows of its `schema_migration`."""

    problem: str | None = None
    migrations: Sequence[dict[str, Any]] = ()
    missing_days: Sequence[date] = ()
    newest_at: datetime | None = None


@dataclass(frozen=True)
class Prices:
    """What quote_service answers. `currents` by coin: the answer, or why there is none.

    `readiness` is each line of its /readyz that is not ok, `unheard` and `unpublished` the coins whose counters of that
    name rose while the doctor watched.
    """

    problem: str | None = None
    currents: Mapping[str, dict[str, Any] | str] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    oldest_pending_at: Mapping[str, datetime] = field(default_factory=dict)
    readiness: Mapping[str, str] = field(default_factory=dict)
    unheard: Sequence[str] = ()
    unpublished: Sequence[str] = ()
    source_gaps: int = 0


@dataclass(frozen=True)
class Facts:
    """Everything. `local` is None for the reason `local_problem`.

    `up_problem`: an `up` lives on the folder and does not answer; `services` are empty then, and where there is none.
    `silent` are the services that run and do not answer /livez in time.
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

    def command(self, *words: str) -> str:
        """A command for the system of this folder, as it is typed."""
        return shlex.join(["cotacoes", *words, "--data", str(self.path)])

    def start_of(self, service: str) -> str | None:
        """The command that brings a service back which somebody stopped, or which gave up; None where none would."""
        one = self.services.get(service)
        is_away = one is not None and one.state in {ServiceState.STOPPED, ServiceState.FROZEN, ServiceState.FAILED}
        return self.command("start", service) if is_away else None
