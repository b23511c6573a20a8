"""`move`: how long the fence is closed when a coin moves while it is written, and what the live path feels of it.

Two PostgreSQL servers and a Valkey, as in the system. The coin's writer, which is quote_service's own recorder,
delivery and publisher, records 50 quotes a second in this process; `cotacoes shards move`, a process of its own, brings
the coin and its history of several days to the other shard, and in the next run back again. The command tells for how
long the fence was closed. From a quote's recording to the answer of Valkey is measured all the while, in the seconds
before each move and during it. Those few quotes that are recorded while the fence is closed wait for it as for any late
shard, 50 ms at most; that is what the bound of the 99th percentile allows for.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.http_ratio import ratios
from benchmarks.live import RATE, RATE_SHARE_MIN
from benchmarks.made_quotes import FIRST_EPOCH, batches, make_quotes
from benchmarks.servers import Server, make_shards, postgres_server, valkey_server
from benchmarks.writer import COIN, TimedBus, Writing, background, writing
from cotacoes import config
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.model.live_message import decode_message
from cotacoes.model.quote import Observation, Position, Quote
from cotacoes.observability.logs import configure_logging

CLOSED_AIM = Aim(100.0)
CLOSED_WORST_AIM = Aim(300.0)
P50_AIM = Aim(1.3)
P99_AIM = Aim(60.0)
SHARDS = ("shard1", "shard2")
QUOTES_PER_S = 30_000  # of `Effort.seconds`: ten seconds without a move stand for 300,000 quotes to move
DAYS = 3
BUS_DEADLINE_S = 1.0
FILL_BATCH = 5_000
SETTLE_S = 1.0
MOVE_DEADLINE_S = 120.0


class Latencies:
    """When each quote was recorded, and how long it then took to be published."""

    def __init__(self) -> None:
        self.recorded_at: dict[Position, float] = {}
        self.found: list[tuple[float, float]] = []  # when it was published, ms since the writer had it

    def note(self, payloads: Sequence[bytes]) -> None:
        """These were published just now."""
        now = time.perf_counter()
        for payload in payloads:
            for line in decode_message(payload):
                if isinstance(line, Quote):
                    began_at = self.recorded_at.pop(line.position)
                    self.found.append((now, 1000 * (now - began_at)))

    def between(self, start: float, end: float) -> list[float]:
        """Of the quotes published then; MeasureError where they are far fewer than were to be recorded."""
        found = [latency for at, latency in self.found if start <= at < end]
        if len(found) < RATE_SHARE_MIN * RATE * (end - start):
            raise MeasureError(f"only {len(found) / (end - start):.1f} quotes/s were published, {RATE:g} are meant")
        return found


def measure(effort: Effort) -> list[Row]:
    configure_logging("bench", "error")
    with (
        postgres_server() as one,
        postgres_server() as two,
        tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place,
        valkey_server() as port,
    ):
        settings = _settings((one, two), Path(place), port)
        return asyncio.run(_measure(settings, one, effort))


async def _measure(settings: config.Settings, home: Server, effort: Effort) -> list[Row]:
    await _fill(home, int(QUOTES_PER_S * effort.seconds))
    latencies = Latencies()
    closed, moved_s, quiet, moving = [], [], [], []
    async with (
        RedisBus(settings.redis, deadline_s=BUS_DEADLINE_S) as bus,
        writing(settings, TimedBus(bus, latencies.note)) as writer,
        background(writer.delivery.run(), writer.publisher.run(), _record(writer, latencies)),
    ):
        await asyncio.sleep(SETTLE_S)
        for run in range(effort.runs):
            began_at = time.perf_counter()
            await asyncio.sleep(effort.seconds)
            move_at = time.perf_counter()
            closed.append(await _move(settings, SHARDS[(run + 1) % 2]))
            ended_at = time.perf_counter()
            quiet.append(latencies.between(began_at, move_at))
            moving.append(latencies.between(move_at, ended_at))
            moved_s.append(ended_at - move_at)
    p50, p50_quiet = ([percentile(one, 50) for one in found] for found in (moving, quiet))
    return [
        Row("move, the fence is closed", "ms", closed, CLOSED_AIM),
        Row("move, the fence is closed, at worst", "ms", [max(closed)], CLOSED_WORST_AIM),
        Row("move, record to publish p99", "ms", [percentile(one, 99) for one in moving], P99_AIM),
        Row("record to publish p99 without a move", "ms", [percentile(one, 99) for one in quiet]),
        Row("move, record to publish p50", "of without", ratios(p50, p50_quiet), P50_AIM),
        Row("move, record to publish p50", "ms", p50),
        Row("record to publish p50 without a move", "ms", p50_quiet),
        Row("move, in all", "s", moved_s),
    ]


async def _fill(home: Server, count: int) -> None:
    """So many quotes in a few days, as the ledger itself stores them."""
    last: Position | None = None
    async with home.shard("cotacoes") as shard:
        await shard.become_writer(COIN, FIRST_EPOCH, "bench")
        for day in range(DAYS):
            quotes = make_quotes(count // DAYS, day=day, prev=last)
            for batch in batches(quotes, FILL_BATCH):
                await shard.append(COIN, 1, FIRST_EPOCH, batch)
            last = quotes[-1].position


async def _record(writer: Writing, latencies: Latencies) -> None:
    """Record at the rate, until cancelled."""
    due = time.perf_counter()
    for number in range(sys.maxsize):
        due += 1 / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        seen = Observation(COIN, "USD", Decimal(6_701_234 + number % 997).scaleb(-2), datetime.now(UTC), "sim")
        began_at = time.perf_counter()
        quotes = await writer.recorder.record({COIN: [seen]})
        latencies.recorded_at |= {quote.position: began_at for quote in quotes}
        writer.publisher.on_recorded(quotes)
        writer.delivery.wake()


async def _move(settings: config.Settings, to: str) -> float:
    """For how many ms the fence was closed."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cotacoes", "shards", "move", COIN, "--to", to),
        env={name: text for name, text in os.environ.items() if not name.startswith(config.PREFIX)}
        | {
            f"{config.PREFIX}DATA": str(settings.data / "no system runs here"),
            f"{config.PREFIX}SHARD1_DSN": settings.dsn("shard1"),
            f"{config.PREFIX}SHARD2_DSN": settings.dsn("shard2"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(MOVE_DEADLINE_S):
            _, said = await command.communicate()
    except TimeoutError as error:
        raise MeasureError(f"the move did not end within {MOVE_DEADLINE_S:g} s") from error
    finally:
        if command.returncode is None:
            command.kill()
            await command.wait()
    return closed_ms(said.decode())


def closed_ms(said: str) -> float:
    """From the command's `left: … after 12.3 ms with a closed fence`; MeasureError where it says none."""
    found = re.search(r"^left: .* after ([0-9.]+) ms with a closed fence$", said, re.MULTILINE)
    if found is None:
        raise MeasureError(f"the move told no time with a closed fence: {said.strip().splitlines()[-1:]}")
    return float(found[1])


def _settings(servers: tuple[Server, Server], place: Path, valkey_port: int) -> config.Settings:
    shard1, shard2 = (server.dsn("cotacoes") for server in servers)
    coins = f"{COIN}:shard1"
    make_shards(shard1, shard2, coins=coins)
    return config.load(
        {},
        data=place,
        shard1_dsn=shard1,
        shard2_dsn=shard2,
        coins=coins,
        redis_url=f"redis://127.0.0.1:{valkey_port}",
    )
