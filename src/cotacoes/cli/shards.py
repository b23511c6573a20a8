"""`cotacoes shards` and `cotacoes directory`: list, add and empty shards, and rebuild the directory."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Coin, Data
from cotacoes.cli.output import put, put_json, put_table, say

if TYPE_CHECKING:
    from cotacoes.admin.copying import MoveProgress
    from cotacoes.patterns.sharding.shard import Directory

app = typer.Typer()
shards_app = typer.Typer(help="List and add shards, and move coins between them.")
directory_app = typer.Typer(help="The directory of coins and shards.")
app.add_typer(shards_app, name="shards")
app.add_typer(directory_app, name="directory")

REPORT_EVERY_S = 1.0


@shards_app.command("list")
def list_shards(data: Data = None, as_json: AsJson = False) -> None:
    """List every shard with its address and the number of its coins.

    \b
    Example:
      cotacoes shards list
    """
    from cotacoes.admin import directory

    settings = queries.settings_of(data)
    known = asyncio.run(directory.read(settings))
    rows = [_shard_row(known, name, dsn) for name, dsn in directory.dsns(settings, known).items()]
    if as_json:
        put_json({"shards": rows})
        return
    put_table(("shard", "address", "coins"), [[row["name"], row["address"], len(row["coins"])] for row in rows])


def _shard_row(known: Directory, name: str, dsn: str) -> dict[str, Any]:
    from cotacoes import config

    coins = [coin for coin, home in known.homes.items() if home.shard == name]
    return {"name": name, "address": config.without_password(dsn), "coins": coins}


@shards_app.command("add")
def add_shard(
    name: Annotated[str, typer.Argument(metavar="NAME", help="for example shard3")],
    dsn: Annotated[
        str,
        typer.Argument(metavar="DSN", help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or - to read it from stdin"),
    ],
    data: Data = None,
) -> None:
    """Add a PostgreSQL database as a shard.

    \b
    Examples:
      cotacoes shards add shard3 postgresql://cotacoes:secret@db3/cotacoes
      cotacoes shards add shard3 - < file-with-the-dsn

    With -, the password appears neither in the list of processes nor in the shell's history.
    """
    from cotacoes.admin import directory

    dsn = sys.stdin.readline().strip() if dsn == "-" else dsn
    put(asyncio.run(directory.add_shard(queries.settings_of(data), name, dsn)))


@shards_app.command()
def move(
    coin: Coin,
    to: Annotated[str, typer.Option("--to", metavar="SHARD", help="the shard to move to, as `shards list` names it")],
    abort: Annotated[
        bool, typer.Option("--abort", help="give up the move to that shard, unless it is open already")
    ] = False,
    data: Data = None,
) -> None:
    """Move a coin to another shard while it is written and read.

    \b
    Examples:
      cotacoes shards move bitcoin --to shard2
      cotacoes shards move bitcoin --to shard2 --abort

    Whatever interrupts the move, the same command continues it. `shards purge` deletes the copy left behind.
    """
    from cotacoes.admin.copies import open_shards
    from cotacoes.admin.move import Mover

    settings = queries.settings_of(data)
    reporter = MoveReporter(time.monotonic())

    async def moving() -> MoveProgress:
        async with open_shards(settings) as (shards, away):
            mover = Mover(
                coin.lower(), shards, away, random=random.SystemRandom(), clock=time.monotonic, on_step=reporter.step
            )
            return await (mover.abort(to) if abort else mover.move(to))

    progress = asyncio.run(moving())
    for warning in progress.warnings:
        say(f"cotacoes: {warning}")
    put(f"{progress.coin} {'stays on' if abort else 'lives on'} {progress.source if abort else progress.target}")


@shards_app.command()
def purge(
    coin: Coin,
    now: Annotated[bool, typer.Option("--now", help="do not wait for 1 h after a move")] = False,
    data: Data = None,
) -> None:
    """Delete the copies of a coin that moves have left behind.

    \b
    Examples:
      cotacoes shards purge bitcoin
      cotacoes shards purge bitcoin --now

    A copy is deleted only if the coin's present shard holds all that it does.
    """
    from cotacoes.admin.copies import open_shards
    from cotacoes.admin.purge import GRACE
    from cotacoes.admin.purge import purge as purge_copies

    settings = queries.settings_of(data)

    async def show(line: str) -> None:
        put(line)

    async def purging() -> int:
        async with open_shards(settings) as (shards, away):
            return await purge_copies(coin.lower(), shards, away, grace=timedelta(0) if now else GRACE, say=show)

    if asyncio.run(purging()) == 0:
        put(f"nothing of {coin.lower()} was deleted")


@directory_app.command()
def rebuild(
    shard: Annotated[
        list[str] | None,
        typer.Option("--shard", metavar="NAME=DSN", help="a shard that the directory may have forgotten"),
    ] = None,
    data: Data = None,
) -> None:
    """Rebuild the directory from the fences of the shards.

    \b
    Examples:
      cotacoes directory rebuild
      cotacoes directory rebuild --shard shard3=postgresql://cotacoes:secret@db3/cotacoes
    """
    from cotacoes.admin import directory

    further = {name: dsn for name, _, dsn in (item.partition("=") for item in shard or [])}
    lines = asyncio.run(directory.rebuild(queries.settings_of(data), further))
    for line in lines:
        put(line)
    say("the directory now agrees with the fences" if lines else "the directory agreed with the fences already")


class MoveReporter:
    """Prints the steps of a move, but pages and days only once a second."""

    def __init__(self, started: float) -> None:
        self._started = self._reported = started

    async def step(self, step: str, progress: MoveProgress) -> None:
        """Print a step, if it is due."""
        now = time.monotonic()
        if step in ("copied", "verified"):
            if now - self._reported < REPORT_EVERY_S:
                return
            self._reported = now
        say(line_of(step, progress, now - self._started))


def line_of(step: str, progress: MoveProgress, elapsed_s: float) -> str:
    """`copied: 12 days, 120000 quotes copied, 90000 compared, 60000 quotes/s`."""
    words = {
        "claimed": f"{progress.coin} moves from {progress.source} to {progress.target}",
        "copied": f"{progress.days} days, {progress.copied} quotes copied, {progress.copied / elapsed_s:.0f} quotes/s",
        "verified": f"{progress.verified} of {progress.copied} quotes compared",
        "sampled": f"{progress.verified} quotes compared, and some row by row",
        "closed": f"the fence of {progress.source} is closed: quotes wait in the log, and are published",
        "finished": f"{progress.copied} quotes copied, {progress.verified} compared",
        "opened": f"{progress.target} accepts quotes and reads",
        "left": f"{progress.source} refers writers and readers to {progress.target}",
        "placed": f"the directory names {progress.target}",
        "given_up": f"the copy on {progress.target} can no longer be opened",
        "reopened": f"{progress.source} accepts quotes",
        "removed": f"the old copy on {progress.target} is deleted",
        "begun": f"{progress.target} receives the copy",
    }
    closed = (
        f", after {progress.closed_s * 1000:.1f} ms with a closed fence" if step == "left" and progress.closed_s else ""
    )
    return f"{step}: {words[step]}{closed}"
