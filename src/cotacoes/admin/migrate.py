"""`cotacoes migrate`: bring every shard to this release's schema, or none; then place the coins that are new.

Numbered files, forward only, each remembered with its digest. Every shard must answer before the first is touched, each
is one transaction, and running it again changes nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

from cotacoes.adapters.schema_postgres import Migration, SchemaConnection, known_migrations
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import SettingError

CONNECT_DEADLINE_S = 10.0
DIRECTORY_SHARD = SHARDS[0]


async def main(settings: Settings) -> list[str]:
    """Migrate; returns one line per shard. SettingError or ShardUnavailableError, and nothing is changed anywhere."""
    lines = []
    async with contextlib.AsyncExitStack() as stack:
        shards = {
            shard: await stack.enter_async_context(
                SchemaConnection(shard, settings.dsn(shard), connect_s=CONNECT_DEADLINE_S)
            )
            for shard in SHARDS
        }
        for shard, connection in shards.items():
            applied = await connection.run("migrations")
            due = pending_migrations(shard, applied, known_migrations())
            for migration in due:
                await connection.apply(migration)
            newest = max(migration.version for migration in known_migrations())
            lines.append(f"{shard}: schema {newest}, {len(due)} applied now")
        await _place_coins(settings.seed_placement, shards)
    return lines


def pending_migrations(shard: str, applied: list[dict[str, Any]], known: list[Migration]) -> list[Migration]:
    """What a shard lacks; SettingError where its past is not ours."""
    by_version = {migration.version: migration for migration in known}
    for row in applied:
        migration = by_version.get(row["version"])
        if migration is None:
            raise SettingError(
                f"{shard} has schema {row['version']}, newer than this release: install a newer cotacoes"
            )
        if migration.sha256 != row["sha256"]:
            raise SettingError(
                f"{shard}: {row['name']} was applied with another content: restore the release it came from"
            )
    done = {row["version"] for row in applied}
    return [migration for migration in known if migration.version not in done]


async def _place_coins(placement: dict[str, str], shards: dict[str, SchemaConnection]) -> None:
    directory = shards[DIRECTORY_SHARD]
    for coin, shard in placement.items():
        await directory.run("seed_directory", coin, shard)
    for row in await directory.run("directory"):
        if placement.get(row["coin"], row["shard"]) != row["shard"]:
            raise SettingError(
                f"COTACOES_COINS places {row['coin']} on {placement[row['coin']]}, but it lives on {row['shard']}: "
                f"write {row['coin']}:{row['shard']}"
            )
        await shards[row["shard"]].run("seed_fence", row["coin_id"], row["coin"], row["placement"])
