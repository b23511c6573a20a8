"""The table of checks, and the examination that applies them to the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cotacoes.doctor import machine_checks, system_checks, venue_checks
from cotacoes.doctor.facts import Facts
from cotacoes.doctor.finding import Finding, Judgement
from cotacoes.doctor.gathering import gather

CHECKS: Mapping[str, Callable[[Facts], Iterator[Judgement]]] = {
    "release": machine_checks.release,
    "settings": machine_checks.settings,
    "servers": machine_checks.servers,
    "room": machine_checks.room,
    "folder": machine_checks.folder,
    "permissions": machine_checks.permissions,
    "leftovers": machine_checks.leftovers,
    "logs": machine_checks.logs,
    "ports": machine_checks.ports,
    "clock": machine_checks.clock,
    "system": system_checks.system,
    "parts": system_checks.services,
    "shards": system_checks.shards,
    "schema": system_checks.schema,
    "partitions": system_checks.partitions,
    "redis": system_checks.redis,
    "quotes": system_checks.quotes,
    "circuit": system_checks.circuit,
    "venues": venue_checks.venues,
    "venue_clock": venue_checks.venue_clock,
    "consensus": venue_checks.consensus,
    "local_log": system_checks.local_log,
    "source_gaps": system_checks.source_gaps,
}


async def examine(path: Path, environment: Mapping[str, str]) -> list[Finding]:
    """The findings about the data folder (an absolute path), this machine, and the system that runs there."""
    return judge(await gather(path, environment))


def judge(facts: Facts) -> list[Finding]:
    """The findings of all checks, in the order of the table."""
    return [Finding(name, *judgement) for name, check in CHECKS.items() for judgement in check(facts)]
