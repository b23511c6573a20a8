"""A log on a disk that is really full, and has room again: what happened, as one JSON object on stdout.

Run in a mount namespace of its own, as `python -m tests.system.harness_full_disk FOLDER log|other`. The disk is a tmpfs
on FOLDER; what fills it is the log itself, or something else.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.harness_quote_service import COIN, QuoteServiceCore

from cotacoes.errors import LogUnavailableError
from cotacoes.model.quote import Quote
from cotacoes.observability.logs import configure_logging

DISK_MEBIBYTES = 6
BATCH = 100
ALL = 10**6


def mount(folder: Path, *, mebibytes: int, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={mebibytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fill(file: Path) -> None:
    """Take the last byte of the disk."""
    try:
        with file.open("wb", buffering=0) as other:
            while True:
                other.write(b"x" * 512)
    except OSError:
        return


async def record_until_refused(core: QuoteServiceCore, recorded: list[Quote]) -> str:
    """Record whole batches; the words by which the log refuses one."""
    while True:
        core.recorder._reopen_at = 0.0  # instead of waiting until it would be tried again
        try:
            recorded += await core.record(*["1.50"] * BATCH)
        except LogUnavailableError as error:
            return error.detail


async def scenario(folder: Path, filled_by: str) -> dict[str, Any]:
    core = QuoteServiceCore(folder / "log")
    recorded: list[Quote] = []
    async with core.running():
        core.shard.away = True  # once it has said that there is nothing yet
        recorded += await core.record(*["1.50"] * BATCH)
        if filled_by == "other":
            fill(folder / "other")
        refusals = [await record_until_refused(core, recorded) for _ in range(3)]
        while_full = len(recorded)
        failure = core.recorder.failure
        mount(folder, mebibytes=2 * DISK_MEBIBYTES, again=True)
        core.recorder._reopen_at = 0.0
        recorded += await core.record("2.50", "3.50")
        held = await core.recorder.log.after(COIN, None, ALL)
        failure_after = core.recorder.failure
        core.shard.away = False
        async with asyncio.timeout(10):
            while core.history.pending:
                await asyncio.sleep(0.01)
        stored = await core.shard.after(COIN, None, ALL)
    return {
        "refusals": refusals,
        "failures": [failure, failure_after],
        "while_full": while_full,
        "recorded": [(*quote.position, str(quote.price), quote.prev) for quote in recorded],
        "held": [(*quote.position, str(quote.price), quote.prev) for quote in held],
        "stored": [(*quote.position, str(quote.price), quote.prev) for quote in stored],
    }


if __name__ == "__main__":
    configure_logging("full_disk")
    disk = Path(sys.argv[1])
    mount(disk, mebibytes=DISK_MEBIBYTES)
    json.dump(asyncio.run(scenario(disk, sys.argv[2])), sys.stdout)
