"""WebSocket, the server's end: the library `websockets`, whose protocol does no input or output, on connections of the
HTTP server.

What is sent to many is made a frame once (`text_frame`) and written as it is; what is said to one client, and what it
says, goes through the protocol, which knows the rules. A message of a client is bounded; one that is not text, not
UTF-8 or too large ends the connection with the code of the standard.

While the connection is full nothing is read from it, so a client can not ask for more than it takes. Closing has a
deadline: who does not answer, or does not take what is still to be sent, is cut.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from cotacoes.adapters.http_server import CLOSE_S, StreamHandler, prepare_stream
from cotacoes.telemetry import get_logger

PING = Frame(Opcode.PING, b"").serialize(mask=False)


def text_frame(payload: bytes) -> bytes:
    """A whole text message, as a server sends it."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client asks for; names of headers are lower-case."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a handshake that is not accepted."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Handler(StreamHandler, Protocol):
    """What is done with an open connection."""

    def message(self, text: bytes, now: float) -> None:
        """A message came; an empty one stands for a ping of the client's."""


Open = Callable[["ServerConnection"], Handler]
Admit = Callable[[Handshake], "Refusal | Open"]


class ServerConnection(asyncio.Protocol):
    """One connection, from its handshake on. `is_full`: more than `write_buffer_bytes` wait; `heard_at`: the last."""

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: Any,
        *,
        admit: Admit,
        message_bytes_max: int,
        write_buffer_bytes: int,
    ) -> None:
        self.is_full = False
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._loop.time()
        self._open_connections: set[Any] = server_state.connections
        self._admit = admit
        self._write_buffer_bytes = write_buffer_bytes
        self._protocol = ServerProtocol(max_size=message_bytes_max)
        self._handler: Handler | None = None
        self._fragments: list[bytes] = []
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.write = transport.write
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._decide(event)
            elif self._handler is not None and isinstance(event, Frame):
                self._take(event)
        self._send()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._send()

    def pause_writing(self) -> None:
        self.is_full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        self._transport.resume_reading()
        if self._handler is not None:
            self._handler.serve()

    def connection_lost(self, _: Exception | None) -> None:
        self._open_connections.discard(self)
        if self._cut is not None:
            self._cut.cancel()
        self._let_go()

    def shutdown(self) -> None:
        """The HTTP server stops."""
        if self._handler is not None:
            self._handler.shut_down()
        else:
            self._transport.close()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind what was written; whoever does not answer it in time is cut."""
        if self._cut is None and self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._send()
            if self.is_full:
                self._transport.resume_reading()  # for the answer to it

    def _decide(self, request: Request) -> None:
        decided = self._admit(
            Handshake(request.path, {name.lower(): text for name, text in request.headers.raw_items()})
        )
        if isinstance(decided, Refusal):
            response = self._protocol.reject(http.HTTPStatus(decided.status), "")
            _replace(response, decided)
        else:
            response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self._send()
        if not isinstance(decided, Refusal) and response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            prepare_stream(self._transport, self._write_buffer_bytes)
            self._handler = decided(self)

    def _take(self, frame: Frame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                text, self._fragments = b"".join(self._fragments), []
                self._hand_on(text or b" ")
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
        except Exception:  # the other connections go on; the client learns whose fault it is
            get_logger().exception("stream.crashed")
            self.close(1011, "a bug of ours; the log tells more")

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()  # the protocol's end of the stream
        if self._protocol.close_expected() and self._cut is None:
            self._cut = self._loop.call_later(CLOSE_S, self._transport.abort)
        if self._protocol.state in {State.CLOSING, State.CLOSED}:
            self._let_go()  # nothing may follow a close frame

    def _let_go(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.lost()


def _replace(response: Response, refusal: Refusal) -> None:
    """The body and headers of a refusal, in place of the library's own words."""
    for name in ("Content-Length", "Content-Type"):
        del response.headers[name]
    for name, text in {**refusal.headers, "Content-Length": str(len(refusal.body))}.items():
        response.headers[name] = text
    response.body = refusal.body
