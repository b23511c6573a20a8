"""The schema of a shard: the migrations of this release, and what they require of a database."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.failures import MissingTableError
from cotacoes.adapters.postgres.pool import Fetch, Session
from cotacoes.errors import SettingError, ShardUnavailableError

QUERIES = named_queries.read(__package__, "schema.sql")


@dataclass(frozen=True)
class Migration:
    """One file of `schema/`: `version` is from its name, `sha256` is the digest of its text."""

    version: int
    name: str
    sha256: str
    sql: str


def known_migrations() -> list[Migration]:
    """The migrations of this release, ascending."""
    folder = resources.files(__package__).joinpath("schema")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    texts = [(entry.name, entry.read_text(encoding="utf-8")) for entry in files]
    return [Migration(int(name[:4]), name, hashlib.sha256(text.encode()).hexdigest(), text) for name, text in texts]


def pending_migrations(shard: str, applied: list[dict[str, Any]]) -> list[Migration]:
    """The migrations that a shard lacks; SettingError if others were applied to it."""
    by_version = {migration.version: migration for migration in known_migrations()}
    for row in applied:
        migration = by_version.pop(row["version"], None)
        if migration is None:
            raise SettingError(
                f"{shard} has schema {row['version']}, newer than this release: install a newer cotacoes"
            )
        if migration.sha256 != row["sha256"]:
            raise SettingError(
                f"{shard}: {row['name']} was applied with other content: install the release that it came from"
            )
    return list(by_version.values())


async def check_version(shard: str, fetch: Fetch) -> str | None:
    """The name of the database as a shard, None if it has none yet.

    ShardUnavailableError if it does not have this release's schema.
    """
    try:
        ((version, name),) = await fetch(QUERIES["schema_version"])
    except MissingTableError:
        version = name = None
    needed = known_migrations()[-1].version
    if version != needed:
        raise ShardUnavailableError(
            f"{shard} has schema version {version}, this release needs {needed}: run `cotacoes migrate`"
        )
    return None if name is None else str(name)


async def check_shard(shard: str, fetch: Fetch) -> None:
    """ShardUnavailableError if the database does not have this release's schema, or is another shard."""
    if (name := await check_version(shard, fetch)) not in (None, shard):
        raise ShardUnavailableError(mistaken(shard, str(name)))


def mistaken(shard: str, name: str) -> str:
    """The problem of a shard whose database has the name of another one."""
    return f"the DSN of {shard} leads to the database of {name}: give each shard its own; two may be swapped"


async def inspect(
    shard: str, dsn: str, queries: Mapping[str, Sequence[Any]], *, deadline_s: float
) -> dict[str, list[dict[str, Any]]]:
    """The rows of named queries, each with its arguments, on a shard of any schema; a missing table has no rows.

    Uses a read-only connection of its own. ShardUnavailableError, SettingError.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in queries}
    async with Session(shard, dsn, connect_s=deadline_s, deadline_s=deadline_s, is_read_only=True) as session:
        for name, arguments in queries.items():
            with contextlib.suppress(MissingTableError):
                found[name] = [dict(row) for row in await session.fetch(QUERIES[name], *arguments)]
    return found
