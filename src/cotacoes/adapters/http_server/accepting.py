"""Accepting connections: at most so many in all, from one address, and in one turn of the event loop.

When a process runs out of file descriptors, asyncio's own accepting reports an error for each place in the backlog, and
again with every timer that this starts: thousands of tracebacks a second. Here one descriptor is held in reserve: it is
used to accept and close a connection, so that its client learns at once, and then accepting pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from cotacoes.errors import OverloadedError
from cotacoes.errors.problem_json import problem_answer
from cotacoes.observability.bounded_log import BoundedLog

BACKLOG = 512
CONNECTIONS_MAX = 4_000
ACCEPTS_A_TURN = 16  # each costs some 50 µs
HEAD_DEADLINE_S = 10.0  # a browser on a poor line needs about one
PAUSE_S = 0.1  # after running out of descriptors
DESCRIPTORS_ELSE = 256  # for the log, the libraries and the calls to other services
_REFUSED = problem_answer(OverloadedError("too many open connections"))

Ended = Callable[[], None]


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of connections, in all and per address, and the time for the head of a request."""

    total: int = CONNECTIONS_MAX
    per_address: int = CONNECTIONS_MAX // 2
    head_deadline_s: float = HEAD_DEADLINE_S

    @classmethod
    def beside_streams(cls, streams: int, streams_per_address: int) -> ConnectionLimits:
        """Limits for so many streams and as many other connections; one address cannot use up the streams of all."""
        total = max(CONNECTIONS_MAX, 2 * streams)
        return cls(total, total - max(0, streams - streams_per_address))

    def fitting(self) -> ConnectionLimits:
        """The limits reduced in proportion to the available file descriptors."""
        room = room_for(self.total)
        return replace(self, total=room, per_address=max(1, self.per_address * room // self.total))


class Acceptor:
    """Accepts connections on `listener` from `open` to `close`.

    `protocol` makes the protocol of a connection, which calls the given function when the connection has ended.
    `note_refused` is called with the reason for each connection that is refused.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Ended], asyncio.BaseProtocol],
        limits: ConnectionLimits,
        note_refused: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._limits = limits
        self._note_refused = note_refused
        self._loop = asyncio.get_running_loop()
        self._log = BoundedLog(self._loop.time)
        self._by_client: Counter[str] = Counter()
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._reserve: int | None = None

    def open(self) -> None:
        """Start accepting."""
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._resume()

    def close(self) -> None:
        """Stop accepting; open connections stay open."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._release()

    async def wait_closed(self) -> None:
        """Wait until all accepted connections have their protocol."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._run_out(error)
                return
            self._admit(connection, client_of(address[0]))

    def _admit(self, connection: socket.socket, client: str) -> None:
        if self._connections >= self._limits.total:
            self._refuse(connection, "connections")
        elif self._by_client[client] >= self._limits.per_address:
            self._refuse(connection, "connections_of_address")
        else:
            self._connections += 1
            self._by_client[client] += 1
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection, functools.partial(self._ended, client)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket, ended: Ended) -> None:
        try:
            await self._loop.connect_accepted_socket(functools.partial(self._protocol, ended), connection)
        except OSError:  # it has ended before it had a protocol
            connection.close()
            ended()

    def _ended(self, client: str) -> None:
        self._connections -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        self._note_refused(reason)
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_REFUSED)  # as much as fits: never wait for a stranger

    def _run_out(self, error: OSError) -> None:
        """Close one connection with the reserve, and pause: the listener would be ready again at once."""
        self._note_refused("descriptors")
        self._log.note("connection.refused", str(error.errno), reason=error.strerror)
        if self._reserve is not None:
            self._release()
            with contextlib.suppress(OSError):
                self._listener.accept()[0].close()
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_S, self._resume)

    def _release(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None


def client_of(address: str) -> str:
    """The client that an address counts for: itself, or its /64 network, all of which one IPv6 client may use."""
    if ":" not in address:
        return address
    number = ipaddress.IPv6Address(address.partition("%")[0])
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(ipaddress.IPv6Network((number, 64), strict=False))


def room_for(connections: int) -> int:
    """The number of connections, up to `connections`, for which there are file descriptors, after raising the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + DESCRIPTORS_ELSE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - DESCRIPTORS_ELSE))
