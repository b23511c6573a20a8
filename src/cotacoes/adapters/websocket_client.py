"""The client's end of a WebSocket: a connection of the library `websockets`, bounded, with our own errors.

One deadline covers the whole opening. Messages are bounded, and nothing is decompressed. A redirect is a status like
any other. Only a few messages are read ahead, so a slow reader slows the sender down, by TCP. A proxy of the
environment is used, and pings are sent, only if the caller wants that: the system's own streams stay on the way that
their address names, and have heartbeats that reveal a dead connection.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

from websockets.asyncio import client as library
from websockets.exceptions import ConcurrencyError, ConnectionClosed, InvalidStatus, ProxyError, WebSocketException
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from cotacoes.errors import (
    StreamCause,
    StreamClosedError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
)

MESSAGE_BYTES_MAX = 1_048_576
MESSAGES_AHEAD = 16  # beyond them reading pauses; the last read of the socket may add 256 KiB
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
    """A link that can also give messages undecoded."""

    async def receive_bytes(self) -> bytes:
        """The next message as it came, text or not; whether it is UTF-8 is not checked."""


class _Connect(library.connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _WebSocket:
    """A link over the library's connection."""

    def __init__(self, connection: library.ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        with _translated():
            await self._connection.send(text)

    async def receive(self) -> str | bytes:
        with _translated():
            return await self._connection.recv()

    async def receive_bytes(self) -> bytes:
        try:  # entering a context for each frame would be a tenth of what it costs to read one
            return await self._connection.recv(decode=False)
        except Exception:
            with _translated():
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
        )
        return _WebSocket(await opening)
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
