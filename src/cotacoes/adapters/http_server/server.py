"""The ASGI server: uvicorn, with the bounds that it lacks (docs/decisions/0002, 0015).

    accepting       who is let in: connections in all, and from one address
    http_hosts      which hosts a request may name
    http_protocol   what a connection may send, and how fast it is taken
    http_connection what an app may do with a connection beyond ASGI, by the functions of
    http_exchange   streams without an end, cutting, hearing a client hang up

Stopping is bounded too: open requests get `GRACE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Generator
from typing import Protocol

import uvicorn

from cotacoes.adapters.http_server.accepting import BACKLOG, Acceptor, ConnectionLimits, Ended
from cotacoes.adapters.http_server.connection import HttpConnection
from cotacoes.adapters.http_server.context import READ_BYTES_MAX, Context, Upgraded
from cotacoes.adapters.http_server.exchange import ASGIApp
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.errors.problem_json import SAFETY_HEADERS

KEEP_ALIVE_S = 15
GRACE_S = 3


class MakeWebSocket(Protocol):
    """Makes the protocol of a connection that becomes a WebSocket, and is listed in `connections` while it is open."""

    def __call__(
        self,
        *,
        connections: set[object],
        ended: Ended,
        read_buffer: memoryview,
        note_refused: Callable[[str], None],
    ) -> Upgraded: ...


class _Server(uvicorn.Server):
    """uvicorn with our own accepting, without its signal handling, and woken once a second instead of ten times."""

    def __init__(
        self,
        config: uvicorn.Config,
        stop: asyncio.Event,
        listener: socket.socket,
        hosts: AllowedHosts,
        websocket: MakeWebSocket | None,
        limits: ConnectionLimits,
        note_refused: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._listener = listener
        self._websocket = websocket
        self._limits = limits
        self._note_refused = note_refused
        self._context = Context(
            hosts,
            None if websocket is None else self._upgrade,
            note_refused,
            memoryview(bytearray(READ_BYTES_MAX)),
            limits.head_deadline_s,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        acceptor = Acceptor(self._listener, self._make_protocol, self._limits.fitting(), self._note_refused)
        acceptor.open()
        self.servers = [acceptor]  # type: ignore[list-item]  # the part of a server that uvicorn's shutdown uses
        self.started = True

    async def main_loop(self) -> None:
        while not self._stop.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stop.wait()

    def _make_protocol(self, ended: Ended) -> HttpConnection:
        return HttpConnection(self.config, self.server_state, self._context, ended)

    def _upgrade(self, ended: Ended) -> Upgraded:
        assert self._websocket is not None
        connections: set[object] = self.server_state.connections  # type: ignore[assignment]  # ours among uvicorn's
        return self._websocket(
            connections=connections,
            ended=ended,
            read_buffer=self._context.read_buffer,
            note_refused=self._note_refused,
        )


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening address; OSError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, else asyncio leaves Nagle's algorithm on and each kept-alive answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    hosts: AllowedHosts,
    websocket: MakeWebSocket | None = None,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008  # frozen
    note_refused: Callable[[str], None] = lambda _: None,
    grace_s: int = GRACE_S,
) -> None:
    """Answer on `listener` until `stop` is set, then let open requests end, `grace_s` at most.

    `websocket` makes the protocol of a connection that asks to become a WebSocket; without it none can. `note_refused`
    hears why a request or connection was turned away before the app saw it.
    """
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # a warning for each malformed request would let anyone fill the log
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=list(SAFETY_HEADERS.items()),
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=grace_s,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    await _Server(config, stop, listener, hosts, websocket, limits, note_refused).serve(sockets=[listener])


def _is_news(record: logging.LogRecord) -> bool:
    """Not a traceback of each request that was given up at the end of the grace; one line counts them."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
