"""One HTTP connection as an app sees it: what it may do with it beyond ASGI (`http_exchange`), done.

How requests come in is decided in `http_protocol`. An answer that its client does not take is given up here, once
nothing of it has been taken for `UNTAKEN_S`; streams are watched by whoever writes to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cotacoes.adapters.http_server.exchange import (
    ANSWER,
    CUT,
    HANGING_UP,
    OPEN_STREAM,
    HttpStream,
    StreamHandler,
    prepare_stream,
)
from cotacoes.adapters.http_server.protocol import BoundedProtocol

UNTAKEN_S = 15.0  # as the limit for streams


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
        self._untaken = self.loop.call_later(UNTAKEN_S, self._check_taking, waiting)

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
