"""One HTTP connection as an app uses it beyond ASGI: answer in one write, cut it, learn of a client that hangs up, and
answer with a stream.

`protocol.py` decides how requests come in. An answer of which the client reads nothing for `UNREAD_S` is given up here;
streams are watched by the code that writes to them.

An answer that goes on for hours (`open_stream`) leaves the request's task: it has none, and is written to from outside.
It ends with its connection, so its bytes are the same for every client, and need no framing of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from cotacoes.adapters.http_server.protocol import BoundedProtocol
from cotacoes.errors.problem_json import SAFETY_HEADERS, head

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE_S = 5.0  # for a client to read the end of a stream
UNREAD_S = 15.0  # for a client to read some of an answer, as of a stream
UNANSWERED_MS = 15_000  # what was sent on a stream, and no machine has taken: its client is gone
UNSENT_BYTES = 32_768  # that the kernel takes of a stream beyond what is on its way: else it hides a slow client

INPUT_BYTES_MAX = 65_536  # from a client that reads a stream

ANSWER = "cotacoes.answer"
CUT = "cotacoes.cut"  # the names of our extensions in an ASGI scope
OPEN_STREAM = "cotacoes.open_stream"
HANGING_UP = "cotacoes.hanging_up"
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


def answer_at_once(scope: Scope, headers: bytes, body: bytes) -> bool:
    """Answer with 200 in one write, if the server can; `headers` are whole lines. Else False, and nothing was done.

    Two messages of ASGI are two writes, and two packets.
    """
    extension = scope.get("extensions", {}).get(ANSWER)
    return extension is not None and extension["now"](headers, body)


async def cut(scope: Scope) -> None:
    """End the connection now, in the middle of an answer: the client sees a body that broke off, not one that ended."""
    scope["extensions"][CUT]["now"]()
    await asyncio.sleep(0)  # lets the server learn of it before the app returns, else it logs an answer left unfinished


@contextlib.contextmanager
def hanging_up(scope: Scope, heard: Callable[[], None]) -> Iterator[None]:
    """Call `heard` if the client hangs up within. uvicorn itself lets the app work on, for nobody."""
    extension = scope.get("extensions", {}).get(HANGING_UP, {})
    heard_by: set[Callable[[], None]] = extension.get("heard_by", set())
    heard_by.add(heard)
    if extension and extension["is_gone"]():  # before anybody listened
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

    def lost(self, *, is_unanswered: bool) -> None:
        """The connection has ended, or is about to: nothing more may be written.

        `is_unanswered`: the kernel gave it up, because the client's machine acknowledged nothing for `UNANSWERED_MS`.
        """


class HttpStream:
    """An answer without an end. `is_full` says that more than `write_buffer_bytes` wait to be taken."""

    handler: StreamHandler

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_full = False
        self.write = transport.write
        self._transport = transport
        self._input_left = INPUT_BYTES_MAX
        self._cut: asyncio.TimerHandle | None = None

    @property
    def is_closing(self) -> bool:
        return self._cut is not None

    def close(self) -> None:
        """End it behind what was written; a client that does not take that in time is cut."""
        if self._cut is None:
            self._cut = asyncio.get_running_loop().call_later(CLOSE_S, self._transport.abort)
            self._transport.close()

    def discard(self, nbytes: int) -> None:
        """So much came from the client, which has nothing more to ask."""
        self._input_left -= nbytes
        if self._input_left < 0:
            self._transport.abort()

    def lost(self, error: Exception | None) -> None:
        """The connection has ended, with this error of the network."""
        if self._cut is not None:
            self._cut.cancel()
        self.handler.lost(is_unanswered=isinstance(error, TimeoutError))


def open_stream(
    scope: Scope,
    headers: Mapping[str, str],
    *,
    write_buffer_bytes: int,
    handler: Callable[[HttpStream], StreamHandler],
) -> None:
    """Answer the request with 200 and a stream; the app returns, without having sent anything itself."""
    start = head(200, {**SAFETY_HEADERS, **headers, "connection": "close"})
    scope["extensions"][OPEN_STREAM]["now"](start, write_buffer_bytes, handler)


def prepare_stream(transport: asyncio.Transport, write_buffer_bytes: int) -> None:
    """Bound what waits for a client, here and in the kernel, and how long one may be gone without a word."""
    transport.set_write_buffer_limits(high=write_buffer_bytes)
    for option, bound in ((_TCP_NOTSENT_LOWAT, UNSENT_BYTES), (_TCP_USER_TIMEOUT, UNANSWERED_MS)):
        if option is not None:
            with contextlib.suppress(OSError):  # a bound less
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, bound)


class HttpConnection(BoundedProtocol):
    """See the head of this file."""

    _stream: HttpStream | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        self._hanging_up: set[Callable[[], None]] = set()
        self.extensions = {
            CUT: {"now": transport.abort},
            ANSWER: {"now": self._answer},
            OPEN_STREAM: {"now": self._open_stream},
            HANGING_UP: {"heard_by": self._hanging_up, "is_gone": transport.is_closing},
        }

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._taken()
        if self._stream is not None:
            self._stream.lost(exc)
        for heard in self._hanging_up:
            heard()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stream is not None:
            self._stream.is_full = True
        else:
            self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()
        if self._stream is not None:
            self._stream.is_full = False
            if not self._stream.is_closing:
                self._stream.handler.serve()

    def shutdown(self) -> None:
        if self._stream is None:
            super().shutdown()
        elif not self._stream.is_closing:
            self._stream.handler.shut_down()

    def _await_taking(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._untaken = self.loop.call_later(UNREAD_S, self._check_taking, waiting)

    def _check_taking(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() >= waited:
            self.transport.abort()
        else:
            self._await_taking()

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _answer(self, headers: bytes, body: bytes) -> bool:
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected:
            return False  # an answer by messages waits for the client there
        cycle.response_started = cycle.response_complete = True
        ours = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        if not cycle.keep_alive:
            ours.append(b"connection: close\r\n")
        self.transport.write(b"".join([b"HTTP/1.1 200 OK\r\n", *ours, headers, b"\r\n", body]))
        if not cycle.keep_alive:
            self.close()
        self.on_response_complete()
        return True

    def _open_stream(
        self, start: bytes, write_buffer_bytes: int, handler: Callable[[HttpStream], StreamHandler]
    ) -> None:
        self.cycle.response_started = self.cycle.response_complete = True
        prepare_stream(self.transport, write_buffer_bytes)
        self.transport.write(start)
        self._stream = HttpStream(self.transport)
        self.parse_no_more(self._stream.discard)
        self._stream.handler = handler(self._stream)  # which may write to it
