"""Commands for the system on this machine: start it, look at it, pull its plugs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cotacoes.cli.options import AsJson, Data, Service, data_folder
from cotacoes.cli.output import export_lines, put, put_json, put_table, say
from cotacoes.errors import SettingError
from cotacoes.up import control

app = typer.Typer()


@app.command()
def up(
    data: Data = None,
    port_base: Annotated[int | None, typer.Option(metavar="N", help="the gateway's port; the others follow")] = None,
    source: Annotated[str | None, typer.Option(metavar="SOURCE", help="sim, or replay:PATH[,PATH...]")] = None,
    speed: Annotated[
        str | None,
        typer.Option(metavar="X", help="how much faster than the clock it runs; max: as fast as it is taken"),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="begin a replay anew at its end")] = False,
    replay_price: Annotated[str | None, typer.Option(metavar="KIND", help="mid or trade, of a replay")] = None,
    replay_times: Annotated[
        str | None, typer.Option(metavar="TIMES", help="shifted to now, or original; of a replay")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="of the simulated market and its faults")] = None,
    failure_rate: Annotated[float | None, typer.Option(metavar="P", help="share of requests that fail")] = None,
    replay_pairs: Annotated[
        str | None, typer.Option(metavar="PAIR:COIN:CURRENCY,...", help="what further pairs of a replay are")
    ] = None,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="start although stored times lie more than a day ahead of the clock")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="lines without colour, table or cursor")] = False,
    as_json: AsJson = False,
) -> int:
    """Start everything, show live quotes.

    \b
    Examples:
      cotacoes up
      cotacoes up --port-base 9000 --data ./second
      cotacoes up --data ./replayed --source replay:btcusdt.gz,ethusdt.gz
      cotacoes up --json | head

    Ctrl-C stops it; a second `up` on the same data goes on where the first ended.
    """
    if plain and as_json:
        raise SettingError("give either --plain or --json, not both")
    from cotacoes.up.topology import UpOptions, run

    is_rich = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return run(
        UpOptions(
            data=data_folder(data),
            port_base=port_base,
            source=source,
            speed=speed,
            loop=loop or None,
            replay_price=replay_price,
            replay_times=replay_times,
            replay_pairs=replay_pairs,
            seed=seed,
            failure_rate=failure_rate,
            accept_clock=accept_clock or None,
            output="json" if as_json else "plain" if plain or not is_rich else "rich",
        )
    )


@app.command()
def status(data: Data = None, as_json: AsJson = False) -> None:
    """What runs, where, in which state.

    \b
    Examples:
      cotacoes status
      cotacoes status --json
    """
    answer = control.ask(data_folder(data), "status")
    if as_json:
        put_json({"parts": answer["parts"]})
        return
    columns = ("part", "state", "address", "pid", "restarts")
    names = ("name", *columns[1:])
    put_table(columns, [["-" if part[name] is None else part[name] for name in names] for part in answer["parts"]])


@app.command()
def env(data: Data = None, as_json: AsJson = False) -> None:
    """Addresses and passwords, as shell exports.

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
def stop(part: Service, data: Data = None) -> None:
    """Stop a part until it is started.

    \b
    Examples:
      cotacoes stop shard1
      cotacoes stop redis
    """
    _control("stop", part, data)


@app.command()
def start(part: Service, data: Data = None) -> None:
    """Start a stopped part, or thaw a frozen one.

    \b
    Example:
      cotacoes start shard1
    """
    _control("start", part, data)


@app.command()
def freeze(part: Service, data: Data = None) -> None:
    """Let a part hang until it is started.

    \b
    Example:
      cotacoes freeze quote_service
    """
    _control("freeze", part, data)


@app.command()
def down(data: Data = None) -> None:
    """Stop everything.

    \b
    Examples:
      cotacoes down
      cotacoes down --data ./second
    """
    folder = data_folder(data)
    control.bring_down(folder)
    say(f"stopped what ran on {folder}")


def _control(command: str, part: str, data: Path | None) -> None:
    name = part.lower().replace("-", "_")
    answer = control.ask(data_folder(data), command, name)
    say(f"{name}: {answer['state']}")
