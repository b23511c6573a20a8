"""`feed-peers`: processor time from a frame to a stored price, beside the pipelines of ccxt.pro and cryptofeed.

All follow two coins at Binance and OKX, the venues whose present tickers cryptofeed reads, on the same server: at 700
frames a second, and as fast as each reads. Ours is feed_service and quote_service: one agreed price of a coin in 50 ms,
stored in the log with an fsync, then sent to a shard and to Redis. It also follows Kraken and Bitstamp, one frame a
second of each symbol, for the rate of USDT. The peers' programs store each ticker that they hand over in SQLite, with
one commit in 50 ms. So ours stores fewer prices, and the rows of feed_service alone leave storing out.

ccxt.pro comes from the lock file. cryptofeed has no wheel of its present releases, and they need other releases of
what the system uses: `COTACOES_BENCH_CRYPTOFEED` names an interpreter that has it, else it is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.feed import FETCH_DEADLINE_S, FRAMES_PER_S, cpu_s, frames_read, venue_server
from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.helper_process import helper_process
from benchmarks.http_ratio import ratios
from benchmarks.idle import cpu_seconds
from benchmarks.live import read_metrics
from benchmarks.system import System, running

CCXT_AIM = Aim(5.0, is_floor=True)
CRYPTOFEED_AIM = Aim(2.0, is_floor=True)
FOLLOWED = ("binance", "okx")
RATED = ("kraken", "bitstamp")
SERVER_FRAMES_PER_S = 3 * FRAMES_PER_S  # for six venues
CRYPTOFEED = os.environ.get("COTACOES_BENCH_CRYPTOFEED", "")
SETTLE_S = 5.0
PEER_MARGIN_S = 40.0
SERVERS = ("shard1", "shard2", "redis")


@dataclass(frozen=True)
class Cost:
    """Of a run: frames read, prices stored, and processor seconds, also those of parts of it."""

    frames: float
    stored: float
    cpu_s: float
    parts_s: Mapping[str, float]

    @property
    def us(self) -> float:
        """Microseconds a frame; 0 if no frame was read."""
        return self.cpu_s / self.frames * 1e6 if self.frames else 0.0


def measure(effort: Effort) -> list[Row]:
    rows = []
    for mode, name in (("pace", f"feed-peers at {FRAMES_PER_S:g} frames/s"), ("flood", "feed-peers in a flood")):
        costs: dict[str, list[Cost]] = {}
        for _ in range(effort.runs):
            for program in ("ours", *peers()):
                cost = _ours(mode, effort.seconds) if program == "ours" else _peer(program, mode, effort.seconds)
                costs.setdefault(program, []).append(cost)
        rows += _rows(name, costs)
    return rows


def peers() -> Mapping[str, str]:
    """The interpreter of each peer that is installed."""
    return {"ccxt": sys.executable, **({"cryptofeed": CRYPTOFEED} if CRYPTOFEED else {})}


def _rows(name: str, costs: Mapping[str, list[Cost]]) -> list[Row]:
    ours = costs["ours"]
    us = {program: [cost.us for cost in found] for program, found in costs.items()}
    us["feed_service alone"] = [cost.parts_s["feed_service"] / cost.frames * 1e6 for cost in ours]
    rows = []
    for peer, aim in (("ccxt", CCXT_AIM), ("cryptofeed", CRYPTOFEED_AIM)):
        if peer in us and all(us[peer]):
            rows.append(Row(f"{name}, of {peer}", f"times {peer}", ratios(us[peer], us["ours"]), aim))
            rows.append(Row(f"{name}, feed alone", f"times {peer}", ratios(us[peer], us["feed_service alone"])))
    rows += [Row(f"{name} {program}", "us a frame", found) for program, found in us.items()]
    rows += [Row(f"{name} {one}", "frames/s a core", [1e6 / x if x else 0.0 for x in us[one]]) for one in us]
    rows += [Row(f"{name} {one} stored", "prices", [cost.stored for cost in found]) for one, found in costs.items()]
    servers = [sum(cost.parts_s[part] for part in SERVERS) / cost.frames * 1e6 for cost in ours]
    return [*rows, Row(f"{name} shards and Redis, besides", "us a frame", servers)]


def _ours(mode: str, seconds: float) -> Cost:
    modes = dict.fromkeys(FOLLOWED, mode) | dict.fromkeys(RATED, "slow")
    with venue_server(SERVER_FRAMES_PER_S) as server, running(**server.settings(modes)) as system:
        time.sleep(min(SETTLE_S, seconds))
        before = _counted(system)
        time.sleep(seconds)
        after = _counted(system)
    spent = {name: after[name] - before[name] for name in after}
    return Cost(spent.pop("frames"), spent.pop("stored"), spent["feed_service"] + spent["quote_service"], spent)


def _counted(system: System) -> dict[str, float]:
    pids = system.pids()
    services = {name: cpu_s(psutil.Process(pids[name])) for name in ("feed_service", "quote_service")}
    servers = cpu_seconds({name: pids[name] for name in SERVERS})
    with urllib.request.urlopen(f"{system.url('quote_service')}/metrics", timeout=FETCH_DEADLINE_S) as answer:
        stored = sum(read_metrics(answer.read().decode(), "cotacoes_quotes_delivered_total"))
    return {"frames": float(frames_read(system)), "stored": stored, **services, **servers}


def _peer(peer: str, mode: str, seconds: float) -> Cost:
    with venue_server(SERVER_FRAMES_PER_S) as server, tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        urls = [f"{venue}={url_for(peer, venue, f'ws://127.0.0.1:{server.port}/{mode}/{venue}')}" for venue in FOLLOWED]
        words = (f"benchmarks.peers.{peer}_pipeline", str(Path(place) / "prices"), str(seconds), *urls)
        with helper_process(*words, python=peers()[peer], is_quiet=True) as program:
            try:
                output, _ = program.communicate(timeout=seconds + PEER_MARGIN_S)
            except subprocess.TimeoutExpired:
                return Cost(0.0, 0.0, 0.0, {})  # it reads nothing any more
    if not output:
        raise MeasureError(f"the program of {peer} failed")
    found = json.loads(output)
    return Cost(found.get("received", 0.0), found.get("stored", 0.0), found["cpu_s"], {})


def url_for(peer: str, venue: str, url: str) -> str:
    """The address as a peer's program takes it: some add to its path, which a query keeps as it is."""
    if peer == "cryptofeed":
        return url if venue == "binance" else f"{url}/stream"
    return f"{url}/stream?v2" if venue == "kraken" else f"{url}/stream?"
