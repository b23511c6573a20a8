"""Commands for prices: watch, record, query and export them, and make the source fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Coin, Coins, Data, Since, WithAgreement
from cotacoes.cli.output import say
from cotacoes.cli.services import subscribe
from cotacoes.cli.times import From, To
from cotacoes.errors import ServiceUnavailableError
from cotacoes.errors.exit_codes import INTERRUPTED
from cotacoes.model.candle import INTERVALS
from cotacoes.model.coins import require_coin
from cotacoes.model.window import DEFAULT_WINDOW, WINDOWS
from cotacoes.up import control

if TYPE_CHECKING:
    from cotacoes import config
    from cotacoes.web.process import Stop

LAST_QUOTES_MAX = 10_000  # READ_QUOTES_MAX of a shard

app = typer.Typer()


def _interval(text: str) -> str:
    if text not in INTERVALS:
        raise typer.BadParameter(f"give one of {', '.join(INTERVALS)}")
    return text


def _window(text: str) -> str:
    if text not in WINDOWS:
        raise typer.BadParameter(f"give one of {', '.join(WINDOWS)}")
    return text


@app.command()
def watch(coins: Coins = None, since: Since = None, data: Data = None, as_json: AsJson = False) -> int:
    """Show the last quote of each coin, then every new one.

    \b
    Examples:
      cotacoes watch
      cotacoes watch bitcoin
      cotacoes watch --json | head
      cotacoes watch bitcoin --since 1732400000000-42
      cotacoes watch --since bitcoin=1732400000000-42 --since ethereum=1732400000001-40

    Quotes lost on the way are reported, fetched from the history and shown in their place, so no position is missing.
    """
    system = {"COTACOES_LOG_LEVEL": "warning", **queries.find_system(data, control.ask)}
    return subscribe(coins, since, as_json=as_json, environment=system, interrupted=INTERRUPTED)


@app.command()
def record(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="a new file; compressed if it ends in .gz")
    ] = None,
    raw: Annotated[
        Path | None, typer.Option("--raw", metavar="DIR", help="a folder for all frames of the exchanges, as they come")
    ] = None,
    coins: Coins = None,
    for_s: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=0.1, help="how long; default: until Ctrl-C")
    ] = None,
    data: Data = None,
) -> int:
    """Record published quotes, or all that exchanges send, for a replay.

    \b
    Examples:
      cotacoes record --out today.ndjson.gz
      cotacoes record --out hour.ndjson.gz --for 3600 bitcoin
      cotacoes up --data ./again --port-base 9000 --source replay:today.ndjson.gz
      cotacoes record --raw ./frames --for 3600
      cotacoes up --data ./again --port-base 9000 --source replay:./frames/

    With --raw the exchanges are followed by connections of this command's own, whether or not a system runs here. A new
    file begins every hour.
    """
    if (out is None) == (raw is None):
        raise typer.BadParameter("name either a file with --out or a folder with --raw")
    if raw is not None:
        return _record_raw(raw, coins or (), for_s, data)
    assert out is not None
    return _record_quotes(out, coins or (), for_s, data)


def _record_raw(folder: Path, coins: Sequence[str], for_s: float | None, data: Path | None) -> int:
    from cotacoes.feed_service.raw_recording import record_frames
    from cotacoes.web.process import run_service

    async def main(settings: config.Settings, stop: Stop) -> None:
        chosen = [coin.lower() for coin in coins] or list(settings.seed_placement)
        say(f"recording frames of {', '.join(settings.venue_names)} into {folder}; press Ctrl-C to stop")
        say(f"recorded {await record_frames(settings, stop, folder, chosen, for_s)} frames")

    try:
        found = queries.find_system(data, control.ask)
    except ServiceUnavailableError:
        found = {name: text for name, text in os.environ.items() if name.startswith(queries.PREFIX)}
    environment = {"COTACOES_LOG_LEVEL": "warning", "COTACOES_SOURCE": "exchanges", **found}
    return run_service("record", main, environment=environment, in_words=True)


def _record_quotes(out: Path, coins: Sequence[str], for_s: float | None, data: Path | None) -> int:
    from cotacoes.client_subscriber import recording
    from cotacoes.client_subscriber.app import known_coins
    from cotacoes.web.process import run_service

    async def main(settings: config.Settings, stop: Stop) -> None:
        known = await known_coins(settings, venues=bool(coins)) or list(settings.seed_placement)
        chosen = [require_coin(coin.lower(), known) for coin in coins or known]
        say(f"recording {', '.join(chosen)} into {out}; press Ctrl-C to stop")
        count = await recording.record(settings, stop, out, chosen, for_s)
        say(f"recorded {count} quotes")

    environment = {"COTACOES_LOG_LEVEL": "warning", **queries.find_system(data, control.ask)}
    return run_service("record", main, environment=environment, in_words=True)


@app.command()
def quote(coin: Coin, data: Data = None, as_json: AsJson = False) -> int:
    """Show the current quote and its age.

    \b
    Examples:
      cotacoes quote bitcoin
      cotacoes quote bitcoin --json

    The exit code is 3 if the quote is stale, and 4 if there is none.
    """
    return queries.ask_services(data, lambda client: queries.quote(client, coin, as_json=as_json))


@app.command()
def report(
    coins: Coins = None,
    window: Annotated[
        str, typer.Option("--window", metavar="LENGTH", parser=_window, help=f"one of {', '.join(WINDOWS)}")
    ] = DEFAULT_WINDOW,
    trace: Annotated[bool, typer.Option("--trace", help="show when each service was asked, and the result")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Report prices, means and recent history of all coins.

    \b
    Examples:
      cotacoes report
      cotacoes report bitcoin --window 7d
      cotacoes report --trace
      cotacoes report --json

    The report contains every answer that came in time, and names what is missing.
    """
    return queries.ask_services(
        data, lambda client: queries.report(client, coins or (), window=window, trace=trace, as_json=as_json)
    )


@app.command()
def history(
    coin: Coin,
    last: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=LAST_QUOTES_MAX, help="the newest N; default: 20")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="POSITION", help="all quotes after this position")] = None,
    start: From = None,
    end: To = None,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Show recorded quotes in order, one per line.

    \b
    Examples:
      cotacoes history bitcoin --last 100
      cotacoes history bitcoin --after 1732400000000-42
      cotacoes history bitcoin --from 2026-11-24T12:00:00Z --to 2026-11-24T12:05:00Z
      cotacoes history bitcoin --last 1000 --json > quotes.ndjson

    Without options it shows the newest ones; with --after or a time range all that match.
    """
    if last is not None and after is not None:
        raise typer.BadParameter("give either --last or --after, not both")
    if last is not None and (start is not None or end is not None):
        raise typer.BadParameter("give either --last or --from and --to, not both")
    return queries.ask_services(
        data,
        lambda client: queries.history(client, coin, last=last, after=after, start=start, end=end, as_json=as_json),
    )


@app.command()
def candles(
    coin: Coin,
    interval: Annotated[
        str, typer.Option("--interval", metavar="LENGTH", parser=_interval, help=f"one of {', '.join(INTERVALS)}")
    ] = "1m",
    last: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1000, help="the last N intervals; default: 20")
    ] = None,
    start: From = None,
    end: To = None,
    empty: Annotated[bool, typer.Option("--empty", help="include intervals without a quote")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Show open, high, low, close and mean by interval.

    \b
    Examples:
      cotacoes candles bitcoin
      cotacoes candles bitcoin --interval 1h --last 24
      cotacoes candles bitcoin --interval 5m --from 2026-11-24 --to 2026-11-25 --empty
      cotacoes candles bitcoin --interval 1d --from 2026-01-01 --json > days.ndjson

    Candles have the origin and currency of the newest quote. The newest one is still open; closed ones never change.
    """
    if last is not None and start is not None:
        raise typer.BadParameter("give either --last or --from, not both")
    return queries.ask_services(
        data,
        lambda client: queries.candles(
            client, coin, interval, last=last, start=start, end=end, empty=empty, as_json=as_json
        ),
    )


@app.command()
def export(
    coin: Coin,
    start: From = None,
    end: To = None,
    form: Annotated[Literal["csv", "ndjson"], typer.Option("--format", help="format of the output")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="a new file; default: standard output")
    ] = None,
    agreement: WithAgreement = False,
    data: Data = None,
) -> int:
    """Export the quotes of a time range with every digit.

    \b
    Examples:
      cotacoes export bitcoin --from 2026-11-24 --to 2026-11-25 > day.csv
      cotacoes export bitcoin --from 2026-11-01 --to 2026-12-01 --output november.csv
      cotacoes export bitcoin --from 2026-11-24 --format ndjson --output bitcoin.ndjson
      cotacoes export bitcoin --agreement > bitcoin.csv

    Without --from it starts at the oldest quote, without --to it ends at the newest. With --output an interrupted
    export leaves FILE.part, and the same command resumes it. How venues agreed on a price is in NDJSON if they did, and
    in CSV with --agreement.
    """
    from cotacoes.cli import export as exporting

    wanted = exporting.ExportRequest(coin.lower(), start, end, form, has_agreement=agreement)
    return queries.ask_services(data, lambda client: exporting.export(client, wanted, output))


@app.command()
def faults(
    words: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="a fault to set, or clear")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Show or set the faults of the source and of the simulated venues.

    \b
    Examples:
      cotacoes faults
      cotacoes faults error_rate=1 for_s=20
      cotacoes faults hang=0.5 nan=0.1 coins=bitcoin
      cotacoes faults latency_ms=300 status=500,503 retry_after_s=none
      cotacoes faults kraken.lie=0.10 binance.stall=1 for_s=30
      cotacoes faults market.shock=0.7 peg.USDT=0.90 for_s=60
      cotacoes faults clear

    Each KEY=VALUE is added to the current faults; `clear` removes them all. for_s holds for all that is named with it.
    """
    return queries.ask_services(data, lambda client: queries.faults(client, words or [], as_json=as_json))
