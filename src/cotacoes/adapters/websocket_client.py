"""The client's end of a WebSocket: a connection of the library `websockets`, bounded, with our own errors.

One deadline covers the whole opening. Messages are bounded, and nothing is decompressed. A redirect is a status like
any other. Only a few messages are read ahead, so a slow reader slows the sender down, by TCP. A proxy of the
environment is used, and pings are sent, only if the caller wants that: the system's own streams stay on the way that
their address names, and have heartbeats that reveal a dead connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol
from urllib.parse import urlsplit

from websockets.asyncio import client as library
from websockets.exceptions import ConcurrencyError, ConnectionClosed, InvalidStatus, ProxyError, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from cotacoes.errors import (
    StreamCause,
    StreamClosedError,
    StreamError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
)

MESSAGE_BYTES_MAX = 1_048_576
MESSAGES_AHEAD = 16  # beyond them reading pauses; the last read of the socket may add 256 KiB
TAKEN_AT_ONCE = 100  # then others get a turn of the event loop: about a millisecond
MESSAGE_OPCODES = (Opcode.TEXT, Opcode.BINARY)  # of a message's first frame
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CLOSE_S = 1.0  # for the other side to answer our close


class Link(Protocol):
    """An open connection. Its calls raise StreamUnavailableError, StreamClosedError and StreamMalformedError."""

    async def send(self, text: str) -> None:
        """Send a text message; waits while the connection is full."""

    async def receive(self) -> str | bytes:
        """The next message. Cancelling the wait for it loses nothing."""

    async def close(self) -> None:
        """Send a close, and wait at most `CLOSE_S` for the answer."""

    def abort(self) -> None:
        """Cut the connection at once."""


class RawLink(Link, Protocol):
    """A link that can also hand messages over undecoded."""

    async def hand_over(self, take: Callable[[bytes], None]) -> NoReturn:
        """Call `take` with each message as it came, text or not, until the connection ends, which raises.

        Whether a message is UTF-8 is not checked. What `take` raises ends the connection, and is raised here.
        """


class _Connect(library.connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(library.ClientConnection):
    """A connection that can hand a message over when it comes, without the queue and a turn of the event loop.

    That turn costs as much as all else that is done for a message, if messages come one by one. Those in more than one
    frame take the queue, and so do those that come behind them or behind `TAKEN_AT_ONCE` others.
    """

    take: Callable[[bytes], None] | None = None
    failure: Exception | None = None  # of `take`
    queued = 0  # messages in the queue, also a part of one
    _room = TAKEN_AT_ONCE

    def data_received(self, data: bytes) -> None:
        self._room = TAKEN_AT_ONCE
        super().data_received(data)

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in MESSAGE_OPCODES:
            super().process_event(event)
        elif self.take is None or self.queued or not event.fin or not self._room:
            self.queued += 1
            super().process_event(event)
        elif self.failure is None:
            self._room -= 1
            try:
                self.take(bytes(event.data))
            except Exception as error:
                self.failure = error
                self.transport.abort()


class _WebSocket:
    """A link over the library's connection."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        with _translated():
            await self._connection.send(text)

    async def receive(self) -> str | bytes:
        with _translated():
            message = await self._connection.recv()
        self._connection.queued -= 1
        return message

    async def hand_over(self, take: Callable[[bytes], None]) -> NoReturn:
        connection = self._connection
        connection.take = take
        count = 0
        try:
            while True:
                with _translated():
                    message = await connection.recv(decode=False)
                connection.queued -= 1
                take(message)
                count += 1
                if count % TAKEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except StreamError:
            if connection.failure is not None:
                raise connection.failure from None
            raise

    async def close(self) -> None:
        try:
            with _translated():
                await self._connection.close()
        finally:
            self.abort()

    def abort(self) -> None:
        self._connection.transport.abort()


async def connect(url: str, *, deadline_s: float, ping_s: float | None = None, may_use_proxy: bool = False) -> RawLink:
    """Open a WebSocket at `ws://…` or `wss://…`; StreamUnavailableError, StreamRefusedError.

    With `ping_s`, a ping goes out that often, and a connection on which no pong comes for as long is cut. With
    `may_use_proxy`, an address beyond this machine is reached through the proxy that the environment names
    (HTTPS_PROXY and so on).
    """
    proxy = None
    try:
        if may_use_proxy and urlsplit(url).hostname not in LOOPBACK:
            proxy = get_proxy(parse_uri(url))
        opening = _Connect(
            url,
            compression=None,
            proxy=proxy,
            user_agent_header="cotacoes",
            open_timeout=deadline_s,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            close_timeout=CLOSE_S,
            max_size=MESSAGE_BYTES_MAX,
            max_queue=MESSAGES_AHEAD,
            create_connection=_Connection,
        )
        connection = await opening
        assert isinstance(connection, _Connection)
        return _WebSocket(connection)
    except InvalidStatus as refusal:
        answer = refusal.response
        text = ",".join(answer.headers.get_all("Retry-After"))
        wait_s = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
        raise StreamRefusedError(answer.status_code, retry_after_s=wait_s, body=bytes(answer.body)) from refusal
    except TimeoutError as error:
        raise StreamUnavailableError(f"no connection within {deadline_s:g} s", cause="timeout") from error
    except (WebSocketException, OSError, UnicodeError) as error:
        raise StreamUnavailableError(f"no connection: {error}", cause=_cause_of(error, proxy)) from error
    except Exception as error:  # an address or an answer that the library cannot handle
        raise StreamUnavailableError(f"no connection ({type(error).__name__})", cause="handshake") from error


def _cause_of(error: Exception, proxy: str | None) -> StreamCause:
    match error:
        case ProxyError():
            return "proxy"
        case WebSocketException():
            return "handshake"
        case ssl.SSLError():
            return "tls"
        case _ if proxy is not None:  # no other address is connected to
            return "proxy"
        case socket.gaierror() | UnicodeError():
            return "name"
        case _:
            return "unreachable"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate the end of a connection into one of our errors; we close first on a breach of the protocol."""
    try:
        yield
    except ConnectionClosed as error:
        theirs, ours = error.rcvd, error.sent
        if ours is not None and (theirs is None or error.rcvd_then_sent is False):
            raise StreamMalformedError(
                f"the other side broke the WebSocket protocol: {ours.reason or ours.code}"
            ) from error
        if theirs is not None:
            raise StreamClosedError(theirs.code, theirs.reason) from error
        raise StreamUnavailableError("the connection was cut") from error
    except (ConcurrencyError, TypeError):
        raise  # a wrong call, a bug of ours that must show
    except Exception as error:
        raise StreamUnavailableError(f"the connection failed ({type(error).__name__})") from error
