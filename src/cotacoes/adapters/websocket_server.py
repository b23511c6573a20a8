"""The server's end of a WebSocket: the protocol of the library `websockets`, which does no I/O, on HTTP connections.

What is sent to many clients is made a frame once (`text_frame`) and written as it is. What is sent to one client, and
everything that it sends, goes through the protocol, which knows the rules.

Input is bounded before it is parsed: it is processed in pieces, each frame of any kind costs a token, and a message has
a maximum size and number of fragments. A client without tokens left is closed with 1008 and not read again. A message
that is not text, not UTF-8 or too large ends the connection with the code of the standard.

While the connection is full nothing is read from it, so a client cannot request more than it takes. Closing has a
deadline: a client that does not answer, or does not take the rest, is cut.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from websockets.exceptions import InvalidHeader
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from cotacoes.adapters.http_server.accepting import Ended
from cotacoes.adapters.http_server.connection import CLOSE_S, StreamHandler, prepare_stream
from cotacoes.adapters.http_server.context import Context, Upgraded
from cotacoes.errors import (
    InternalError,
    MalformedRequestError,
    MethodNotAllowedError,
    ProblemError,
    UpgradeRequiredError,
)
from cotacoes.errors.problem_json import problem_answer
from cotacoes.observability.bounded_log import log_crash
from cotacoes.patterns.resilience.token_bucket import TokenBucket

PIECE_BYTES = 512  # parsed at once: 85 of the smallest frames, about a millisecond
FRAGMENTS_MAX = 64  # of one message
FRAMES_BURST_S = 2.0  # seconds' worth of frames that may come at once
PING = Frame(Opcode.PING, b"").serialize(mask=False)


def text_frame(payload: bytes) -> bytes:
    """A complete text message, as a server sends it."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request of a client at `address`; names of headers are lower-case."""

    path: str
    headers: Mapping[str, str]
    address: str


class Handler(StreamHandler, Protocol):
    """Handles the events of an open connection."""

    def message(self, text: bytes, now: float) -> None:
        """Handle a message; an empty one stands for a ping of the client."""

    def flooded(self) -> None:
        """Close the connection of a client that sends too many frames."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A handshake that gets no answer; its connection is cut after `held_s`, unless the client leaves before."""

    held_s: float


Open = Callable[["ServerConnection"], Handler]
Admit = Callable[[Handshake], "ProblemError | Unanswered | Open"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what one client may send, and on what may wait for it."""

    message_bytes_max: int
    frames_per_s: float
    write_buffer_bytes: int


class ServerConnection(Upgraded):
    """One connection, from its handshake on. `is_full` beyond `write_buffer_bytes`; `heard_at` is the last input."""

    def __init__(
        self,
        context: Context,
        ended: Ended,
        *,
        admit: Admit,
        limits: Limits,
    ) -> None:
        self.is_full = False
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._loop.time()
        self._context = context
        self._ended = ended
        self._admit = admit
        self._limits = limits
        self._protocol = ServerProtocol(max_size=limits.message_bytes_max)
        self._frames = TokenBucket(limits.frames_per_s, limits.frames_per_s * FRAMES_BURST_S, self.heard_at)
        self._handler: Handler | None = None
        self._fragments: list[bytes] = []
        self._is_deaf = False
        self._is_muted = False
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.write = transport.write
        self._context.connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._context.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.feed(bytes(self._context.read_buffer[:nbytes]))

    def feed(self, data: bytes) -> None:
        """Process input, piece by piece, until the client has used up its tokens."""
        self.heard_at = self._loop.time()
        for at in range(0, len(data), PIECE_BYTES):
            if self._is_deaf or self._transport.is_closing():
                return
            self._protocol.receive_data(data[at : at + PIECE_BYTES])
            if self._protocol.handshake_exc is not None:
                self._refuse(MalformedRequestError(f"invalid WebSocket handshake: {self._protocol.handshake_exc}"))
                return
            self._handle(self._protocol.events_received())
        self._send()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._send()

    def pause_writing(self) -> None:
        self.is_full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if not self._is_deaf:
            self._transport.resume_reading()
        if self._handler is not None:
            self._handler.serve()

    def connection_lost(self, exc: Exception | None) -> None:
        self._context.connections.discard(self)
        if self._cut is not None:
            self._cut.cancel()
        self._let_go(is_unanswered=isinstance(exc, TimeoutError))
        self._ended()

    def shutdown(self) -> None:
        """End the connection, since the HTTP server stops."""
        if self._handler is not None:
            self._handler.shut_down()
        else:
            self._transport.close()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after everything written; a client that does not answer in time is cut."""
        if self._cut is None and self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._send()
            if self.is_full and not self._is_deaf:
                self._transport.resume_reading()  # for the answer to it

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        self._transport.abort()

    def mute(self, is_muted: bool) -> None:
        """Send nothing by itself while muted, not even the answer to a ping; what it would have said is dropped."""
        if self._is_muted != is_muted:
            self._is_muted = is_muted
            self._send()

    def _handle(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Request):
                self._decide(event)
            elif self._frames.take(self.heard_at):
                self._stop_listening()
                return
            elif self._handler is not None and isinstance(event, Frame):
                self._handle_frame(event)

    def _decide(self, request: Request) -> None:
        headers = {name.lower(): text for name, text in request.headers.raw_items()}
        address = (self._transport.get_extra_info("peername") or ("",))[0]
        try:
            decided = self._admit(Handshake(request.path, headers, address))
        except Exception:  # other connections continue; the client learns that it is our fault
            decided = InternalError("internal error; see the service log", request_id=log_crash("handshake.crashed"))
        if isinstance(decided, Unanswered):
            self._is_deaf = True
            self._cut = self._loop.call_later(decided.held_s, self._transport.abort)
            return
        if not isinstance(decided, ProblemError):
            response = self._protocol.accept(request)
            if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self._protocol.send_response(response)
                self._send()
                prepare_stream(self._transport, self._limits.write_buffer_bytes)
                self._handler = decided(self)
                return
            decided = _why_not(response.status_code, self._protocol.handshake_exc)
        self._refuse(decided)

    def _refuse(self, error: ProblemError) -> None:
        self._context.note_refused(error.slug.replace("-", "_"))
        self._is_deaf = True
        self._transport.write(problem_answer(error))
        self._transport.close()

    def _handle_frame(self, frame: Frame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                text, self._fragments = b"".join(self._fragments), []
                self._hand_on(text or b" ")
            elif len(self._fragments) > FRAGMENTS_MAX:
                self._stop_listening()
        elif frame.opcode is Opcode.PING:
            self._hand_on(b"")
        elif frame.opcode is Opcode.BINARY:
            self._protocol.fail(1003, "text only")

    def _hand_on(self, text: bytes) -> None:
        assert self._handler is not None
        try:
            text.decode()
            self._handler.message(text, self.heard_at)
        except UnicodeDecodeError:
            self._protocol.fail(1007, "not UTF-8")
        except Exception:  # as for the handshake
            log_crash("stream.crashed")
            self.close(1011, "internal error; see the service log")

    def _stop_listening(self) -> None:
        """Read nothing more; what the client still sends waits on its own machine until the connection is cut."""
        self._is_deaf = True
        self._fragments = []
        self._transport.pause_reading()
        if self._handler is not None:
            self._handler.flooded()
        if self._cut is None:
            self._cut = self._loop.call_later(CLOSE_S, self._transport.abort)

    def _send(self) -> None:
        sent = self._protocol.data_to_send()
        if self._is_muted:
            return
        for data in sent:
            if data:
                self._transport.write(data)
            else:
                self._transport.close()  # the protocol's end of the stream
        if self._protocol.close_expected() and self._cut is None:
            self._cut = self._loop.call_later(CLOSE_S, self._transport.abort)
        if self._protocol.state in {State.CLOSING, State.CLOSED}:
            self._let_go(is_unanswered=False)  # nothing may follow a close frame

    def _let_go(self, *, is_unanswered: bool) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.lost(is_unanswered=is_unanswered)


def _why_not(status: int, error: Exception | None) -> ProblemError:
    if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowedError("use GET to open a WebSocket")
    if isinstance(error, InvalidHeader) and error.name == "Sec-WebSocket-Version":
        return UpgradeRequiredError("the version of the WebSocket protocol must be 13 (Sec-WebSocket-Version)")
    return MalformedRequestError(f"invalid WebSocket handshake: {error}")
