"""`cotacoes coins`: list, add and configure the coins of a running system."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Coin, Data
from cotacoes.cli.output import confirms, put_json, put_table, say
from cotacoes.errors import ProblemError, SettingError
from cotacoes.model.listing import listed

if TYPE_CHECKING:
    from cotacoes.web.service_client import ServiceClient

SOURCE_COINS_NAMED_MAX = 10
JSON_FIELDS = ("shard", "placement", "currency", "retention_days", "kind")

app = typer.Typer()
coins_app = typer.Typer(help="List, add and configure coins.")
app.add_typer(coins_app, name="coins")

Shard = Annotated[
    str | None, typer.Option("--shard", metavar="SHARD", help="its shard; else the one with the fewest coins")
]


@coins_app.command("list")
def list_coins(
    venues: Annotated[bool, typer.Option("--venues", help="list the series of venues as well")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List every coin with its shard, its currency and how long its quotes are retained.

    \b
    Examples:
      cotacoes coins list
      cotacoes coins list --venues
    """
    from cotacoes.admin import directory

    known = asyncio.run(directory.read(queries.settings_of(data))).homes
    homes = {coin: home for coin, home in known.items() if venues or home.kind == "coin"}
    if as_json:
        put_json({coin: {name: getattr(home, name) for name in JSON_FIELDS} for coin, home in homes.items()})
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
        str | None,
        typer.Option(metavar="CURRENCY", help="the currency of all its prices; else the first price decides"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="add the coin without a question, for scripts")] = False,
    data: Data = None,
) -> int:
    """Add a coin.

    \b
    Examples:
      cotacoes coins add solana
      cotacoes coins add solana --shard shard2 --yes
      cotacoes coins add solana --currency USD

    A coin cannot be removed again, so this command asks first and shows which coins the source quotes, or which
    exchanges list the coin. The simulated market then quotes the coin too, in a new run; a replay quotes it if the
    recording has it; exchanges are asked for it at once. If the prices of single venues are recorded, those of the new
    coin are recorded too.
    """
    from cotacoes.admin import directory

    settings, coin = queries.settings_of(data), coin.lower()
    if not yes and not confirms(
        asyncio.run(question(queries.client_of(settings), coin)), without="add --yes to add it without a question"
    ):
        say("nothing was added")
        return 1
    home = asyncio.run(directory.add_coin(settings, coin, shard, currency and currency.upper()))
    say(f"{coin}: lives on {home.shard}")
    symbols = settings.venue_symbol_overrides | asyncio.run(_symbols(queries.client_of(settings), coin))
    for line in asyncio.run(directory.add_venue_series(settings, coin, symbols)):
        say(line)
    try:
        asyncio.run(_let_quote(queries.client_of(settings), coin))
    except ProblemError as error:  # the source is another program, or away: the coin is added all the same
        say(f"its prices will come as soon as the source has them ({error.detail})")
    return 0


@coins_app.command()
def retain(
    coin: Coin, days: Annotated[str, typer.Argument(metavar="DAYS", help="a number of days, or all")], data: Data = None
) -> None:
    """Set for how many days the quotes of a coin are retained; candles stay.

    \b
    Examples:
      cotacoes coins retain bitcoin 90
      cotacoes coins retain bitcoin all
    """
    from cotacoes.admin import directory

    if days != "all" and not (days.isascii() and days.isdigit() and 0 < int(days) < 100_000):
        raise SettingError(f"{days[:20]!r} is not a number of days: write 1 or more, or all")
    asyncio.run(directory.set_retention(queries.settings_of(data), coin.lower(), None if days == "all" else int(days)))
    say(f"{coin.lower()}: {'all quotes are retained' if days == 'all' else f'quotes are retained for {days} days'}")


@coins_app.command("currency")
def set_currency(
    coin: Coin,
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="for example USD")],
    data: Data = None,
) -> None:
    """Set the currency of a coin's prices; prices in another currency are refused.

    \b
    Example:
      cotacoes coins currency bitcoin USDT

    Otherwise a coin gets the currency of its first price. Stored quotes keep theirs.
    """
    from cotacoes.admin import directory

    asyncio.run(directory.set_currency(queries.settings_of(data), coin.lower(), currency.upper()))
    say(f"{coin.lower()}: prices are recorded in {currency.upper()} from now on")


async def question(services: ServiceClient, coin: str) -> str:
    """The question before a coin is added, with the source that its prices would have."""
    async with services as client:
        try:
            source = await (_listed_at(client, coin) if client.follows_venues else _quoted(client, coin))
        except ProblemError as error:
            source = f"whether the source has prices of it is not known ({error.detail})"
    return f"{coin} cannot be removed once it is added; {source}. Add {coin}?"


async def _quoted(client: ServiceClient, coin: str) -> str:
    source = await client.source_coins()
    quoted = f"the source quotes {listed(source.coins, SOURCE_COINS_NAMED_MAX)}"
    if coin in source.coins:
        return quoted
    return quoted + (f", and would invent prices of {coin}" if source.open else f", not {coin}")


async def _listed_at(client: ServiceClient, coin: str) -> str:
    symbols = (await client.listing(coin)).symbols
    if symbols:
        return f"it is listed at {_at(symbols)}"
    return (
        "no followed exchange is known to list it, so it gets no price until COTACOES_VENUE_SYMBOLS names its symbols, "
        f"as in kraken:{coin}:SYMBOL/USD"
    )


def _at(symbols: Mapping[str, str]) -> str:
    return ", ".join(f"{venue} ({symbol})" for venue, symbol in symbols.items())


async def _symbols(services: ServiceClient, coin: str) -> dict[tuple[str, str], str]:
    """The coin's symbols at the followed exchanges; none if no exchanges are followed, or it is not known."""
    try:
        async with services as client:
            symbols = (await client.listing(coin)).symbols if client.follows_venues else {}
    except ProblemError:
        return {}
    return {(venue, coin): symbol for venue, symbol in symbols.items()}


async def _let_quote(services: ServiceClient, coin: str) -> None:
    """Let the source quote the coin; if exchanges are the source, say which."""
    async with services as client:
        await client.add_coin(coin)
        if client.follows_venues and (symbols := (await client.listing(coin)).symbols):
            say(f"{coin}: its price comes from {_at(symbols)}")
