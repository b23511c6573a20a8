"""`stalled`: what one client that reads nothing does to the other 99, at 1,000 quotes/s over WebSocket.

The figure is the p99 of the others with it by that without it, in alternating rounds through one gateway. Its receive
buffer is as small as the system gives, so that the gateway meets the stall within a second, not the kernel's megabytes.
"""

from __future__ import annotations

from benchmarks.fanout import WARM_S
from benchmarks.fanout_round import Batch, Load, Round, play, require_whole
from benchmarks.fanout_servers import servers
from benchmarks.figure import Aim, Effort, Row

AIM = Aim(1.2)
WITHOUT = Load(100, 1000)
WITH = Load(100, 1000, stalled=1)


def measure(effort: Effort) -> list[Row]:
    rounds: dict[Load, list[Round]] = {WITHOUT: [], WITH: []}
    with servers([]) as (ours,):
        next_seq = 1
        for number in range(-1, effort.runs):
            for load in (WITHOUT, WITH) if number % 2 else (WITH, WITHOUT):
                batch = Batch.make(next_seq, effort.seconds if number >= 0 else min(WARM_S, effort.seconds), load.rate)
                next_seq += len(batch.quotes)
                done = play(ours, load, batch)
                require_whole(done)
                if number >= 0:
                    rounds[load].append(done)
    p99 = {load: [one.latency(99) for one in done] for load, done in rounds.items()}
    return [
        Row(
            "stalled",
            "of p99 without it",
            [one / other for one, other in zip(p99[WITH], p99[WITHOUT], strict=True)],
            AIM,
        ),
        Row("stalled p99 of the others", "ms", p99[WITH]),
        Row("stalled p99 without it", "ms", p99[WITHOUT]),
    ]
