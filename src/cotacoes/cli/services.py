"""Commands that run one service alone, configured by the environment, and the migration."""

from __future__ import annotations

import asyncio
import importlib
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Coins, Data, Since
from cotacoes.cli.output import put

if TYPE_CHECKING:
    from cotacoes import config
    from cotacoes.web.process import Stop

app = typer.Typer()


@app.command()
def migrate(data: Data = None) -> None:
    """Migrate all shards to the schema of this release.

    \b
    Examples:
      cotacoes migrate
      cotacoes migrate --data ./second
      COTACOES_SHARD1_DSN=postgresql://... COTACOES_SHARD2_DSN=postgresql://... cotacoes migrate

    It migrates the system that runs on the data folder, else the one that the environment names.
    """
    from cotacoes.admin import migrate as migration

    for line in asyncio.run(migration.main(queries.settings_of(data))):
        put(line)


@app.command()
def external_service() -> int:
    """Run the source: a simulated market or a replay.

    \b
    Example:
      COTACOES_PORT_BASE=9000 cotacoes external-service
    """
    return _serve("external_service")


@app.command()
def feed_service() -> int:
    """Run the service that follows exchanges and agrees on a price.

    \b
    Examples:
      COTACOES_SOURCE=exchanges cotacoes feed-service
      COTACOES_SOURCE=exchanges COTACOES_VENUES=kraken,coinbase,bitstamp cotacoes feed-service
    """
    return _serve("feed_service")


@app.command()
def quote_service(
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="start even if stored times are more than a day ahead of the clock")
    ] = False,
) -> int:
    """Run the service that records and publishes quotes.

    \b
    Example:
      COTACOES_PORT_BASE=9000 cotacoes quote-service
    """
    return _serve("quote_service", **({"accept_clock": True} if accept_clock else {}))


@app.command()
def aggregator_service() -> int:
    """Run the service that makes the report.

    \b
    Example:
      COTACOES_PORT_BASE=9000 cotacoes aggregator-service
    """
    return _serve("aggregator_service")


@app.command()
def gateway_service() -> int:
    """Run the gateway for HTTP and live streams.

    \b
    Example:
      COTACOES_PORT_BASE=9000 cotacoes gateway-service
    """
    return _serve("gateway_service")


@app.command()
def client_subscriber(coins: Coins = None, since: Since = None, as_json: AsJson = False) -> int:
    """Run the subscriber: live quotes on the console.

    \b
    Examples:
      cotacoes client-subscriber
      cotacoes client-subscriber --json bitcoin
    """
    return subscribe(coins, since, as_json=as_json)


def subscribe(
    coins: Sequence[str] | None,
    since: Sequence[str] | None,
    *,
    as_json: bool,
    environment: Mapping[str, str] | None = None,
    interrupted: int = 0,
) -> int:
    """Show live quotes in this process; returns the exit code, which is `interrupted` after Ctrl-C.

    `environment` replaces that of this process.
    """
    from cotacoes.client_subscriber import app as subscriber
    from cotacoes.web.process import run_service

    async def main(settings: config.Settings, stop: Stop) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop, interrupted)
        chosen = [coin.lower() for coin in coins or ()]
        await subscriber.run(settings, stop, coins=chosen, since=since or (), as_json=as_json)

    in_words = environment is not None and not as_json
    return run_service("client_subscriber", main, environment=environment, in_words=in_words)


def _serve(name: str, **given: Any) -> int:
    from cotacoes.web.process import run_process

    return run_process(name, importlib.import_module(f"cotacoes.{name}.app").main, **given)
