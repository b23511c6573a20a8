"""The schema of a shard: the migrations that this release brings, their application, and a look from outside."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

from cotacoes.adapters import named_queries
from cotacoes.adapters.postgres.failures import MissingTableError
from cotacoes.adapters.postgres.pool import Fetch, Session
from cotacoes.errors import SettingError, ShardUnavailableError

LOCK_POLL_S = 0.1
LOCK_ATTEMPTS = 50
MIGRATION_STEP_S = 3600.0  # what is stored is carried over within one statement
QUERIES = named_queries.read(__package__, "schema.sql")


@dataclass(frozen=True)
class Migration:
    """One file of `schema/`: `version` from its name, `sha256` of its text."""

    version: int
    name: str
    sha256: str
    sql: str


def known_migrations() -> list[Migration]:
    """The migrations that this release brings, ascending."""
    folder = resources.files(__package__).joinpath("schema")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    texts = [(entry.name, entry.read_text(encoding="utf-8")) for entry in files]
    return [Migration(int(name[:4]), name, hashlib.sha256(text.encode()).hexdigest(), text) for name, text in texts]


def pending_migrations(shard: str, applied: list[dict[str, Any]]) -> list[Migration]:
    """What a shard lacks; SettingError where its past is not ours."""
    by_version = {migration.version: migration for migration in known_migrations()}
    for row in applied:
        migration = by_version.pop(row["version"], None)
        if migration is None:
            raise SettingError(
                f"{shard} has schema {row['version']}, newer than this release: install a newer cotacoes"
            )
        if migration.sha256 != row["sha256"]:
            raise SettingError(
                f"{shard}: {row['name']} was applied with another content: restore the release it came from"
            )
    return list(by_version.values())


async def check_version(shard: str, fetch: Fetch) -> str | None:
    """The name that the database bears as a shard, None if it has none yet.

    ShardUnavailableError if it has another schema than this release's, or none.
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
    """ShardUnavailableError if the database is not this shard: by its schema, or by the name that it bears."""
    if (name := await check_version(shard, fetch)) not in (None, shard):
        raise ShardUnavailableError(mistaken(shard, str(name)))


def mistaken(shard: str, name: str) -> str:
    """What is wrong if the database that is to be this shard bears another name."""
    return f"the DSN of {shard} leads to the database of {name}: give each shard its own; two may be swapped"


class SchemaConnection:
    """One connection of `cotacoes migrate`: whatever it does is one transaction; an async context manager.

    SettingError at its opening if the database is another shard.
    """

    def __init__(self, shard: str, dsn: str, *, connect_s: float) -> None:
        self._shard = shard
        self._session = Session(shard, dsn, connect_s=connect_s, deadline_s=MIGRATION_STEP_S)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._session)
            await stack.enter_async_context(self._session.transaction())
            await self._lock()
            await self._refuse_another()
            await self.run("create_migration_table")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def _lock(self) -> None:
        """Not by waiting in the server: another shard of the very same migration may be this very database."""
        for _ in range(LOCK_ATTEMPTS):
            ((is_ours,),) = await self._session.fetch(QUERIES["lock_migration"])
            if is_ours:
                return
            await asyncio.sleep(LOCK_POLL_S)
        raise SettingError(
            f"{self._shard}: another change of its schema is under way, or two shards name the same database"
        )

    async def _refuse_another(self) -> None:
        (row,) = await self.run("can_be_identified")
        for identity in await self.run("identity") if row["is_there"] else []:
            if identity["name"] != self._shard:
                raise SettingError(mistaken(self._shard, identity["name"]))

    async def run(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """One named query of `schema.sql`."""
        return [dict(row) for row in await self._session.fetch(QUERIES[query], *arguments)]

    async def apply(self, migration: Migration) -> None:
        """One migration, and the note of it."""
        await self._session.execute(migration.sql)
        await self.run("note_migration", migration.version, migration.name, migration.sha256)


async def inspect(
    shard: str, dsn: str, queries: Mapping[str, Sequence[Any]], *, deadline_s: float
) -> dict[str, list[dict[str, Any]]]:
    """What named queries, each with its arguments, find on a shard of whatever schema; what has no table has no rows.

    Over one connection of its own that can not write. ShardUnavailableError, SettingError.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in queries}
    async with Session(shard, dsn, connect_s=deadline_s, deadline_s=deadline_s, is_read_only=True) as session:
        for name, arguments in queries.items():
            with contextlib.suppress(MissingTableError):
                found[name] = [dict(row) for row in await session.fetch(QUERIES[name], *arguments)]
    return found
