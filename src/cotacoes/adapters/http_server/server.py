"""The ASGI server: uvicorn, with the bounds that it lacks (docs/decisions/0002, 0015).

    accepting   which connections are accepted: how many in all, and from one address
    hosts       which hosts a request may name
    protocol    what a connection may send, and how fast it is read
    reading     what was read and is not parsed yet, and what is discarded at the end
    connection  what an app may do with a connection beyond ASGI
    context     what all connections share

Stopping is bounded too: open requests get `GRACE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Generator

import uvicorn

from cotacoes.adapters.http_server.accepting import BACKLOG, Acceptor, ConnectionLimits, Ended
from cotacoes.adapters.http_server.connection import ASGIApp, HttpConnection
from cotacoes.adapters.http_server.context import Context, MakeWebSocket
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.errors.problem_json import SAFETY_HEADERS

KEEP_ALIVE_S = 15
GRACE_S = 3


class _Server(uvicorn.Server):
    """uvicorn with our own accepting, without its signal handling, and woken once a second instead of ten times."""

    def __init__(
        self,
        config: uvicorn.Config,
        stop: asyncio.Event,
        listener: socket.socket,
        *,
        limits: ConnectionLimits,
        context: Context,
    ) -> None:
        super().__init__(config)
        self.server_state.connections = context.connections  # type: ignore[assignment]  # ours among uvicorn's
        self._stop = stop
        self._listener = listener
        self._limits = limits
        self._context = context

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        acceptor = Acceptor(self._listener, self._make_protocol, self._limits.fitting(), self._context.note_refused)
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

    For `websocket` and `note_refused` see Context; the latter is also called for each connection that is refused.
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
    context = Context(hosts, note_refused, websocket, limits.head_deadline_s)
    await _Server(config, stop, listener, limits=limits, context=context).serve(sockets=[listener])


def _is_news(record: logging.LogRecord) -> bool:
    """False for the traceback of a request that was cancelled at the end of the grace; one line counts them all."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
