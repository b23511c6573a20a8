"""Commands over the ledger: which coins there are, on which shard each lives, and its moves; on a running system."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import typer

from cotacoes import config
from cotacoes.admin import directory
from cotacoes.cli import discrepancies, queries, shards
from cotacoes.cli.options import AsJson, Coin, Data
from cotacoes.cli.output import confirms, put, put_json, put_table, say
from cotacoes.client import Addresses, ServiceClient
from cotacoes.errors import ProblemError, SettingError
from cotacoes.model.listing import listed
from cotacoes.patterns.sharding.shard import Directory

SOURCE_COINS_NAMED_MAX = 10

app = typer.Typer()
coins_app = typer.Typer(help="Which coins there are, and where each lives.")
shards_app = typer.Typer(help="Which shards there are, and moving coins between them.")
directory_app = typer.Typer(help="The directory of coins and shards.")
groups = (("coins", coins_app), ("shards", shards_app), ("directory", directory_app), ("ledger", discrepancies.app))
for name, group in groups:
    app.add_typer(group, name=name)

Shard = Annotated[str | None, typer.Option("--shard", metavar="SHARD", help="on which; else on the emptiest")]


@coins_app.command("list")
def list_coins(data: Data = None, as_json: AsJson = False) -> None:
    """Every coin with its shard, and how long its quotes are kept.

    \b
    Example:
      cotacoes coins list
    """
    homes = asyncio.run(directory.read(queries.settings_of(data))).homes
    if as_json:
        put_json(
            {
                coin: {
                    "shard": home.shard,
                    "placement": home.placement,
                    "currency": home.currency,
                    "retention_days": home.retention_days,
                }
                for coin, home in homes.items()
            }
        )
        return
    rows = [
        [coin, home.shard, home.placement, home.currency or "-", home.retention_days or "for ever"]
        for coin, home in homes.items()
    ]
    put_table(("coin", "shard", "placement", "currency", "days kept"), rows)


@coins_app.command("add")
def add_coin(
    coin: Coin,
    shard: Shard = None,
    currency: Annotated[
        str | None, typer.Option(metavar="CURRENCY", help="that of all its prices; else that of the first one")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask; for scripts")] = False,
    data: Data = None,
) -> int:
    """Keep the quotes of one more coin.

    \b
    Examples:
      cotacoes coins add solana
      cotacoes coins add solana --shard shard2 --yes
      cotacoes coins add solana --currency USD

    A coin cannot be removed again, so it asks first, and says what the source quotes. The simulated market then quotes
    the coin too, in a new run; a replay quotes it if the recording has it.
    """
    settings, coin = queries.settings_of(data), coin.lower()
    if not yes and not confirms(
        asyncio.run(_question(settings, coin)), without="add --yes to add it without a question"
    ):
        say("nothing was added")
        return 1
    home = asyncio.run(directory.add_coin(settings, coin, shard, currency and currency.upper()))
    say(f"{coin}: lives on {home.shard}")
    try:
        asyncio.run(_let_quote(settings, coin))
    except ProblemError as error:  # the source is another one, or away: the coin is there all the same
        say(f"its prices come as soon as the source has them ({error.detail})")
    return 0


@coins_app.command()
def retain(
    coin: Coin, days: Annotated[str, typer.Argument(metavar="DAYS", help="how many, or all")], data: Data = None
) -> None:
    """Keep the quotes of so many days; candles stay.

    \b
    Examples:
      cotacoes coins retain bitcoin 90
      cotacoes coins retain bitcoin all
    """
    if days != "all" and not (days.isascii() and days.isdigit() and 0 < int(days) < 100_000):
        raise SettingError(f"{days[:20]!r} is no number of days: write 1 or more, or all")
    asyncio.run(directory.set_retention(queries.settings_of(data), coin.lower(), None if days == "all" else int(days)))
    say(f"{coin.lower()}: {'all quotes are' if days == 'all' else f'the quotes of {days} days are'} kept")


@coins_app.command("currency")
def set_currency(
    coin: Coin,
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="for example USD")],
    data: Data = None,
) -> None:
    """Set the currency of a coin's prices; prices in another one are refused.

    \b
    Example:
      cotacoes coins currency bitcoin USDT

    A coin gets its currency from its first price. Quotes that are stored keep theirs.
    """
    asyncio.run(directory.set_currency(queries.settings_of(data), coin.lower(), currency.upper()))
    say(f"{coin.lower()}: prices are recorded in {currency.upper()} from now on")


@shards_app.command("list")
def list_shards(data: Data = None, as_json: AsJson = False) -> None:
    """Every shard with its address and its coins.

    \b
    Example:
      cotacoes shards list
    """
    settings = queries.settings_of(data)
    known = asyncio.run(directory.read(settings))
    rows = [_shard_row(known, name, dsn) for name, dsn in directory.dsns(settings, known).items()]
    if as_json:
        put_json({"shards": rows})
        return
    put_table(("shard", "address", "coins"), [[row["name"], row["address"], len(row["coins"])] for row in rows])


def _shard_row(known: Directory, name: str, dsn: str) -> dict[str, Any]:
    coins = [coin for coin, home in known.homes.items() if home.shard == name]
    return {"name": name, "address": config.without_password(dsn), "coins": coins}


@shards_app.command("add")
def add_shard(
    name: Annotated[str, typer.Argument(metavar="NAME", help="for example shard3")],
    dsn: Annotated[
        str, typer.Argument(metavar="DSN", help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or - to read it")
    ],
    data: Data = None,
) -> None:
    """Make a PostgreSQL database one more shard.

    \b
    Examples:
      cotacoes shards add shard3 postgresql://cotacoes:secret@db3/cotacoes
      cotacoes shards add shard3 - < file-with-the-dsn

    With -, the password is in no process list and in no history of a shell.
    """
    dsn = sys.stdin.readline().strip() if dsn == "-" else dsn
    put(asyncio.run(directory.add_shard(queries.settings_of(data), name, dsn)))


shards_app.command()(shards.move)
shards_app.command()(shards.purge)


@directory_app.command()
def rebuild(
    shard: Annotated[
        list[str] | None,
        typer.Option("--shard", metavar="NAME=DSN", help="a shard that the directory may have forgotten"),
    ] = None,
    data: Data = None,
) -> None:
    """Write the directory anew from the shards' fences.

    \b
    Examples:
      cotacoes directory rebuild
      cotacoes directory rebuild --shard shard3=postgresql://cotacoes:secret@db3/cotacoes
    """
    further = {name: dsn for name, _, dsn in (item.partition("=") for item in shard or [])}
    lines = asyncio.run(directory.rebuild(queries.settings_of(data), further))
    for line in lines:
        put(line)
    say("the directory says what the fences say" if lines else "the directory said already what the fences say")


async def _question(settings: config.Settings, coin: str) -> str:
    """What a person has to know before a coin is added."""
    try:
        async with ServiceClient(Addresses.of(settings)) as client:
            source = await client.source_coins()
    except ProblemError as error:
        quoted = f"what the source quotes is not known ({error.detail})"
    else:
        quoted = f"the source quotes {listed(source.coins, SOURCE_COINS_NAMED_MAX)}"
        if coin not in source.coins:
            quoted += f", and would invent prices of {coin}" if source.open else f", not {coin}"
    return f"{coin} cannot be removed once it is added; {quoted}. Add {coin}?"


async def _let_quote(settings: config.Settings, coin: str) -> None:
    token = settings.admin_token.get_secret_value()
    async with ServiceClient(Addresses.of(settings), admin_token=token) as client:
        await client.add_coin(coin)
