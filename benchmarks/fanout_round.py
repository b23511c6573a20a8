"""One round of a `fanout` figure: quotes at a steady pace through one server to all clients, counted and timed.

The pace is kept from outside (open loop): each message is made beforehand and has a due time; its latency counts from
there, whether or not the publisher was late. Where it fell behind in a round of ours, another load was measured, and
there is no figure. In a peer's round, which may need both cores, it shows in a row: late messages come in bunches, and
bunches cost a server less.
Processor time is that of the server from before the first message until the last delivery, as the kernel tells it in
ticks of 10 ms. All clocks are the one monotonic clock of this machine.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import fanout_wire as wire
from benchmarks.fanout_history import beat_after, make_quotes
from benchmarks.fanout_program import Server
from benchmarks.fanout_receiver import Order, ReceiverReport
from benchmarks.figure import MeasureError, percentile
from benchmarks.helper_process import helper_process
from cotacoes.model.live_message import encode_quote
from cotacoes.model.quote import Position, Quote

SAMPLED = 5  # clients of which every quote is timed
LEAD_S = 0.5  # from the last client's opening to the first message
DRAIN_S = 60.0  # for what is still on its way after the last message: Node needs several times as long as it is fed
ANSWER_DEADLINE_S = 30.0
LATE_NS = 10_000_000
LATE_SHARE_MAX = 0.05
CHECK_EVERY = 64  # messages between two looks at its replies
REPLY_BYTES = 65_536


@dataclass(frozen=True)
class Load:
    """`clients` get `rate` quotes a second; `stalled` of them read nothing. `events` is SSE, else it is WebSocket."""

    clients: int
    rate: float
    events: bool = False
    stalled: int = 0

    @property
    def readers(self) -> int:
        return self.clients - self.stalled


@dataclass(frozen=True)
class Round:
    """What one server did: deliveries made and meant, and how many clients it closed.

    `micros` is its processor time a delivery, `latencies` are in ms, of the sampled clients, `rate` is in deliveries a
    second until the last one, `busy` is of the receiver, in percent of a core, `late` the share of messages
    that were sent too late.
    """

    deliveries: int
    meant: int
    closed: int
    micros: float
    latencies: Sequence[float]
    rate: float
    busy: float
    late: float

    def latency(self, percent: float) -> float:
        return percentile(self.latencies, percent)


@dataclass(frozen=True)
class Batch:
    """The quotes of a round, the same for every server, and the position before them."""

    quotes: Sequence[Quote]
    messages: Sequence[bytes]
    rate: float

    @classmethod
    def make(cls, first_seq: int, seconds: float, rate: float) -> Batch:
        quotes = make_quotes(first_seq, max(1, int(seconds * rate)), rate)
        return cls(quotes, [encode_quote(quote) for quote in quotes], rate)

    @property
    def before(self) -> Position | None:
        first = self.quotes[0]
        return Position(first.epoch, first.seq - 1) if first.seq > 1 else None


def play(server: Server, load: Load, batch: Batch) -> Round:
    """MeasureError where a client does not get in, or gets other quotes than were published."""
    egress = server.events if load.events else server.websocket
    assert egress is not None
    order = Order.of(
        egress.port,
        egress.steps(batch.before),
        clients=load.clients,
        sampled=min(SAMPLED, load.readers),
        stalled=load.stalled,
        quotes=len(batch.quotes),
        deadline_s=LEAD_S + len(batch.quotes) / load.rate + DRAIN_S,
    )
    with helper_process("benchmarks.fanout_receiver", order.as_json()) as receiver, _feeding(server.ingress) as feed:
        assert receiver.stdout is not None
        if receiver.stdout.readline() != "ready\n":
            raise MeasureError(f"not all clients of {server.name} got their stream")
        cpu_before, start_ns = server.cpu_s(), time.monotonic_ns() + int(LEAD_S * 1e9)
        wires = _wires(server, batch, start_ns)
        if server.history is not None:
            server.history.add(batch.quotes, start_ns, load.rate)
        late_ns = publish(feed.send, wires, start_ns=start_ns, rate=load.rate)
        feed.finish()
        try:
            output, _ = receiver.communicate(timeout=DRAIN_S + ANSWER_DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"the clients of {server.name} did not end") from error
        cpu_s = server.cpu_s() - cpu_before
    if not output:
        raise MeasureError(f"the clients of {server.name} failed")
    report, late = ReceiverReport(**json.loads(output)), late_share(late_ns)
    return read_round(report, server.name, load, batch, start_ns=start_ns, cpu_s=cpu_s, late=late)


def read_round(
    report: ReceiverReport, name: str, load: Load, batch: Batch, *, start_ns: int, cpu_s: float, late: float
) -> Round:
    """What came, as a round. MeasureError where a client had a quote twice, or out of order, or none had any."""
    first_seq, interval_ns = batch.quotes[0].seq, 1e9 / load.rate
    for client in report.arrivals:
        if any(seq <= before for (before, _), (seq, _) in itertools.pairwise(client)):
            raise MeasureError(f"a client of {name} had quotes twice or out of order")
    if report.most > len(batch.quotes):
        raise MeasureError(f"a client of {name} had more quotes than were published")
    latencies = [
        (arrived_ns - start_ns - (seq - first_seq) * interval_ns) / 1e6
        for client in report.arrivals
        for seq, arrived_ns in client
    ]
    if not latencies:
        raise MeasureError(f"no client of {name} had a quote")
    return Round(
        report.quotes,
        load.readers * len(batch.quotes),
        report.closed,
        micros=1e6 * cpu_s / report.quotes,
        latencies=latencies,
        rate=1e9 * report.quotes / (report.ended_ns - start_ns),
        busy=100 * report.busy,
        late=late,
    )


def publish(
    send: Callable[[bytes], None],
    messages: Sequence[bytes],
    *,
    start_ns: int,
    rate: float,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> list[int]:
    """Send each at its time, or as soon as may be after it; by how many ns each was late once it was sent."""
    late_ns = []
    for number, message in enumerate(messages):
        due_ns = start_ns + int(number * 1e9 / rate)
        if (early_ns := due_ns - clock_ns()) > 0:
            sleep(early_ns / 1e9)
        send(message)
        late_ns.append(clock_ns() - due_ns)
    return late_ns


def late_share(late_ns: Sequence[int]) -> float:
    """Of the messages, how many were sent too late."""
    return sum(late > LATE_NS for late in late_ns) / len(late_ns)


def require_whole(done: Round) -> None:
    """MeasureError where a delivery is missing, or the pace was not kept."""
    if done.deliveries != done.meant:
        raise MeasureError(f"{done.deliveries} of {done.meant} deliveries arrived, {done.closed} clients were closed")
    if done.late > LATE_SHARE_MAX:
        raise MeasureError(f"{100 * done.late:.0f} % of the messages were sent more than {LATE_NS // 10**6} ms late")


def _wires(server: Server, batch: Batch, start_ns: int) -> list[bytes]:
    """What is sent for each; ours gets a heartbeat a second as well, as from quote_service."""
    wires = [server.ingress.wrap(message) for message in batch.messages]
    if server.history is not None:
        for number in range(0, len(wires), max(1, int(batch.rate))):
            wires[number] += server.ingress.wrap(beat_after(batch.quotes[number]))
    return wires


class _Feed:
    """Messages on their way into a server. Where it does not take them they wait here: it must not hold up the pace."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._waiting = bytearray()
        self._sent = 0
        link.setblocking(False)

    def send(self, message: bytes) -> None:
        self._waiting += message
        self._push()
        self._sent += 1
        if self._sent % CHECK_EVERY == 0:
            self._take_replies()

    def finish(self) -> None:
        """Until all is sent; MeasureError where the server does not take it."""
        due = time.monotonic() + DRAIN_S
        while self._waiting:
            if time.monotonic() > due:
                raise MeasureError(f"the server left {len(self._waiting)} bytes of messages untaken")
            select.select([], [self._link], [], DRAIN_S)
            self._take_replies()
            self._push()

    def _push(self) -> None:
        with contextlib.suppress(BlockingIOError):
            del self._waiting[: self._link.send(self._waiting)]

    def _take_replies(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._link.recv(REPLY_BYTES)  # they must not fill its buffers


@contextlib.contextmanager
def _feeding(ingress: wire.Ingress) -> Iterator[_Feed]:
    """A connection that takes messages; without garbage collection meanwhile, which would make them late."""
    with socket.create_connection(("127.0.0.1", ingress.port), ANSWER_DEADLINE_S) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for opening, awaited in ingress.steps:
            link.sendall(opening)
            said = b""
            while awaited not in said:
                if not (more := link.recv(REPLY_BYTES)):
                    raise MeasureError(f"the server takes no messages: {said!r}")
                said += more
        gc.collect()
        gc.disable()
        try:
            yield _Feed(link)
        finally:
            gc.enable()
