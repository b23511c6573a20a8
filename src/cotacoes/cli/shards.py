"""Commands that move a coin to another shard, and delete what moves have left behind."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import Annotated

import typer

from cotacoes.admin.copies import opened
from cotacoes.admin.copying import MoveProgress
from cotacoes.admin.move import Mover
from cotacoes.admin.purge import GRACE
from cotacoes.admin.purge import purge as purge_copies
from cotacoes.cli import queries
from cotacoes.cli.options import Coin, Data
from cotacoes.cli.output import put, say

SAID_EVERY_S = 1.0


def move(
    coin: Coin,
    to: Annotated[str, typer.Option("--to", metavar="SHARD", help="where it is to live, as `shards list` names it")],
    abort: Annotated[bool, typer.Option("--abort", help="give up the move to that shard, unless it is open")] = False,
    data: Data = None,
) -> None:
    """Move a coin to another shard, while it is written and read.

    \b
    Examples:
      cotacoes shards move bitcoin --to shard2
      cotacoes shards move bitcoin --to shard2 --abort

    Whatever ends it, the same command goes on where it ended. The copy left behind is deleted by `shards purge`.
    """
    settings = queries.settings_of(data)
    told = MoveReporter(time.monotonic())

    async def moving() -> MoveProgress:
        async with opened(settings) as (shards, away):
            mover = Mover(
                coin.lower(), shards, away, random=random.SystemRandom(), clock=time.monotonic, on_step=told.step
            )
            return await (mover.abort(to) if abort else mover.move(to))

    progress = asyncio.run(moving())
    for warning in progress.warnings:
        say(f"cotacoes: {warning}")
    put(f"{progress.coin} {'stays on' if abort else 'lives on'} {progress.source if abort else progress.target}")


def purge(
    coin: Coin,
    now: Annotated[
        bool, typer.Option("--now", help=f"without the grace of {GRACE.seconds // 3600} h after a move")
    ] = False,
    data: Data = None,
) -> None:
    """Delete the copies of a coin that moves have left behind.

    \b
    Examples:
      cotacoes shards purge bitcoin
      cotacoes shards purge bitcoin --now

    Only once they are found to hold nothing that the coin's present shard does not.
    """
    settings = queries.settings_of(data)

    async def tell(line: str) -> None:
        put(line)

    async def purging() -> int:
        async with opened(settings) as (shards, away):
            return await purge_copies(coin.lower(), shards, away, grace=timedelta(0) if now else GRACE, say=tell)

    if asyncio.run(purging()) == 0:
        put(f"nothing of {coin.lower()} was deleted")


class MoveReporter:
    """What a person is told of a move while it goes on: every step, and of pages one a second."""

    def __init__(self, started: float) -> None:
        self._started = self._said = started

    async def step(self, step: str, progress: MoveProgress) -> None:
        """A step was done."""
        now = time.monotonic()
        if step in ("copied", "verified"):
            if now - self._said < SAID_EVERY_S:
                return
            self._said = now
        say(line_of(step, progress, now - self._started))


def line_of(step: str, progress: MoveProgress, elapsed_s: float) -> str:
    """`copied: 12 days, 120000 quotes copied, 90000 compared, 60000 quotes/s`."""
    words = {
        "claimed": f"{progress.coin} goes from {progress.source} to {progress.target}",
        "copied": f"{progress.days} days, {progress.copied} quotes copied, {progress.copied / elapsed_s:.0f} quotes/s",
        "verified": f"{progress.verified} of {progress.copied} quotes compared",
        "sampled": f"{progress.verified} quotes compared, and some row by row",
        "closed": f"the fence of {progress.source} is closed: quotes wait in the log, and are published",
        "finished": f"{progress.copied} quotes copied, {progress.verified} compared",
        "opened": f"{progress.target} takes quotes and answers",
        "left": f"{progress.source} sends everyone to {progress.target}",
        "placed": "the directory was told",
        "given_up": f"the copy on {progress.target} can not be opened any more",
        "reopened": f"{progress.source} takes quotes",
        "removed": f"the old copy on {progress.target} is deleted",
        "begun": f"{progress.target} takes the copy",
    }
    closed = (
        f", after {progress.closed_s * 1000:.1f} ms with a closed fence" if step == "left" and progress.closed_s else ""
    )
    return f"{step}: {words[step]}{closed}"
