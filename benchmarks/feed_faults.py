"""`feed-faults`: what faults of exchanges and databases cost, beside ccxt.pro and cryptofeed at the same exchanges.

The exchanges are simulated by external_service, which speaks their protocols and has the faults on request; the peers
follow the same streams with the programs of `feed-peers`. A fault is noticed when the connection is given up. What did
not happen within the time that was watched is given as that time, so it is a lower bound; cryptofeed's watcher, which
is set to 10 s here, counts any message. ccxt.pro is watched at five venues, since its order book of Bitstamp begins
with a call over HTTP, and cryptofeed at the two whose present tickers it reads.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.feed import FETCH_DEADLINE_S, VENUES, venues_of
from benchmarks.feed_peers import peers, url_for
from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.helper_process import helper_process
from benchmarks.live import read_metrics
from benchmarks.system import System, running
from cotacoes.up.supervision import processes

STALL_AIM = Aim(12.0)  # the limit of 10 s, more for a venue whose usual gap is long, and 0.5 s
OPENINGS_AIM = Aim(10.0)
CUT_AIM = Aim(1.5)
LOST_AIM = Aim(0.0)
WATCHED: Mapping[str, Sequence[str]] = {
    "ccxt": ("binance", "coinbase", "kraken", "okx", "bybit"),
    "cryptofeed": ("binance", "okx"),
}
TOKEN = "measures-the-faults-of-exchanges"
AT_ONCE = 2  # venues that stall together: the rest shows that the market goes on
SETTLE_S = 12.0  # until a connection has been steady for 10 s
DROPPED_S = 60.0
PEERS_DROPPED_S = 10.0
KILLED_S = 10.0
KILL_EVERY_S = 0.2
HEAL_S = 90.0
LOOK_S = 0.02


class PeerLines:
    """What a peer's program has said: venue, kind and time of each line."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self.lines: list[tuple[str, str, float]] = []
        threading.Thread(target=self._read, name="a peer's lines", daemon=True).start()

    def first(self, venue: str, since_s: float, *kinds: str) -> float | None:
        """Seconds until the first such line after a moment; None if there is none."""
        found = (at - since_s for named, kind, at in self.lines if named == venue and kind in kinds and at > since_s)
        return next(found, None)

    def count(self, venue: str, since_s: float, until_s: float, *kinds: str) -> int:
        """How many such lines there are between two moments."""
        return sum(venue == named and kind in kinds and since_s < at < until_s for named, kind, at in self.lines)

    def _read(self) -> None:
        assert self._program.stdout is not None
        with contextlib.suppress(ValueError):  # the pipe is closed
            for line in self._program.stdout:
                self.lines.append(tuple(json.loads(line)))


def measure(effort: Effort) -> list[Row]:
    rounds = [VENUES[first : first + AT_ONCE] for first in range(0, len(VENUES), AT_ONCE)]
    with running(SOURCE="venues", SOURCE_MODE="tape", ADMIN_TOKEN=TOKEN) as system, contextlib.ExitStack() as stack:
        watched = {peer: stack.enter_context(_watching(system, peer)) for peer in peers()}
        _wait(lambda: all(feed["state"] == "live" for feed in venues_of(system)), "all venues live")
        time.sleep(min(SETTLE_S, effort.seconds))
        rows = [_killed(system, min(KILLED_S, effort.seconds))]
        rows += _cuts(system, watched, effort.runs)
        rows += _stalls(system, watched, rounds if effort.runs > 1 else rounds[:1], effort.seconds)
        rows += _drops(system, watched, min(DROPPED_S, 4 * effort.seconds))
    return rows


@contextlib.contextmanager
def _watching(system: System, peer: str) -> Iterator[PeerLines]:
    base = f"ws://127.0.0.1:{system.port('external_service')}/venues"
    urls = [f"{venue}={url_for(peer, venue, f'{base}/{venue}')}" for venue in WATCHED[peer]]
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        words = (f"benchmarks.peers.{peer}_pipeline", str(Path(place) / "prices"), "0", *urls)
        with helper_process(*words, python=peers()[peer], is_quiet=True) as program:
            lines = PeerLines(program)
            try:
                _wait(lambda: all(lines.first(one, 0.0, "priced") for one in WATCHED[peer]), f"prices of {peer}")
                yield lines
            finally:
                program.kill()  # its pipe can be closed only when nobody waits for a line


def _cuts(system: System, watched: Mapping[str, PeerLines], runs: int) -> list[Row]:
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for venue in VENUES:
            openings, began_s = _feed(system, venue)["openings"], time.monotonic()
            _fault(system, venue, cut_after_s=0, for_s=0.05)
            _wait(lambda v=venue, n=openings: _is_back(system, v, n), f"{venue} live again")  # type: ignore[misc]
            found.setdefault("ours", []).append(time.monotonic() - began_s)
            time.sleep(1.0)
            for peer, lines in watched.items():
                if venue in WATCHED[peer]:
                    found.setdefault(peer, []).append(lines.first(venue, began_s, "priced") or 1.0)
            time.sleep(min(SETTLE_S, 2.0))
    return _rows("cut to live again", "s", found, CUT_AIM)


def _is_back(system: System, venue: str, openings: int) -> bool:
    feed = _feed(system, venue)
    return bool(feed["openings"] > openings and feed["state"] == "live")


def _stalls(
    system: System, watched: Mapping[str, PeerLines], rounds: Sequence[Sequence[str]], seconds: float
) -> list[Row]:
    """From the stall to the end of the connection; heartbeats go on."""
    found: dict[str, list[float]] = {"ours": []}
    for venues in rounds:
        closed = {venue: _feed(system, venue)["closed_at"] for venue in venues}
        began_s, ours = time.monotonic(), dict.fromkeys(venues, seconds)
        for venue in venues:
            _fault(system, venue, stall=True, for_s=seconds)
        while (now_s := time.monotonic() - began_s) < seconds:
            for venue in venues:
                feed = _feed(system, venue)
                if ours[venue] == seconds and feed["closed_at"] != closed[venue] and feed["closed_reason"] == "stalled":
                    ours[venue] = now_s
            time.sleep(LOOK_S)
        found["ours"] += ours.values()
        for peer, lines in watched.items():
            seen = [lines.first(one, began_s, "opened", "failed") for one in venues if one in WATCHED[peer]]
            found.setdefault(peer, []).extend(min(seconds, one or seconds) for one in seen)
        time.sleep(min(SETTLE_S, seconds))
    return _rows("stall noticed", f"s, of {seconds:g} watched", found, STALL_AIM)


def _drops(system: System, watched: Mapping[str, PeerLines], seconds: float) -> list[Row]:
    """Openings at a venue that accepts each connection and cuts it at once."""
    before = {feed["venue"]: feed["openings"] for feed in venues_of(system)}
    began_s = time.monotonic()
    for venue in VENUES:
        _fault(system, venue, accept_then_drop=True, for_s=seconds)
    time.sleep(seconds - (time.monotonic() - began_s))
    found = {"ours": [float(feed["openings"] - before[feed["venue"]]) for feed in venues_of(system)]}
    until_s = began_s + min(PEERS_DROPPED_S, seconds)
    rows = [Row("feed-faults openings at a venue that drops", f"in {seconds:g} s", found["ours"], OPENINGS_AIM)]
    for peer, lines in watched.items():
        counts = [float(lines.count(venue, began_s, until_s, "opened")) for venue in WATCHED[peer]]
        rows.append(Row(f"feed-faults openings of {peer}", f"in {min(PEERS_DROPPED_S, seconds):g} s", counts))
    return rows


def _killed(system: System, seconds: float) -> Row:
    """Quotes in the log that no shard has in the end, after shard1 was killed again and again for some seconds."""
    _wait(lambda: _pending(system) == 0, "all quotes in the shards")
    recorded, delivered = _quotes(system)
    began_s = time.monotonic()
    while time.monotonic() - began_s < seconds:
        pid: int | None = system.pids()["shard1"]  # None while it waits for its next start
        if pid is not None:
            processes.kill(processes.family(pid))
        time.sleep(KILL_EVERY_S)
    _wait(lambda: _pending(system) == 0, "all quotes in the shards again")
    now_recorded, now_delivered = _quotes(system)
    if now_recorded - recorded < seconds:
        raise MeasureError("no quotes came while shard1 was killed")
    lost = max(0.0, (now_recorded - recorded) - (now_delivered - delivered))
    return Row(f"feed-faults quotes lost, PostgreSQL killed for {seconds:g} s", "quotes", [lost], LOST_AIM)


def _quotes(system: System) -> tuple[float, float]:
    """Quotes committed to the log, and those that a shard has acknowledged."""
    names = "cotacoes_quotes_recorded_total", "cotacoes_quotes_delivered_total"
    text = _metrics(system)
    recorded, delivered = (sum(read_metrics(text, name)) for name in names)
    return recorded, delivered


def _pending(system: System) -> float:
    return sum(read_metrics(_metrics(system), "cotacoes_quotes_pending"))


def _metrics(system: System) -> str:
    with urllib.request.urlopen(f"{system.url('quote_service')}/metrics", timeout=FETCH_DEADLINE_S) as answer:
        text: str = answer.read().decode()
    return text


def _feed(system: System, venue: str) -> dict[str, Any]:
    return next(feed for feed in venues_of(system) if feed["venue"] == venue)


def _fault(system: System, venue: str, **fault: object) -> None:
    request = urllib.request.Request(
        f"{system.url('external_service')}/venues/{venue}/faults",
        data=json.dumps(fault).encode(),
        method="PUT",
        headers={"content-type": "application/json", "authorization": f"Bearer {TOKEN}"},
    )
    urllib.request.urlopen(request, timeout=FETCH_DEADLINE_S).close()


def _rows(name: str, unit: str, found: Mapping[str, Sequence[float]], aim: Aim) -> list[Row]:
    first = Row(f"feed-faults {name}", unit, found["ours"], aim)
    worst = Row(f"feed-faults {name}, the worst", unit, [max(found["ours"])], aim)
    return [first, worst, *(Row(f"feed-faults {name} {peer}", unit, found[peer]) for peer in found if peer != "ours")]


def _wait(is_done: Callable[[], object], what: str) -> None:
    due_s = time.monotonic() + HEAL_S
    while not is_done():
        if time.monotonic() > due_s:
            raise MeasureError(f"not within {HEAL_S:g} s: {what}")
        time.sleep(LOOK_S)
