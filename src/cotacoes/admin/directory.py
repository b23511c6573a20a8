"""The directory of coins and shards, as administrators read, change and restore it.

It is kept on shard1, but the fences have the last word. A change that was interrupted is completed by repeating it, and
the directory can be rebuilt from the fences at any time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any

from cotacoes.adapters.postgres.schema import known_migrations, pending_migrations
from cotacoes.adapters.postgres.schema_connection import SchemaConnection
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.config import SHARDS, Settings
from cotacoes.errors import SettingError
from cotacoes.model.quote import COIN_PATTERN, CURRENCY_PATTERN
from cotacoes.model.venue_series import VenueSeries, series_of, venue_of
from cotacoes.model.venue_symbols import Overrides
from cotacoes.patterns.sharding.ledger_facts import AT_HOME
from cotacoes.patterns.sharding.shard import Directory, Home

ASK_DEADLINE_S = 10.0
DIRECTORY_SHARD = SHARDS[0]
COINS_MAX = 10_000
SHARD_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,31}\Z", re.ASCII)


async def read(settings: Settings) -> Directory:
    """Read the directory from shard1; ShardUnavailableError, SettingError."""
    async with PostgresShard(DIRECTORY_SHARD, settings.dsn(DIRECTORY_SHARD), deadline_s=ASK_DEADLINE_S) as shard:
        return await shard.directory()


def dsns(settings: Settings, directory: Directory) -> dict[str, str]:
    """The DSN of every shard: the settings have shard1 and shard2, the directory has further ones."""
    return {shard: settings.dsn(shard) for shard in SHARDS} | dict(directory.shards)


async def add_coin(settings: Settings, coin: str, shard: str | None = None, currency: str | None = None) -> Home:
    """Place a coin on a shard, or on the one with the fewest coins if `shard` is None.

    `currency` is that of all its prices; if it is None, the first price decides. SettingError if the coin lives on
    another shard or has another currency already.
    """
    _require_currency(currency)
    if not COIN_PATTERN.match(coin):
        raise SettingError(f"{coin[:40]!r} is not a coin's name: write 1 to 32 of a-z 0-9 -")
    directory = await read(settings)
    known = dsns(settings, directory)
    if shard is not None and shard not in known:
        raise SettingError(f"there is no {shard}: name one of {', '.join(known)}, or add it with `cotacoes shards add`")
    if len(directory.homes) >= COINS_MAX:
        raise SettingError(f"the limit of {COINS_MAX:,} coins is reached")
    chosen = shard or emptiest(known, directory.homes.values())
    async with _changing(settings) as first:
        await first.run("add_coin", coin, chosen)
        if currency is not None:
            await first.run("learn_currency", coin, currency)
    home = (await read(settings)).homes[coin]
    if shard is not None and home.shard != shard:
        raise SettingError(f"{coin} lives on {home.shard}: move it with `cotacoes shards move {coin} --to {shard}`")
    if currency not in (None, home.currency):
        raise SettingError(
            f"{coin} is recorded in {home.currency}, not {currency}: "
            f"change that with `cotacoes coins currency {coin} {currency}`"
        )
    if home.shard not in known:
        raise SettingError(
            f"{coin} lives on {home.shard}, whose address is lost: add it with `cotacoes shards add {home.shard} DSN`"
        )
    await _open_fences(settings, known[home.shard], {coin: home})
    return home


async def add_venue_series(settings: Settings, coin: str, symbols: Overrides) -> list[str]:
    """Add the series of a coin at each venue of which the directory has series; a line for each that is left out.

    They live on the coin's shard. `symbols` are those that correct the table of venues. SettingError if the directory
    is older than that shard.
    """
    directory = await read(settings)
    names = [name for name, home in directory.homes.items() if home.kind == "venue"]
    venues = dict.fromkeys(venue for name in names if (venue := venue_of(name, directory.homes)))
    wanted = series_of(coin, venues, symbols)
    shard = directory.homes[coin].shard
    async with _changing(settings) as first:
        lines = await place_series(first, wanted, shard)
    homes = (await read(settings)).homes.items()
    placed = {name: home for name, home in homes if name in {one.name for one in wanted} and home.shard == shard}
    await _open_fences(settings, dsns(settings, directory)[shard], placed)
    return lines


async def place_series(first: SchemaConnection, wanted: Iterable[VenueSeries], shard: str) -> list[str]:
    """Write these series into the directory of `first` unless they are there; a line for each that is left out."""
    kinds = {row["coin"]: row["kind"] for row in await first.run("directory")}
    lines = []
    for series in wanted:
        if not series.has_valid_name:
            lines.append(f"{series.coin} at {series.venue} is not recorded: {series.name} is too long for a name")
        elif kinds.get(series.name, "venue") != "venue":
            lines.append(f"{series.coin} at {series.venue} has no series of its own: there is a coin {series.name}")
        elif series.name not in kinds and len(kinds) >= COINS_MAX:
            lines.append(
                f"{series.coin} at {series.venue} is not recorded: the limit of {COINS_MAX:,} coins is reached"
            )
        elif series.name not in kinds:
            await first.run("add_series", series.name, shard, series.currency)
            kinds[series.name] = "venue"
    return lines


async def _open_fences(settings: Settings, dsn: str, homes: Mapping[str, Home]) -> None:
    """Open the fences of coins on their shard, unless they are open; SettingError if the shard has others' in place."""
    new = {coin: home for coin, home in homes.items() if home.placement == 1}  # if one was moved, its fence moved too
    if not new:
        return
    async with SchemaConnection(next(iter(new.values())).shard, dsn) as there:
        for coin, home in new.items():
            await there.run("seed_fence", home.coin_id, coin, home.placement)
        taken = {row["coin_id"]: row["coin"] for row in await there.run("fences")}
    refused = {coin: home.coin_id for coin, home in new.items() if taken.get(home.coin_id) != coin}
    if refused:  # a directory older than the shards assigns ids a second time
        async with _changing(settings) as first:
            for coin, coin_id in refused.items():
                await first.run("forget_coin", coin, coin_id)
        raise SettingError("the directory lacks coins that the shards have: run `cotacoes directory rebuild` first")


def emptiest(shards: Iterable[str], homes: Iterable[Home]) -> str:
    """The shard with the fewest coins; the first of several."""
    lived_on = [home.shard for home in homes]
    return min(shards, key=lived_on.count)


async def set_retention(settings: Settings, coin: str, days: int | None) -> None:
    """Retain the coin's quotes for `days`, or for ever if it is None; SettingError if there is no such coin."""
    async with _changing(settings) as first:
        if not await first.run("set_retention", coin, days):
            raise SettingError(f"there is no coin {coin}: `cotacoes coins list` shows the coins")


async def set_currency(settings: Settings, coin: str, currency: str) -> None:
    """Set the currency of the coin's further prices; SettingError if there is no such coin or currency."""
    _require_currency(currency)
    async with _changing(settings) as first:
        if not await first.run("set_currency", coin, currency):
            raise SettingError(f"there is no coin {coin}: `cotacoes coins list` shows the coins")


def _require_currency(currency: str | None) -> None:
    if currency is not None and not CURRENCY_PATTERN.match(currency):
        raise SettingError(f"{currency[:40]!r} is not a currency: write 2 to 12 of A-Z 0-9, as in USD")


async def add_shard(settings: Settings, name: str, dsn: str) -> str:
    """Bring a database to this release's schema and make it a shard; returns a line of text.

    SettingError if the name is a setting's, or the database is another shard already.
    """
    if name in SHARDS:
        raise SettingError(f"{name} is a setting: set COTACOES_{name.upper()}_DSN")
    _require_shard(name, dsn)
    async with SchemaConnection(name, dsn) as there:
        applied = len(await bring_up(name, there))
    async with _changing(settings) as first:
        await first.run("add_shard", name, dsn)
    return f"{name}: schema {known_migrations()[-1].version}, {applied} applied now"


def _require_shard(name: str, dsn: str) -> None:
    if not SHARD_PATTERN.match(name):
        raise SettingError(f"{name[:40]!r} is not a shard's name: write a-z, then up to 31 of a-z 0-9 _")
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise SettingError(f"the DSN of {name} is not usable: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE")


async def bring_up(name: str, connection: SchemaConnection) -> list[int]:
    """Apply the migrations that a shard lacks, and name it; returns their versions. SettingError."""
    due = pending_migrations(name, await connection.run("migrations"))
    for migration in due:
        await connection.apply(migration)
    await connection.run("identify", name)
    return [migration.version for migration in due]


async def rebuild(settings: Settings, further: Mapping[str, str]) -> list[str]:
    """Rebuild the directory from the fences of all shards; one line for each change and each coin without a home.

    `further` are DSNs of shards that the directory may have forgotten. ShardUnavailableError if a shard is away, since
    it may be some coin's home; then nothing is changed.
    """
    for shard, dsn in further.items():
        _require_shard(shard, dsn)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(_changing(settings))
        await bring_up(DIRECTORY_SHARD, first)  # its disk may be a new one
        listed = {row["name"]: row["dsn"] for row in await first.run("shards")}
        elsewhere = {**further, **listed, **{shard: settings.dsn(shard) for shard in SHARDS[1:]}}
        fences = {DIRECTORY_SHARD: await first.run("fences")}
        for shard, dsn in elsewhere.items():
            async with SchemaConnection(shard, dsn) as connection:
                await connection.run("identify", shard)
                fences[shard] = await connection.run("fences")
        for shard in further.keys() - listed.keys():
            await first.run("add_shard", shard, further[shard])
        return await write_homes(first, fences)


async def write_homes(first: SchemaConnection, fences: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Write the homes that these fences show into the directory of `first`; one line for each change."""
    homes, lines = homes_of(fences)
    for coin, home in homes.items():
        if await first.run("set_home", coin, home.coin_id, home.shard, home.placement, home.kind):
            lines.append(f"{coin}: lives on {home.shard}, placement {home.placement}")
    return lines


def homes_of(fences: Mapping[str, list[dict[str, Any]]]) -> tuple[dict[str, Home], list[str]]:
    """Each coin's home by the fences of every shard, and a line of text for each coin without one.

    A fence does not say whether it is of a coin or of the series of a venue: the name does. If several fences are open,
    which no move leaves behind, the one with the highest placement is the home.
    """
    homes: dict[str, Home] = {}
    seen: set[str] = set()
    for shard, rows in fences.items():
        for row in rows:
            seen.add(row["coin"])
            before = homes.get(row["coin"])
            if row["state"] in AT_HOME and (before is None or before.placement < row["placement"]):
                homes[row["coin"]] = Home(row["coin_id"], shard, row["placement"])
    homes = {name: replace(home, kind="venue") if venue_of(name, seen) else home for name, home in homes.items()}
    lines = [
        f"{coin}: is between two shards; run `cotacoes shards move` again to finish the move"
        for coin in sorted(seen - homes.keys())
    ]
    return homes, lines


@contextlib.asynccontextmanager
async def _changing(settings: Settings) -> AsyncIterator[SchemaConnection]:
    """A connection to shard1 that holds the lock of the directory until it is closed."""
    dsn = settings.dsn(DIRECTORY_SHARD)
    async with SchemaConnection(DIRECTORY_SHARD, dsn) as first:
        await first.run("lock_directory")
        yield first
