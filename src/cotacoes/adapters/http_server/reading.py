"""What is read of an HTTP connection: pieces for the parser, and what is discarded after the last answer.

A parser takes all it is given, and calls back for each request in it. So it is given a piece at a time, which contains
the end of one head at most, or of one body: requests that a client sends ahead cost nothing until they are answered.

A socket that is closed with unread bytes is reset, and a reset takes with it what the client has not read yet: the very
answer that says why. So we announce that we send no more, and read on for a moment, until the client closes too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

LINGER_S = 2.0
LINGER_BYTES_MAX = 1_048_576
_HEAD_END = b"\r\n\r\n"  # also the end of a chunked body and of trailers


class Pieces:
    """A buffer of unparsed bytes; false if it is empty."""

    def __init__(self) -> None:
        self._held = b""
        self._tail = b""  # the end of the last piece: the end of a head may be split over two reads

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, data: bytes) -> None:
        """Append the bytes of a read."""
        self._held = self._held + data if self._held else data

    def take(self, body_left: int | None) -> bytes:
        """The next piece; `body_left` is the rest of the current body in bytes, None if unknown."""
        end = min(len(self._held), body_left) if body_left else self._head_end()
        piece, self._held = self._held[:end], self._held[end:]
        self._tail = piece[-3:] if len(piece) >= 3 else (self._tail + piece)[-3:]
        return piece

    def take_all(self) -> bytes:
        """All remaining bytes, for a protocol that replaces the parser."""
        held, self._held = self._held, b""
        return held

    def _head_end(self) -> int:
        across = (self._tail + self._held[:3]).find(_HEAD_END)
        if across >= 0 and (end := across + len(_HEAD_END) - len(self._tail)) > 0:
            return end
        found = self._held.find(_HEAD_END)
        return len(self._held) if found < 0 else found + len(_HEAD_END)


class AnswerTransport:
    """The part of a transport that an answer uses, with a `close` of our own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Farewell:
    """The end of a connection, announced when this is made; it is cut if the client does not close it in time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left = LINGER_BYTES_MAX
        with contextlib.suppress(OSError):
            transport.write_eof()
        self._cut = asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

    def discard(self, nbytes: int) -> None:
        """Count bytes that are discarded; too many cut the connection."""
        self._left -= nbytes
        if self._left < 0:
            self._transport.abort()

    def over(self) -> None:
        """Note that the connection has ended."""
        self._cut.cancel()
