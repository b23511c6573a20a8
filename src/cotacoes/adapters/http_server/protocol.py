"""HTTP/1.1 on one connection: uvicorn's protocol, with the bounds that it lacks.

Bytes from a client have a bounded cost until the request is accepted:

    a read            is 16 KiB at most
    the parser        gets pieces that end with a head at the latest, and nothing while an answer is in progress
    the rest          waits in one buffer, the size of a read; meanwhile the connection is not read
    a turn            of the event loop handles a limited number of pieces

So a client that sends requests without waiting for answers gets one per turn, as a client that waits does. A head has a
deadline and a maximum size. A body has a maximum size on the wire, including chunk sizes, extensions and trailers.

Refusals are answered as problem+json, as everywhere. A connection that is closed while its client still sends is read
for a moment longer: if it were closed at once it would be reset, and the answer lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from cotacoes.adapters.http_server.accepting import Ended
from cotacoes.adapters.http_server.context import Context
from cotacoes.adapters.http_server.reading import AnswerTransport, Farewell, Pieces
from cotacoes.errors import (
    HeadersTooLargeError,
    MalformedRequestError,
    ProblemError,
    RequestTimeoutError,
    TooLargeError,
)
from cotacoes.errors.problem_json import problem_answer

PIECES_A_TURN = 32
HEAD_BYTES_MAX = 32_768  # twice what common proxies take
MESSAGE_BYTES_MAX = 524_288  # after a head: the largest accepted body in chunks of one byte, and as much again


class _Flow(FlowControl):
    """uvicorn's flow control, but an app that asks for more does not resume reading while bytes wait to be parsed."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol, asyncio.BufferedProtocol):
    """A bounded HTTP/1.1 connection. `extensions` are those of the ASGI scope of each request."""

    extensions: dict[str, dict[object, object]]

    def __init__(self, config: uvicorn.Config, server_state: ServerState, context: Context, ended: Ended) -> None:
        super().__init__(config, server_state, {})
        self._context = context
        self._ended = ended
        self._head_timer: asyncio.TimerHandle | None = None
        self._farewell: Farewell | None = None
        self._discard: Callable[[int], None] | None = None  # handles what is no longer parsed
        self._pieces = Pieces()
        self._in_head = True  # in a head or before one
        self._in_message = False
        self._head_bytes = 0
        self._message_bytes = 0
        self._body_bytes = 0
        self._is_refused = False
        self._is_upgraded = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._answer_transport = AnswerTransport(transport, self.close)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_ended()
        if self._farewell is not None:
            self._farewell.over()
        self._pieces.take_all()
        super().connection_lost(exc)
        self._ended()

    # What is read

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._context.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._discard is not None:
            self._discard(nbytes)
        else:
            self._pieces.add(bytes(self._context.read_buffer[:nbytes]))
            self._parse()

    def _parse(self) -> None:
        """Parse what may be handled now; the connection is not read while anything is left over."""
        for _ in range(PIECES_A_TURN):
            if not self._pieces or not self._may_parse():
                break
            self._parse_piece(self._pieces.take(None if self._in_head else self._left_of_body()))
        else:
            self.loop.call_soon(self._parse)
        if not self._is_upgraded:
            self._hold(bool(self._pieces))

    def _left_of_body(self) -> int | None:
        """The number of body bytes still to come; None if the body is chunked."""
        length = next((int(value) for name, value in self.scope["headers"] if name == b"content-length"), None)
        return None if length is None else length - self._body_bytes

    def _hold(self, is_held: bool) -> None:
        if is_held != self.flow.is_held:
            self.flow.is_held = is_held
            self.flow.pause_reading() if is_held else self.flow.resume_reading()

    def _may_parse(self) -> bool:
        is_over = self._is_refused or self._is_upgraded or self._discard is not None or self.transport.is_closing()
        return not is_over and (self._in_message or self._is_between_requests())

    def _is_between_requests(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, despite its declared type
        return cycle is None or cycle.response_complete

    def _parse_piece(self, piece: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(piece)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(HeadersTooLargeError(f"the request line and headers exceed {HEAD_BYTES_MAX} bytes"))
                return
        else:
            self._message_bytes += len(piece)
            if self._message_bytes > MESSAGE_BYTES_MAX:
                self._refuse(TooLargeError(f"the body exceeds {MESSAGE_BYTES_MAX} bytes on the wire"))
                return
        self.data_received(piece)
        if self._head_timer is None and self._awaits_input():
            self._await_head()  # blank lines, or the rest of a body that is not needed: limit the wait

    def _awaits_input(self) -> bool:
        is_ours = not (self._is_refused or self._is_upgraded or self.transport.is_closing())
        return is_ours and (self._in_head or self._in_message) and self._is_between_requests()

    # What the parser found

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self.scope["extensions"] = self.extensions

    def on_headers_complete(self) -> None:
        self._head_ended()
        self._in_head, self._head_bytes, self._message_bytes, self._body_bytes = False, 0, 0, 0
        refusal = self._context.hosts.refusal(self.headers, self.url)
        if refusal is not None:
            self._refuse(refusal)
            return
        try:
            super().on_headers_complete()
        except httptools.HttpParserInvalidURLError:
            self._refuse(MalformedRequestError("the request's target is invalid"))
            return
        is_upgrade = self.parser.should_upgrade()
        if not (is_upgrade and self._should_upgrade()):
            self.cycle.transport = self._answer_transport  # type: ignore[assignment]  # the part of a transport that uvicorn uses
            self.headers = []  # for trailers: the request is in progress by then
            if is_upgrade:
                self.cycle.keep_alive = False  # an unsupported protocol: its first byte cannot be found

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_ended()
        self._in_head, self._in_message = True, False
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._is_refused:
            return
        super().on_response_complete()
        if self._pieces:
            self.loop.call_soon(self._parse)

    def send_400_response(self, msg: str) -> None:
        self._refuse(MalformedRequestError("the request is not valid HTTP/1.1"))

    def _should_upgrade(self) -> bool:
        return self._context.websocket is not None and not self._is_refused and self._get_upgrade() == b"websocket"

    def handle_websocket_upgrade(self) -> None:
        assert self._context.websocket is not None
        self._is_upgraded = True
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.scope["headers"]:
            head += [name, b": ", value, b"\r\n"]
        protocol = self._context.websocket(self._context, self._ended)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        self._hold(False)
        protocol.feed(b"".join([*head, b"\r\n", self._pieces.take_all()]))

    # Refusals

    def _await_head(self) -> None:
        late = RequestTimeoutError(f"the request was not complete within {self._context.head_deadline_s:g} s")
        self._head_timer = self.loop.call_later(self._context.head_deadline_s, self._refuse, late)

    def _head_ended(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: ProblemError) -> None:
        """Answer instead of the app, and close."""
        self._head_ended()
        if self._is_refused or self.transport.is_closing():
            return
        self._context.note_refused(error.slug.replace("-", "_"))
        self._is_refused = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:  # the app waits for the body
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        self.transport.write(problem_answer(error))
        self._linger()

    def close(self) -> None:
        """End the connection after an answer; nothing more is parsed."""
        if self._in_message or self._pieces:
            self._is_refused = True
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self._farewell = Farewell(self.transport)
        self.parse_no_more(self._farewell.discard)
        self.flow.resume_reading()

    def parse_no_more(self, discard: Callable[[int], None]) -> None:
        """Stop parsing; `discard` is called with the number of bytes of each later read."""
        self._discard = discard
        self._pieces.take_all()
        self._hold(False)
