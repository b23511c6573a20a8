"""What the connections of one HTTP server share, and what a connection that becomes a WebSocket goes on as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cotacoes.adapters.http_server.accepting import HEAD_DEADLINE_S, Ended
from cotacoes.adapters.http_server.hosts import AllowedHosts

READ_BYTES_MAX = 16_384  # at once from one connection


class Upgraded(asyncio.BufferedProtocol):
    """The protocol of a connection that has become a WebSocket."""

    def feed(self, data: bytes) -> None:
        """Take what was read before the connection was handed over, the head of the request first."""


@dataclass(frozen=True)
class Context:
    """`upgrade` makes the protocol of a connection that becomes a WebSocket; without it none can.

    `note_refused` hears why a request was turned away before the app saw it. All connections read into one buffer,
    since each takes out at once what it has read.
    """

    hosts: AllowedHosts
    upgrade: Callable[[Ended], Upgraded] | None
    note_refused: Callable[[str], None]
    read_buffer: memoryview
    head_deadline_s: float = HEAD_DEADLINE_S  # for a whole head, and for the rest of a body after its answer
