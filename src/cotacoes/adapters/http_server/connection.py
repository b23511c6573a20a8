"""One HTTP connection as an app uses it beyond ASGI: answer in one write, cut it, learn of a client that hangs up, and
answer with a stream.

`protocol.py` decides how requests come in. An answer of which the client reads nothing for `unread_s` is given up here;
streams are watched by the code that writes to them.

An answer that goes on for hours (`open_stream`) leaves the request's task: it has none, and is written to from outside.
It ends with its connection, so its bytes are the same for every client, and need no framing of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
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
UNANSWERED_MS = 15_000  # if the client's machine acknowledges nothing for so long, the client is gone
UNSENT_BYTES = 32_768  # buffered by the kernel beyond what is in transit; more would hide a slow client

INPUT_BYTES_MAX = 65_536  # accepted from a client that reads a stream

# names of extensions in an ASGI scope
ANSWER = "cotacoes.answer"
CUT = "cotacoes.cut"
OPEN_STREAM = "cotacoes.open_stream"
HANGING_UP = "cotacoes.hanging_up"
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


def answer_at_once(scope: Scope, headers: bytes, body: bytes) -> bool:
    """Answer with 200 in one write; `headers` are whole lines. False, with nothing done, if the server cannot.

    The two messages of ASGI would be two writes, and two packets.
    """
    extension = scope.get("extensions", {}).get(ANSWER)
    return extension is not None and extension["now"](headers, body)


async def cut(scope: Scope) -> None:
    """Cut the connection in the middle of an answer: the client sees an incomplete body, not one that ended."""
    scope["extensions"][CUT]["now"]()
    await asyncio.sleep(0)  # let the server learn of it before the app returns: else it logs an unfinished answer


@contextlib.contextmanager
def hanging_up(scope: Scope, heard: Callable[[], None]) -> Iterator[None]:
    """Call `heard` if the client disconnects within the context. uvicorn itself lets the app continue."""
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
    """The reactions to an open stream's events."""

    def serve(self) -> None:
        """The stream accepts bytes again."""

    def shut_down(self) -> None:
        """The server is stopping."""

    def lost(self, *, is_unanswered: bool) -> None:
        """The connection has ended or is about to: nothing more may be written.

        `is_unanswered` says that the client's machine acknowledged nothing for `UNANSWERED_MS`.
        """


class HttpStream:
    """An answer without an end. `is_full` says that more than `write_buffer_bytes` wait to be sent."""

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
        """End the stream after what was written; a client that does not read that in time is cut."""
        if self._cut is None:
            self._cut = asyncio.get_running_loop().call_later(CLOSE_S, self._transport.abort)
            self._transport.close()

    def discard(self, nbytes: int) -> None:
        """Count bytes from the client, which has nothing to send; too many cut the connection."""
        self._input_left -= nbytes
        if self._input_left < 0:
            self._transport.abort()

    def lost(self, error: Exception | None) -> None:
        """The connection has ended, with this error of the network if there was one."""
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
    """Answer the request with 200 and a stream; the app must send nothing itself, and return."""
    start = head(200, {**SAFETY_HEADERS, **headers, "connection": "close"})
    scope["extensions"][OPEN_STREAM]["now"](start, write_buffer_bytes, handler)


def prepare_stream(transport: asyncio.Transport, write_buffer_bytes: int) -> None:
    """Bound the bytes that wait for a client, here and in the kernel, and the time until a lost client is noticed."""
    transport.set_write_buffer_limits(high=write_buffer_bytes)
    for option, bound in ((_TCP_NOTSENT_LOWAT, UNSENT_BYTES), (_TCP_USER_TIMEOUT, UNANSWERED_MS)):
        if option is not None:
            with contextlib.suppress(OSError):  # not available: continue without this bound
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, bound)


class HttpConnection(BoundedProtocol):
    """A connection with the extensions that the functions of this file use."""

    _stream: HttpStream | None = None
    _reader_timer: asyncio.TimerHandle | None = None

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
        self._stop_watching()
        if self._stream is not None:
            self._stream.lost(exc)
        for heard in self._hanging_up:
            heard()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stream is not None:
            self._stream.is_full = True
        else:
            self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()
        if self._stream is not None:
            self._stream.is_full = False
            if not self._stream.is_closing:
                self._stream.handler.serve()

    def shutdown(self) -> None:
        if self._stream is None:
            super().shutdown()
        elif not self._stream.is_closing:
            self._stream.handler.shut_down()

    def _watch_reader(self, waited: float = math.inf) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting >= waited:
            self.transport.abort()
        else:
            self._reader_timer = self.loop.call_later(self._context.unread_s, self._watch_reader, waiting)

    def _stop_watching(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _answer(self, headers: bytes, body: bytes) -> bool:
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected:
            return False  # an answer by ASGI messages waits for the client
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
        self._stream.handler = handler(self._stream)  # may write to the stream
