"""`stream-memory`: what one WebSocket client that is told nothing just now costs the gateway.

Its own pages (USS), with all clients subscribed and at rest, less what it had with a few that had come and gone, by
client. What the kernel holds for a socket is not in it.
"""

from __future__ import annotations

import contextlib
import time

import psutil

from benchmarks.fanout_program import Server
from benchmarks.fanout_receiver import Order, open_stream
from benchmarks.fanout_servers import servers
from benchmarks.figure import Aim, Effort, Row
from cotacoes.up.supervision import processes

AIM = Aim(40.0)
CLIENTS = 1_000
FIRST = 50  # after which what is made once is there
OPEN_DEADLINE_S = 60.0


def measure(effort: Effort) -> list[Row]:
    return [Row("memory of an idle WebSocket client", "KB", [_run(effort.seconds) for _ in range(effort.runs)], AIM)]


def _run(settle_s: float) -> float:
    with servers([]) as (ours,):
        _with_clients(ours, FIRST, settle_s)
        before = _own_bytes(ours)
        return (_with_clients(ours, CLIENTS, settle_s) - before) / CLIENTS / 1000


def _with_clients(server: Server, clients: int, settle_s: float) -> int:
    """The server's own bytes while so many are subscribed."""
    steps = server.websocket.steps(None)
    order = Order.of(server.websocket.port, steps, clients=clients, sampled=0, stalled=0, quotes=0, deadline_s=0.0)
    due = time.monotonic() + OPEN_DEADLINE_S
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(open_stream(order, due)[0])
        time.sleep(settle_s)
        return _own_bytes(server)


def _own_bytes(server: Server) -> int:
    family = processes.family(server.pid)
    return sum(psutil.Process(one.pid).memory_full_info().uss for one in family)
