"""The connection that changes a shard's schema, its fences or the directory."""

from __future__ import annotations

import asyncio
from typing import Any

from cotacoes.adapters.postgres.schema import QUERIES, Migration, mistaken
from cotacoes.adapters.postgres.shard_session import ShardSession
from cotacoes.errors import SettingError

LOCK_POLL_S = 0.1
LOCK_ATTEMPTS = 50


class SchemaConnection(ShardSession):
    """One connection whose work is one transaction, under the lock of migrations. It needs no schema.

    Opening raises SettingError if the database is another shard or another change of its schema is under way.
    """

    queries = QUERIES
    connect_s = 10.0
    statement_s = 3600.0  # one statement may convert all that is stored

    async def _begin(self) -> None:
        await self._stack.enter_async_context(self._session.transaction())
        await self._lock()
        await self._refuse_another()
        await self.run("create_migration_table")

    async def _lock(self) -> None:
        # polled and not awaited in the server, since another shard of this same migration may be this very database
        for _ in range(LOCK_ATTEMPTS):
            ((is_ours,),) = await self._fetch("lock_migration")
            if is_ours:
                return
            await asyncio.sleep(LOCK_POLL_S)
        raise SettingError(
            f"{self.name}: another change of its schema is under way, or two shards name the same database"
        )

    async def _refuse_another(self) -> None:
        (row,) = await self._fetch("can_be_identified")
        for identity in await self._fetch("identity") if row["is_there"] else []:
            if identity["name"] != self.name:
                raise SettingError(mistaken(self.name, identity["name"]))

    async def run(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Run one named query of `schema.sql`."""
        return [dict(row) for row in await self._fetch(query, *arguments)]

    async def apply(self, migration: Migration) -> None:
        """Apply one migration, and note that it is applied."""
        await self._execute(migration.sql)
        await self.run("note_migration", migration.version, migration.name, migration.sha256)
