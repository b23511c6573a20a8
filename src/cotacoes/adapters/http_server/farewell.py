"""How a connection ends whose client may still be sending: our answer is behind it, and is not to be lost.

A socket that is closed with bytes unread is reset, and a reset takes with it what the client has not read yet: the very
answer that says why. So we say that we send no more, and read on for a moment, until the client closes too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

LINGER_S = 2.0
LINGER_BYTES_MAX = 1_048_576


class Outlet:
    """What an answer is written to: the part of a transport that an answer uses, with a `close` of our own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Farewell:
    """Begun when it is made; the connection is cut if it has not ended in time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left = LINGER_BYTES_MAX
        with contextlib.suppress(OSError):
            transport.write_eof()
        self._cut = asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

    def discard(self, nbytes: int) -> None:
        """So much came, and is not looked at."""
        self._left -= nbytes
        if self._left < 0:
            self._transport.abort()

    def over(self) -> None:
        """The connection has ended."""
        self._cut.cancel()
