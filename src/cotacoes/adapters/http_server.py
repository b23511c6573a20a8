"""The ASGI server: uvicorn, with the deadlines it lacks (docs/decisions/0002).

uvicorn waits for ever for the rest of a request's head, and its header block has no bound; here a head must be complete
within `HEAD_DEADLINE_S` and `HEAD_BYTES_MAX`. Stopping is bounded too: open requests get `GRACE_S`.

An answer that goes on for hours (`open_stream`) leaves the request's task: it has none, and is written to from outside.
It ends with its connection, so its bytes are the same for every client, and need no frame of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

HEAD_DEADLINE_S = 10.0  # a browser on a poor line needs about one
HEAD_BYTES_MAX = 32_768  # twice what common proxies take
KEEP_ALIVE_S = 15
GRACE_S = 3
CONNECTIONS_MAX = 4_000  # streams, which have a limit of their own, and as many again
BACKLOG = 512
CLOSE_S = 5.0  # what a client is given to take the end of a stream
UNANSWERED_MS = 15_000  # what was sent on a stream, and no machine has taken: its client is gone
UNSENT_BYTES = 32_768  # that the kernel takes of a stream beyond what is on its way: else it hides a slow client

_CUT = "cotacoes.cut"  # the names of our extensions in an ASGI scope
_OPEN = "cotacoes.open_stream"
_HANGING_UP = "cotacoes.hanging_up"
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


async def cut(scope: Scope) -> None:
    """End the connection now, in the middle of an answer: the client sees a body that broke off, not one that ended."""
    scope["extensions"][_CUT]["now"]()
    await asyncio.sleep(0)  # lets the server learn of it before the app returns, else it logs an answer left unfinished


@contextlib.contextmanager
def hanging_up(scope: Scope, heard: Callable[[], None]) -> Iterator[None]:
    """Within, `heard` is called where the client hangs up. uvicorn itself lets the app work on, for nobody."""
    told = scope.get("extensions", {}).get(_HANGING_UP, {})
    heard_by: set[Callable[[], None]] = told.get("heard_by", set())
    heard_by.add(heard)
    if told and told["is_gone"]():  # before anybody listened
        heard()
    try:
        yield
    finally:
        heard_by.discard(heard)


class StreamHandler(Protocol):
    """What is done with an open stream."""

    def serve(self) -> None:
        """It takes bytes again."""

    def shut_down(self) -> None:
        """The server stops."""

    def lost(self) -> None:
        """The connection has ended, or is about to: nothing more may be written."""


class HttpStream:
    """An answer without an end. `is_full` says that more than `write_buffer_bytes` wait to be taken."""

    handler: StreamHandler

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_full = False
        self.write = transport.write
        self._transport = transport
        self._cut: asyncio.TimerHandle | None = None

    @property
    def is_closing(self) -> bool:
        return self._cut is not None

    def close(self) -> None:
        """End it behind what was written; whoever does not take that in time is cut."""
        if self._cut is None:
            self._cut = asyncio.get_running_loop().call_later(CLOSE_S, self._transport.abort)
            self._transport.close()

    def lost(self) -> None:
        """The connection has ended."""
        if self._cut is not None:
            self._cut.cancel()
        self.handler.lost()


def open_stream(
    scope: Scope,
    headers: Mapping[str, str],
    *,
    write_buffer_bytes: int,
    handler: Callable[[HttpStream], StreamHandler],
) -> None:
    """Answer the request with 200 and a stream; the app returns, without having sent anything itself."""
    told = {**headers, "connection": "close"}
    head = "".join(f"{name}: {text}\r\n" for name, text in told.items())
    scope["extensions"][_OPEN]["now"](f"HTTP/1.1 200 OK\r\n{head}\r\n".encode("latin-1"), write_buffer_bytes, handler)


def prepare_stream(transport: asyncio.Transport, write_buffer_bytes: int) -> None:
    """Bound what waits for a client, here and in the kernel, and how long one may be gone without a word."""
    transport.set_write_buffer_limits(high=write_buffer_bytes)
    for option, bound in ((_TCP_NOTSENT_LOWAT, UNSENT_BYTES), (_TCP_USER_TIMEOUT, UNANSWERED_MS)):
        if option is not None:
            with contextlib.suppress(OSError):  # a bound less
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, bound)


class DeadlineProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection; a head that is late or too large ends it."""

    head_timer: asyncio.TimerHandle | None = None
    head_bytes = 0
    stream: HttpStream | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        self._hanging_up: set[Callable[[], None]] = set()
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_ended()
        super().connection_lost(exc)
        if self.stream is not None:
            self.stream.lost()
        for heard in self._hanging_up:
            heard()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.stream is not None:
            self.stream.is_full = True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stream is not None:
            self.stream.is_full = False
            if not self.stream.is_closing:
                self.stream.handler.serve()

    def shutdown(self) -> None:
        if self.stream is None:
            super().shutdown()
        elif not self.stream.is_closing:
            self.stream.handler.shut_down()

    def _open_stream(
        self, head: bytes, write_buffer_bytes: int, handler: Callable[[HttpStream], StreamHandler]
    ) -> None:
        self.cycle.response_started = self.cycle.response_complete = True
        prepare_stream(self.transport, write_buffer_bytes)
        self.transport.write(head)
        self.stream = HttpStream(self.transport)
        self.stream.handler = handler(self.stream)  # which may write to it

    def data_received(self, data: bytes) -> None:
        if self.stream is not None:
            return  # it has nothing more to ask
        if self.head_timer is not None:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES_MAX and not self._head_is_complete_in(data):
                self._refuse(b"431 Request Header Fields Too Large")
                return
        super().data_received(data)
        is_ours = self.transport.get_protocol() is self and not self.transport.is_closing()  # no WebSocket by now
        if self.head_timer is None and is_ours and self._is_between_requests():
            self._await_head()  # blank lines, or the rest of a body that nobody waits for: not for ever

    def _is_between_requests(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first, whatever its declared type says
        return cycle is None or cycle.response_complete

    def _head_is_complete_in(self, data: bytes) -> bool:
        return b"\r\n\r\n" in data[:HEAD_BYTES_MAX]

    def on_message_begin(self) -> None:
        if self.head_timer is None:
            self._await_head()
        super().on_message_begin()
        self.scope["extensions"] = {
            _CUT: {"now": self.transport.abort},
            _OPEN: {"now": self._open_stream},
            _HANGING_UP: {"heard_by": self._hanging_up, "is_gone": self.transport.is_closing},
        }

    def on_headers_complete(self) -> None:
        self._head_ended()
        with contextlib.suppress(httptools.HttpParserInvalidURLError):
            super().on_headers_complete()
            return
        self._refuse(b"400 Bad Request")

    def _await_head(self) -> None:
        self.head_bytes = 0
        self.head_timer = self.loop.call_later(HEAD_DEADLINE_S, self._refuse, b"408 Request Timeout")

    def _head_ended(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _refuse(self, status: bytes) -> None:
        self._head_ended()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, and woken once a second instead of ten times."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(config)
        self._stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def main_loop(self) -> None:
        while not self._stop.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stop.wait()


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening address; OSError where it is taken."""
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
    websocket: Callable[..., asyncio.Protocol] | None = None,
) -> None:
    """Answer on `listener` until `stop` is set, then let open requests end, `GRACE_S` at most.

    `websocket` makes the protocol of a connection that asks to become a WebSocket; without it none can.
    """
    config = uvicorn.Config(
        app,
        http=DeadlineProtocol,
        ws="none" if websocket is None else websocket,  # type: ignore[arg-type]  # whatever makes a protocol
        lifespan="off",
        log_config=None,
        log_level="error",  # a warning for each malformed request would let anyone fill the log
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    await _Server(config, stop).serve(sockets=[listener])


def _is_news(record: logging.LogRecord) -> bool:
    """Not a traceback of each request that was given up at the end of the grace; one line counts them."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
