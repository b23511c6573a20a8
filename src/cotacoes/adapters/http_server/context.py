"""What the connections of one HTTP server share, and the protocol of one that becomes a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cotacoes.adapters.http_server.accepting import HEAD_DEADLINE_S, Ended
from cotacoes.adapters.http_server.hosts import AllowedHosts

READ_BYTES_MAX = 16_384  # at once from one connection
UNREAD_S = 15.0


class Upgraded(asyncio.BufferedProtocol):
    """The protocol of a connection that has become a WebSocket."""

    def feed(self, data: bytes) -> None:
        """Handle what was read before the connection was handed over, beginning with the head of the request."""


def _read_buffer() -> memoryview:
    return memoryview(bytearray(READ_BYTES_MAX))


@dataclass(frozen=True)
class Context:
    """Shared by the connections of a server.

    `note_refused` is called with the reason if a request is refused before the app sees it. `websocket` makes the
    protocol of a connection that becomes a WebSocket; without it none can. `connections` are those that the server
    shuts down at its end. All connections read into one buffer, since each empties it before the next one reads.
    """

    hosts: AllowedHosts
    note_refused: Callable[[str], None]
    websocket: MakeWebSocket | None = None
    head_deadline_s: float = HEAD_DEADLINE_S  # for a whole head, and for the rest of a body after its answer
    unread_s: float = UNREAD_S  # for a client to read some of an answer, as of a stream
    connections: set[object] = field(default_factory=set)
    read_buffer: memoryview = field(default_factory=_read_buffer)


MakeWebSocket = Callable[[Context, Ended], Upgraded]
