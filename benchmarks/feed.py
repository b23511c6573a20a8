"""`feed`: what feed_service costs with six venues and two coins, and how soon a price is an entry and a quote.

A server of the benchmark plays the venues with 700 frames a second in all. A price stands until its step, then all
venues send the new one at once. Measured from that moment: to the answer of a waiting `GET /quotes` that has the new
price or a later one, and to the message on Redis. The entry waits for the end of the tick of 50 ms. A second system
reads 2 million frames as fast as it can: what its memory grows by.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psutil

from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.helper_process import helper_process
from benchmarks.system import System, running
from benchmarks.venue_server import COINS

CPU_AIM = Aim(12.0)
RSS_AIM = Aim(60.0)
GROWTH_AIM = Aim(3.0)
ENTRY_P99_AIM = Aim(80.0)
QUOTE_P50_AIM = Aim(60.0)
QUOTE_P99_AIM = Aim(250.0)
FRAMES_PER_S = 700.0
PACE_SHARE_MIN = 0.9  # below that the figure is one of another load
VENUES = ("binance", "coinbase", "kraken", "bitstamp", "okx", "bybit")
SETTLE_S = 15.0
FLOOD_FRAMES = 2_000_000
FLOOD_FRAMES_PER_RUN_S = 100_000  # of a run of 20 s: all of them
FLOOD_WARM_SHARE = 0.1  # caches are full by then
FLOOD_DEADLINE_S = 600.0
LISTENER_MARGIN_S = 15.0
FETCH_DEADLINE_S = 5.0
_MB = 1_000_000

Arrivals = Mapping[str, Sequence[tuple[str, int]]]  # price and time by coin


class VenueServer:
    """A running server of venues; `steps` are those that it has told so far: coin, price, nanoseconds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._lines = process.stdout
        self.port = int(self._lines.readline() or "0")
        self.pid = process.pid
        self.steps: list[tuple[str, str, int]] = []
        threading.Thread(target=self._read, name="the venues' steps", daemon=True).start()

    def settings(self, modes: Mapping[str, str]) -> dict[str, str]:
        """The settings of a system that follows these venues, each in its mode."""
        urls = (f"{venue}=ws://127.0.0.1:{self.port}/{mode}/{venue}/stream" for venue, mode in modes.items())
        return {
            "SOURCE": "exchanges",
            "VENUES": ",".join(modes),
            "VENUE_URLS": ",".join(urls),
            "SOURCE_MODE": "tape",
        }

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # the pipe is closed
            for line in self._lines:
                coin, price, at_ns = json.loads(line)
                self.steps.append((coin, price, at_ns))


@contextlib.contextmanager
def venue_server(frames_per_s: float = FRAMES_PER_S) -> Iterator[VenueServer]:
    """The venues, until the context ends."""
    with helper_process("benchmarks.venue_server", str(frames_per_s)) as process:
        server = VenueServer(process)
        if not server.port:
            raise MeasureError("the venues did not start")
        try:
            yield server
        finally:
            process.kill()  # its pipe can be closed only when nobody waits for a line


def measure(effort: Effort) -> list[Row]:
    with venue_server() as server, running(**server.settings(dict.fromkeys(VENUES, "pace"))) as system:
        time.sleep(min(SETTLE_S, effort.seconds))
        runs = [_run(system, server, effort.seconds) for _ in range(effort.runs)]
    frames = min(FLOOD_FRAMES, round(FLOOD_FRAMES_PER_RUN_S * effort.seconds))
    with venue_server() as server, running(**server.settings(dict.fromkeys(VENUES, "flood"))) as system:
        rate, growth, rss = _flood(system, frames)
    cpu, rates, memory, entries, quotes = (list(found) for found in zip(*runs, strict=True))
    if min(rates) < PACE_SHARE_MIN * FRAMES_PER_S:
        raise MeasureError(f"only {min(rates):.0f} frames/s were read, {FRAMES_PER_S:g} are meant")
    return [
        Row("feed", "% of a core", cpu, CPU_AIM),
        Row("feed rate", "frames/s", rates),
        Row("feed memory", "MB RSS", memory, RSS_AIM),
        Row(f"feed memory growth, {frames / 1e6:g} M frames", "MB RSS", [growth], GROWTH_AIM),
        Row("feed memory after them", "MB RSS", [rss], RSS_AIM),
        Row("feed frames as fast as read", "frames/s", [rate]),
        Row("feed frame to entry p50", "ms", [percentile(found, 50) for found in entries]),
        Row("feed frame to entry p99", "ms", [percentile(found, 99) for found in entries], ENTRY_P99_AIM),
        Row("feed frame to Redis p50", "ms", [percentile(found, 50) for found in quotes], QUOTE_P50_AIM),
        Row("feed frame to Redis p99", "ms", [percentile(found, 99) for found in quotes], QUOTE_P99_AIM),
    ]


def _run(
    system: System, server: VenueServer, seconds: float
) -> tuple[float, float, float, Sequence[float], Sequence[float]]:
    process = psutil.Process(system.pids()["feed_service"])
    before, cpu_before_s, began_s = frames_read(system), cpu_s(process), time.monotonic()
    found = _listen(system, seconds)
    elapsed_s, used_s = time.monotonic() - began_s, cpu_s(process) - cpu_before_s
    frames_per_s = (frames_read(system) - before) / elapsed_s
    entries, quotes = (delays_ms(server.steps, found[kind]) for kind in ("entries", "quotes"))
    if not entries or not quotes:
        raise MeasureError("no new price came through")
    return 100 * used_s / elapsed_s, frames_per_s, process.memory_info().rss / _MB, entries, quotes


def _flood(system: System, frames: int) -> tuple[float, float, float]:
    """Frames a second, the growth of the memory from a tenth of the frames to the end, and what it is there."""
    process = psutil.Process(system.pids()["feed_service"])
    first, began_s = frames_read(system), time.monotonic()
    _wait_frames(system, first + round(FLOOD_WARM_SHARE * frames), began_s)
    warm = process.memory_info().rss
    count = _wait_frames(system, first + frames, began_s) - first
    rate, rss = count / (time.monotonic() - began_s), process.memory_info().rss
    return rate, (rss - warm) / _MB, rss / _MB


def _wait_frames(system: System, count: int, began_s: float) -> int:
    while (read := frames_read(system)) < count:
        if time.monotonic() - began_s > FLOOD_DEADLINE_S:
            raise MeasureError(f"not within {FLOOD_DEADLINE_S:g} s: {count} frames")
        time.sleep(0.5)
    return read


def venues_of(system: System) -> list[dict[str, Any]]:
    """What feed_service shows of its connections."""
    with urllib.request.urlopen(f"{system.url('feed_service')}/v1/venues", timeout=FETCH_DEADLINE_S) as answer:
        feeds: list[dict[str, Any]] = json.load(answer)["feeds"]
    return feeds


def frames_read(system: System) -> int:
    """How many frames feed_service has read."""
    return sum(feed["frames"] for feed in venues_of(system))


def cpu_s(process: psutil.Process) -> float:
    """The processor seconds of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _listen(system: System, seconds: float) -> dict[str, Arrivals]:
    words = (system.redis_url(), system.url("feed_service"), str(seconds), *COINS)
    with helper_process("benchmarks.feed_listener", *words) as listener:
        try:
            output, _ = listener.communicate(timeout=seconds + LISTENER_MARGIN_S)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"the listener did not end within {LISTENER_MARGIN_S:g} s of its time") from error
    found: dict[str, Arrivals] = json.loads(output or '{"entries": {}, "quotes": {}}')
    return found


def delays_ms(steps: Sequence[tuple[str, str, int]], arrivals: Arrivals) -> list[float]:
    """From each step of a rising price to the first arrival of that price or a later one; only between arrivals."""
    found = []
    for coin, arrived in arrivals.items():
        prices = [Decimal(price) for price, _ in arrived]
        highest = list(_running_maximum(prices))
        for stepped, price, at_ns in steps:
            if stepped == coin and arrived and arrived[0][1] <= at_ns:
                index = bisect.bisect_left(highest, Decimal(price))
                if index < len(arrived):
                    found.append((arrived[index][1] - at_ns) / 1e6)
    return found


def _running_maximum(prices: Sequence[Decimal]) -> Iterator[Decimal]:
    highest = Decimal(0)
    for price in prices:
        highest = max(highest, price)
        yield highest
