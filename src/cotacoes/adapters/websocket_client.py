"""The client's end of a WebSocket: a connection of the library `websockets`, bounded, with our own errors.

One deadline covers the whole opening. Messages are bounded, and nothing is decompressed. A redirect is a status like
any other, and no proxy is taken from the environment. Only a few messages are read ahead, so a slow reader slows the
sender down, by TCP. No ping is sent: heartbeats reveal a dead connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from websockets.asyncio import client as library
from websockets.exceptions import ConcurrencyError, ConnectionClosed, InvalidStatus, WebSocketException

from cotacoes.errors import (
    StreamClosedError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
)

MESSAGE_BYTES_MAX = 1_048_576
MESSAGES_AHEAD = 16  # beyond them reading pauses; the last read of the socket may add 256 KiB
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

    async def close(self) -> None:
        try:
            with _translated():
                await self._connection.close()
        finally:
            self.abort()

    def abort(self) -> None:
        self._connection.transport.abort()


async def connect(url: str, *, deadline_s: float) -> Link:
    """Open a WebSocket at `ws://…` or `wss://…`; StreamUnavailableError, StreamRefusedError."""
    try:
        opening = _Connect(
            url,
            compression=None,
            proxy=None,
            user_agent_header="cotacoes",
            open_timeout=deadline_s,
            ping_interval=None,
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
        raise StreamUnavailableError(f"no connection within {deadline_s:g} s") from error
    except (WebSocketException, OSError, UnicodeError) as error:
        raise StreamUnavailableError(f"no connection: {error}") from error
    except Exception as error:  # an address or an answer that the library cannot handle
        raise StreamUnavailableError(f"no connection ({type(error).__name__})") from error


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
