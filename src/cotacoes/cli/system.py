"""Commands for the system on this machine: start it, inspect it, pull its plugs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cotacoes.cli.options import AsJson, Data, Name, data_folder
from cotacoes.cli.output import NONE, export_lines, is_coloured, put, put_json, put_table, say
from cotacoes.errors import SettingError
from cotacoes.up import control

app = typer.Typer()


@app.command()
def up(
    data: Data = None,
    port_base: Annotated[int | None, typer.Option(metavar="N", help="the gateway's port; the others follow it")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="sim, replay:PATH[,PATH...], exchanges or venues")
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(metavar="X", help="how many times faster than the clock; max: as fast as quotes are recorded"),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="repeat a replay from its beginning")] = False,
    replay_price: Annotated[
        str | None, typer.Option(metavar="KIND", help="which price a replay uses: mid or trade")
    ] = None,
    replay_times: Annotated[
        str | None, typer.Option(metavar="TIMES", help="the times of a replay: shifted (to now) or original")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="seed of the simulated market and its faults")] = None,
    failure_rate: Annotated[
        float | None, typer.Option(metavar="P", help="share of requests that fail on purpose, 0 to 1")
    ] = None,
    replay_pairs: Annotated[
        str | None,
        typer.Option(metavar="PAIR:COIN:CURRENCY,...", help="coin and currency of further pairs of a replay"),
    ] = None,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="start even if stored times are more than a day ahead of the clock")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="plain lines without colour")] = False,
    as_json: AsJson = False,
) -> int:
    """Start the whole system and show live quotes.

    \b
    Examples:
      cotacoes up
      cotacoes up --port-base 9000 --data ./second
      cotacoes up --source exchanges
      cotacoes up --data ./replayed --source replay:btcusdt.gz,ethusdt.gz
      cotacoes up --json | head

    Prices come from a simulated market, a replay, six real exchanges (exchanges), or six simulated ones (venues).

    Ctrl-C stops the system. The next `up` on the same data folder continues where this one ended.
    """
    if plain and as_json:
        raise SettingError("give either --plain or --json, not both")
    from cotacoes import config
    from cotacoes.up.live_view import Style
    from cotacoes.up.topology import run

    options: dict[str, Any] = {
        "data": data_folder(data),
        "port_base": port_base,
        "source": source,
        "speed": speed,
        "loop": loop or None,
        "replay_price": replay_price,
        "replay_times": replay_times,
        "replay_pairs": replay_pairs,
        "seed": seed,
        "failure_rate": failure_rate,
        "accept_clock": accept_clock or None,
    }
    settings = config.load(**{name: value for name, value in options.items() if value is not None})
    style = Style.JSON if as_json else Style.COLOURED if is_coloured() and not plain else Style.PLAIN
    return run(settings, style)


@app.command()
def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show each service with its state and address.

    \b
    Examples:
      cotacoes status
      cotacoes status --json
    """
    answer = control.ask(data_folder(data), "status")
    if as_json:
        put_json({"parts": answer["parts"]})
        return
    columns = ("service", "state", "address", "pid", "restarts")
    put_table(columns, [[*_cells(row)] for row in answer["parts"]])


def _cells(row: Mapping[str, Any]) -> Iterator[object]:
    yield from (row["name"], _shown(row["state"]))
    for name in ("address", "pid", "restarts"):
        yield NONE if row[name] is None else row[name]


@app.command()
def env(data: Data = None, as_json: AsJson = False) -> None:
    """Print addresses and passwords as shell exports.

    \b
    Examples:
      eval "$(cotacoes env)"
      psql "$COTACOES_SHARD1_DSN" -c 'SELECT * FROM quotes ORDER BY at DESC LIMIT 10'
      curl "$COTACOES_GATEWAY_URL/v1/quotes/bitcoin/current"
    """
    answer = control.ask(data_folder(data), "env")
    if as_json:
        put_json({**answer["env"], "path": answer["path"]})
        return
    for line in export_lines(answer["env"], answer["path"]):
        put(line)


@app.command()
def stop(service: Name, data: Data = None) -> None:
    """Stop a service until it is started.

    \b
    Examples:
      cotacoes stop shard1
      cotacoes stop redis
    """
    _control("stop", service, data)


@app.command()
def start(service: Name, data: Data = None) -> None:
    """Start a stopped service, or continue a paused one.

    \b
    Examples:
      cotacoes start shard1
      cotacoes start quote_service
    """
    _control("start", service, data)


@app.command()
def pause(service: Name, data: Data = None) -> None:
    """Make a service hang until it is started.

    \b
    Example:
      cotacoes pause quote_service

    Its processes stand still: connections stay open and nothing answers.
    """
    _control("freeze", service, data)  # the word of the control channel


app.command("freeze", hidden=True)(pause)  # its name until 0.2


@app.command()
def down(data: Data = None) -> None:
    """Stop the whole system.

    \b
    Examples:
      cotacoes down
      cotacoes down --data ./second
    """
    folder = data_folder(data)
    control.bring_down(folder)
    say(f"stopped the system on {folder}")


def _control(command: str, service: str, data: Path | None) -> None:
    name = service.lower().replace("-", "_")
    answer = control.ask(data_folder(data), command, name)
    say(f"{name}: {_shown(answer['state'])}")


def _shown(state: str) -> str:
    """The word that people read for a state."""
    return "paused" if state == "frozen" else state
