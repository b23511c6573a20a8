"""`cotacoes migrate`: bring every shard to this release's schema, or none; then place new coins and series of venues.

Migrations are numbered files, applied forward only, each remembered with its digest. Both shards of the settings must
answer before the first is changed, each shard is one transaction, and running it again changes nothing. A further shard
that is away is left for the next run: no service uses it before it has this release's schema, and the others need not
wait for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Set
from typing import Any

from cotacoes.adapters.postgres.schema import inspect, known_migrations
from cotacoes.adapters.postgres.schema_connection import SchemaConnection
from cotacoes.admin.directory import ASK_DEADLINE_S, DIRECTORY_SHARD, bring_up, place_series, write_homes
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import SettingError, ShardUnavailableError
from cotacoes.model.venue_series import series_of


async def main(settings: Settings) -> list[str]:
    """Migrate all shards; returns a line for each, and one for each series of a venue that is left out.

    After SettingError or ShardUnavailableError nothing has changed.
    """
    lines = []
    dsns = {shard: settings.dsn(shard) for shard in SHARDS} | await _further(settings)
    async with contextlib.AsyncExitStack() as stack:
        shards: dict[str, SchemaConnection] = {}
        for shard, dsn in dsns.items():
            try:
                connection = SchemaConnection(shard, dsn)
                shards[shard] = await stack.enter_async_context(connection)
            except ShardUnavailableError as error:
                if shard in SHARDS:
                    raise
                lines.append(f"{error}: run `cotacoes migrate` again when it does")
        for shard, connection in shards.items():
            applied = await bring_up(shard, connection)
            lines.append(f"{shard}: schema {known_migrations()[-1].version}, {len(applied)} applied now")
        lines += await _place_coins(settings, shards, dsns.keys() - shards.keys())
    return lines


async def _further(settings: Settings) -> dict[str, str]:
    """The DSNs of the shards that are not settings; none if shard1 has no such table yet."""
    first = settings.dsn(DIRECTORY_SHARD)
    found = await inspect(DIRECTORY_SHARD, first, {"shards": ()}, deadline_s=ASK_DEADLINE_S)
    return {row["name"]: row["dsn"] for row in found["shards"]}


async def _place_coins(settings: Settings, shards: Mapping[str, SchemaConnection], away: Set[str]) -> list[str]:
    first, seed = shards[DIRECTORY_SHARD], settings.seed_placement
    fences = {shard: await connection.run("fences") for shard, connection in shards.items()}
    fenced = {row["coin"] for rows in fences.values() for row in rows}
    if not await first.run("directory"):  # new, or lost: then the fences know the homes
        if away:
            raise ShardUnavailableError(f"the directory is lost, and {', '.join(sorted(away))} did not answer")
        _refuse_lost(fences)
        await write_homes(first, fences)
    for coin, shard in seed.items():
        await first.run("add_coin", coin, shard)
    lines = await _place_series(settings, shards, fenced) if settings.records_venues else []
    for row in await first.run("directory"):
        coin, shard = row["coin"], row["shard"]
        if row["placement"] == 1 and seed.get(coin, shard) != shard:  # a coin that has moved lives where it went
            fix = f"write {coin}:{shard}" if shard in SHARDS else f"remove {coin} from it"
            raise SettingError(f"COTACOES_COINS places {coin} on {seed[coin]}, but it lives on {shard}: {fix}")
        if shard in away:
            continue
        if shard not in shards:
            raise SettingError(
                f"{coin} lives on {shard}, whose address is lost: add it with `cotacoes shards add {shard} DSN`"
            )
        if coin not in fenced:  # a directory older than the fences would open a second, empty home
            await shards[shard].run("seed_fence", row["coin_id"], coin, row["placement"])
    return lines


async def _place_series(settings: Settings, shards: Mapping[str, SchemaConnection], fenced: Set[str]) -> list[str]:
    """Place the series of each coin at each venue on the coin's shard; a line for each that is left out."""
    first = shards[DIRECTORY_SHARD]
    rows = await first.run("directory")
    if fenced - {row["coin"] for row in rows}:  # it would assign ids a second time
        return ["no series of a venue is added: the directory lacks coins: run `cotacoes directory rebuild`"]
    lines = []
    for row in rows:
        if row["kind"] == "coin" and row["shard"] in shards:
            wanted = series_of(row["coin"], settings.venue_names, settings.venue_symbol_overrides)
            lines += await place_series(first, wanted, row["shard"])
    return lines


def _refuse_lost(fences: Mapping[str, list[dict[str, Any]]]) -> None:
    """SettingError if shard1 is empty and another shard is not: further shards may have coins that are not known."""
    if not fences[DIRECTORY_SHARD] and any(fences.values()):
        raise SettingError(
            f"{DIRECTORY_SHARD} has lost the directory, and other shards have coins: run `cotacoes directory rebuild` "
            "with --shard NAME=DSN for each shard beyond shard1 and shard2"
        )
