"""`fanout`, `fanout-wide`, `fanout-sse`: what one gateway process needs to send every quote to every client.

    figure        clients  quotes/s  over       beside
    fanout            100     2,000  WebSocket  nginx nchan, nats, Node ws
    fanout-wide     1,000       100  WebSocket  Node ws
    fanout-sse        100       500  SSE        nginx nchan

Absolute speed tells more of the machine than of the code, so the aims are ratios: processor time of the server a
delivery, beside a peer that sends the same bytes at the same times to the same clients, in alternating rounds. How
each is fed is told in `fanout_servers.py`, how a round goes in `fanout_round.py`. Ours must deliver all; a peer that
does not keep up shows it in its rate and its latency, and its processor time is shared among what it delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.fanout_program import Server
from benchmarks.fanout_round import Batch, Load, Round, play, require_whole
from benchmarks.fanout_servers import servers
from benchmarks.figure import Aim, Effort, Row

OURS = "ours"
WARM_S = 1.0  # of an uncounted round: Node compiles, caches fill
RATE_SHARE_MIN = 0.99  # of the deliveries/s that are meant, until the last one is there


@dataclass(frozen=True)
class Comparison:
    """A load, the most that ours may need beside each peer, and its p99 in ms where that has an aim."""

    name: str
    load: Load
    peers: Mapping[str, float]
    p99_ms: float | None = None


FANOUT = Comparison("fanout", Load(100, 2000), {"nginx nchan": 0.8, "nats": 0.5, "Node ws": 0.35}, p99_ms=15.0)
WIDE = Comparison("fanout-wide", Load(1000, 100), {"Node ws": 1.0}, p99_ms=60.0)
EVENTS = Comparison("fanout-sse", Load(100, 500, events=True), {"nginx nchan": 1.0})


def measure(effort: Effort) -> list[Row]:
    return compare(FANOUT, effort)


def measure_wide(effort: Effort) -> list[Row]:
    return compare(WIDE, effort)


def measure_events(effort: Effort) -> list[Row]:
    return compare(EVENTS, effort)


def compare(comparison: Comparison, effort: Effort) -> list[Row]:
    load = comparison.load
    with servers(list(comparison.peers)) as found:
        rounds: dict[str, list[Round]] = {server.name: [] for server in found}
        next_seq = 1
        for number in range(-1, effort.runs):
            batch = Batch.make(next_seq, effort.seconds if number >= 0 else min(WARM_S, effort.seconds), load.rate)
            next_seq += len(batch.quotes)
            for server in in_turn(found, number):
                done = play(server, load, batch)
                if server.name == OURS:
                    require_whole(done)
                if number >= 0:
                    rounds[server.name].append(done)
    return rows_of(comparison, rounds)


def in_turn(found: Sequence[Server], number: int) -> list[Server]:
    """All of them, each time from another one, so that noise meets all alike."""
    first = number % len(found)
    return [*found[first:], *found[:first]]


def rows_of(comparison: Comparison, rounds: Mapping[str, Sequence[Round]]) -> list[Row]:
    """The ratios to the peers that were there, what ours reached, and then the details of each."""
    name, load, ours = comparison.name, comparison.load, rounds[OURS]
    turns = list(zip(*rounds.values(), strict=True))
    rate_aim = Aim(RATE_SHARE_MIN * load.clients * load.rate, is_floor=True)
    p99_aim = None if comparison.p99_ms is None else Aim(comparison.p99_ms)
    return [
        *(
            Row(f"{name} CPU beside {peer}", "of its", beside(ours, rounds[peer]), Aim(most))
            for peer, most in comparison.peers.items()
            if peer in rounds
        ),
        Row(f"{name} rate", "deliveries/s", [one.rate for one in ours], rate_aim),
        Row(f"{name} p99", "ms", [one.latency(99) for one in ours], p99_aim),
        *(Row(f"{name} CPU of {who}", "µs/delivery", [one.micros for one in done]) for who, done in rounds.items()),
        *(
            row
            for who, done in rounds.items()
            if who != OURS
            for row in (
                Row(f"{name} rate of {who}", "deliveries/s", [one.rate for one in done]),
                Row(f"{name} p99 of {who}", "ms", [one.latency(99) for one in done]),
            )
        ),
        Row(f"{name} clients, at most", "% of a core", [max(one.busy for one in turn) for turn in turns]),
        Row(f"{name} late, at most", "% of messages", [100 * max(one.late for one in turn) for turn in turns]),
    ]


def beside(ours: Sequence[Round], peer: Sequence[Round]) -> list[float]:
    """Processor time a delivery as a share of the peer's, round by round."""
    return [one.micros / other.micros for one, other in zip(ours, peer, strict=True)]
