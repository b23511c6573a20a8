"""The clients of the `fanout` figures: they count quotes on raw sockets, cheaply and alike for every server.

    python -m benchmarks.fanout_receiver ORDER      ─▶ `ready`, then what came, as JSON

A process of its own, which shares two cores with the server: what it costs must not be what limits, so no frame and no
event is parsed. A quote shows by a text that each has once, in WebSocket frames, in SSE and in NATS' MSG alike, also
where a read ends within it. Of a few clients every quote is read further, to its `seq` and the time of its arrival.
Between two rounds of reads it sleeps for 1 ms, which counts in every latency: so no server pays for waking it, and one
that writes each message by itself costs it fewer reads.

The clients connect one after the other; a 503 is waited out, as its `Retry-After` says. WebSocket pings are answered. A
`stalled` client opens its stream and never reads again, from a receive buffer as small as the system gives.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.fanout_wire import PONG, Steps, frame

MARK = b'"type":"quote"'
_LAP = len(MARK) - 1
_SEQ = re.compile(rb'"seq":(\d+),"observed_at"')  # in a quote alone: a heartbeat of ours has no time of observation
_PING = b"\x89"  # nowhere else in a stream of ASCII, but for a length; a pong that nobody asked for is allowed
READ_BYTES = 65_536  # of twice as much each read would cost six times as long: malloc then asks the kernel each time
OPEN_DEADLINE_S = 60.0  # of all clients: a gateway lets in 200 a second
POLL_S = 0.1
PAUSE_S = 0.001


@dataclass(frozen=True)
class Order:
    """What to open and to wait for. `deadline_s` begins once all clients are ready."""

    port: int
    steps: list[tuple[str, str]]  # as Latin-1
    clients: int
    sampled: int
    stalled: int
    quotes: int
    deadline_s: float

    @classmethod
    def of(cls, port: int, steps: Steps, **numbers: Any) -> Order:
        return cls(port, [(sent.decode("latin-1"), awaited.decode("latin-1")) for sent, awaited in steps], **numbers)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class ReceiverReport:
    """What came: quotes of all clients, most of one, clients closed, the end, how busy this process was (of a core).

    `arrivals` has for each sampled client `seq` and time of each quote; times are monotonic nanoseconds.
    """

    quotes: int
    most: int
    closed: int
    ended_ns: int
    busy: float
    arrivals: list[list[tuple[int, int]]]


class Counter:
    """Counts the quotes of one stream, whatever its reads are cut into."""

    def __init__(self) -> None:
        self.quotes = 0
        self._tail = b""

    def take(self, data: bytes, _: int) -> None:
        text = self._tail + data
        self.quotes += text.count(MARK)
        self._tail = text[-_LAP:]  # too short to hold a mark that was counted


class Sampler(Counter):
    """Notes `seq` and arrival of each as well."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: list[tuple[int, int]] = []
        self._rest = b""

    def take(self, data: bytes, now: int) -> None:
        super().take(data, now)
        text, end = self._rest + data, 0
        for found in _SEQ.finditer(text):
            self.arrivals.append((int(found[1]), now))
            end = found.end()
        self._rest = text[end:]


def spread(some: int, of: int) -> set[int]:
    """So many numbers below `of`, the first and the last among them: a server may serve its oldest clients first."""
    return {number * (of - 1) // max(1, some - 1) for number in range(some)}


def pong_for(data: bytes) -> bytes | None:
    """The answer to the first ping in what was read, None where there is none whole."""
    at = data.find(_PING)
    if at < 0 or len(data) < at + 2 or data[at + 1] > 125:
        return None
    payload = data[at + 2 : at + 2 + data[at + 1]]
    return frame(PONG, payload) if len(payload) == data[at + 1] else None


def open_stream(order: Order, due: float, *, is_stalled: bool = False) -> tuple[socket.socket, bytes]:
    """A stream whose server understood all steps, and what came after the last already; OSError where it refused."""
    while True:
        stream = socket.socket()
        if is_stalled:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        stream.settimeout(max(0.1, due - time.monotonic()))
        stream.connect(("127.0.0.1", order.port))
        said = b""
        for sent, awaited in order.steps:
            stream.sendall(sent.encode("latin-1"))
            while (end := said.find(awaited.encode("latin-1"))) < 0:
                if not (more := stream.recv(4096)):
                    raise OSError(f"a client was turned away after {said[-200:]!r}")
                said += more
            if said.startswith(b"HTTP/") and said[9:12] not in (b"101", b"200"):
                break
            said = said[end + len(awaited) :]
        else:
            return stream, said
        stream.close()
        if said[9:12] != b"503" or time.monotonic() > due:
            raise OSError(f"a client was refused: {said[:200]!r}")
        time.sleep(retry_after_s(said))


def retry_after_s(head: bytes) -> float:
    """What a refusal says, a second where it says nothing."""
    found = re.search(rb"retry-after: (\d+)", head.lower())
    return float(found[1]) if found else 1.0


def receive(order: Order, streams: Sequence[tuple[socket.socket, Counter]]) -> int:
    """Read until each has all quotes or the time is over; how many were closed."""
    due = time.monotonic() + order.deadline_s
    poll = select.epoll()
    by_number = {stream.fileno(): (stream, counter) for stream, counter in streams}
    for number, (stream, _) in by_number.items():
        stream.setblocking(False)
        poll.register(number, select.EPOLLIN)
    unfinished, closed = len(by_number), 0
    while unfinished and time.monotonic() < due:
        time.sleep(PAUSE_S)
        for number, _ in poll.poll(POLL_S):
            stream, counter = by_number[number]
            data = b""
            with contextlib.suppress(ConnectionError):  # as good as its end
                data = stream.recv(READ_BYTES)
            if not data:
                poll.unregister(number)
                closed += 1
                unfinished -= counter.quotes < order.quotes
                continue
            was_unfinished = counter.quotes < order.quotes
            counter.take(data, time.monotonic_ns())
            unfinished -= was_unfinished and counter.quotes >= order.quotes
            if _PING in data and (pong := pong_for(data)) is not None:
                with contextlib.suppress(OSError):
                    stream.send(pong)
    return closed


def main(text: str) -> None:
    """Open, say so, count, tell."""
    order = Order(**json.loads(text))
    due = time.monotonic() + OPEN_DEADLINE_S
    stalled = [open_stream(order, due, is_stalled=True)[0] for _ in range(order.stalled)]
    streams: list[tuple[socket.socket, Counter]] = []
    readers = order.clients - order.stalled
    sampled = spread(order.sampled, readers)
    for number in range(readers):
        stream, said = open_stream(order, due)
        counter = Sampler() if number in sampled else Counter()
        counter.take(said, time.monotonic_ns())
        streams.append((stream, counter))
    gc.freeze()
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    started, busy = time.monotonic(), time.process_time()
    closed = receive(order, streams)
    elapsed_s, busy_s = time.monotonic() - started, time.process_time() - busy
    counts = [counter.quotes for _, counter in streams]
    arrivals = [counter.arrivals for _, counter in streams if isinstance(counter, Sampler)]
    report = ReceiverReport(sum(counts), max(counts), closed, time.monotonic_ns(), busy_s / elapsed_s, arrivals)
    sys.stdout.write(json.dumps(asdict(report)))
    for stream in [*stalled, *(stream for stream, _ in streams)]:
        stream.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"the clients of a figure: {error}")
