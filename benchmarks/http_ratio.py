"""`http`: requests a second of GET /cotacao_atual/bitcoin, beside the least that the same server can answer.

A rate tells more of the machine than of the code, so the figure is the ratio to a bare ASGI function, taken in
alternating rounds. A plain FastAPI handler is asked as well, as what one would have without any effort.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.helper_process import helper_process
from benchmarks.http_load import Target, compare
from benchmarks.system import running

AIM = Aim(0.5, is_floor=True)
PATH = "/cotacao_atual/bitcoin"
READY_DEADLINE_S = 10.0
READY_POLL_S = 0.05


def measure(effort: Effort) -> list[Row]:
    with running(FAILURE_RATE="0") as system, _peer("bare") as bare, _peer("fastapi") as fastapi:
        targets = {
            "ours": Target(system.port("quote_service"), PATH),
            "bare": Target(bare, PATH),
            "fastapi": Target(fastapi, PATH),
        }
        found = asyncio.run(compare(targets, rounds=effort.runs, seconds=effort.seconds))
    rates = {name: [one.rate for one in rounds] for name, rounds in found.items()}
    busy = [max(one.load_busy for one in rounds) for rounds in zip(*found.values(), strict=True)]
    return [
        Row("http", "of bare ASGI", ratios(rates["ours"], rates["bare"]), AIM),
        Row("http FastAPI", "of bare ASGI", ratios(rates["fastapi"], rates["bare"])),
        *(Row(f"http {name}", "requests/s", found) for name, found in rates.items()),
        Row("http load, at most", "% of a core", busy),
    ]


def ratios(rates: list[float], of: list[float]) -> list[float]:
    """Round by round."""
    return [rate / other for rate, other in zip(rates, of, strict=True)]


@contextlib.contextmanager
def _peer(kind: str) -> Iterator[int]:
    """The port of a peer that answers."""
    with helper_process("benchmarks.peers.http", kind) as peer:
        assert peer.stdout is not None
        said = peer.stdout.readline()
        if not said:
            raise MeasureError(f"the peer {kind} did not start")
        port = int(said)
        _wait_answers(port)
        yield port


def _wait_answers(port: int) -> None:
    due = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < due:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), READY_DEADLINE_S).close()
            return
        time.sleep(READY_POLL_S)
    raise MeasureError(f"nobody listens on port {port} after {READY_DEADLINE_S:g} s")
