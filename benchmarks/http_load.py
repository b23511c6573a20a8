"""Requests per second of HTTP answers: a keep-alive load of raw sockets, bounded in connections and time.

The load must not be what limits: how busy it was is told with each round, in percent of the one core it can use. Near
100 the rates of fast servers come out too low, and their ratio to a slower one too near to 1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.figure import MeasureError

CONNECTIONS = 16


@dataclass(frozen=True)
class Target:
    """A route on a port of 127.0.0.1."""

    port: int
    path: str


@dataclass(frozen=True)
class Round:
    """Answers per second, and how busy the load was, in percent of a core."""

    rate: float
    load_busy: float


class _Asker(asyncio.Protocol):
    """Asks again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self.answers = 0
        self.failed = 0
        self._request = request
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < content_length(head):
            return
        self._buffer = b""
        self.answers += 1
        self.failed += not head.startswith(b"HTTP/1.1 200")
        assert self._transport is not None
        self._transport.write(self._request)


def content_length(head: bytes) -> int:
    """Of an answer's head; ValueError where it has none."""
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


async def ask_for(target: Target, seconds: float) -> Round:
    """One round; MeasureError unless every answer was a 200."""
    request = f"GET {target.path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    pairs = [
        await loop.create_connection(lambda: _Asker(request), "127.0.0.1", target.port) for _ in range(CONNECTIONS)
    ]
    answers_before = sum(asker.answers for _, asker in pairs)
    started, busy_before = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    elapsed_s, busy_s = time.perf_counter() - started, time.process_time() - busy_before
    answers = sum(asker.answers for _, asker in pairs) - answers_before
    failed = sum(asker.failed for _, asker in pairs)
    for transport, _ in pairs:
        transport.close()
    if failed or not answers:
        raise MeasureError(f"{failed} of {answers} answers of {target.path} were no 200")
    return Round(answers / elapsed_s, 100 * busy_s / elapsed_s)


async def compare(targets: Mapping[str, Target], *, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Several rounds over each target, in turns, each time from another one, so that noise meets all alike."""
    names = list(targets)
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            found[name].append(await ask_for(targets[name], seconds))
    return found
