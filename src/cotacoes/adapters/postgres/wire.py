"""A check of what arrives on a connection to PostgreSQL, before asyncpg parses it.

asyncpg trusts the length in each message. With a length of 0 its parser spins in C for ever, so that no signal, timer
or other task of the process runs again; with a negative one it reads outside its buffer. Such bytes come from a port on
which something other than PostgreSQL listens, or from a broken proxy. So the header of every message is checked here
first, including the handshake, and a connection whose headers are not PostgreSQL's is cut.

The only public way in is the `loop` that `asyncpg.connect` accepts: each connection gets a `Wire`, which is the running
loop with its own way of making connections. TLS changes the protocol of a connection's transport, so the transport is
ours as well.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

MESSAGE_BYTES_MAX = 2**28  # the largest is a page of a move, 5,000 quotes of some hundred bytes
KINDS = frozenset(b"123ACDEGHIKNRSTVWZcdfnstv")  # of a server's messages, in version 3 of the protocol
_HEADER = struct.Struct(">Bi")  # a message's kind; its length, which counts itself and not the kind


class NotPostgresError(ConnectionError):
    """The bytes that arrived are not PostgreSQL's protocol."""


class Framing:
    """Follows a stream from message to message. Pure."""

    def __init__(self) -> None:
        self._head = b""  # the beginning of a message, less than a header
        self._ahead = 0  # how many bytes still belong to a message whose header was checked

    def check(self, data: bytes) -> None:
        """Check the next bytes of the stream; NotPostgresError if a header in them cannot be PostgreSQL's."""
        if self._head:
            data = self._head + data
        at, end, size = self._ahead, len(data), _HEADER.size
        while at + size <= end:
            kind, length = _HEADER.unpack_from(data, at)
            if not (4 <= length <= MESSAGE_BYTES_MAX and kind in KINDS):
                raise NotPostgresError(f"a message of kind {kind} and length {length}")
            at += 1 + length
        self._ahead = max(0, at - end)
        self._head = data[at:]


class _CheckedProtocol(asyncio.Protocol):
    """Passes on the bytes that `Framing` accepts; its error ends the connection."""

    def __init__(self, protocol: Any, transport: Any = None) -> None:
        self.protocol = protocol
        self._transport = transport
        self._framing = Framing()
        self._refusal: NotPostgresError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._framing.check(data)
        except NotPostgresError as error:
            self._refusal = error
            self._transport.abort()
        else:
            self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        is_kept: bool | None = self.protocol.eof_received()
        return is_kept

    def connection_lost(self, error: Exception | None) -> None:
        self.protocol.connection_lost(self._refusal or error)

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()


class _CheckedTransport:
    """A transport that checks the bytes for every protocol set on it."""

    def __init__(self, transport: Any) -> None:
        self.own = transport
        self.write = transport.write  # avoids __getattr__ for each write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def set_protocol(self, protocol: Any) -> None:
        self.own.set_protocol(_CheckedProtocol(protocol, self.own))


class Wire:
    """The running event loop, with checked connections, for one connection of asyncpg."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.is_dialled = False  # whether an address was tried, so that the DSN was understood

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, protocol: Callable[[], Any], *address: Any, **options: Any) -> tuple[Any, Any]:
        return await self._dial(self._loop.create_connection, protocol, address, options)

    async def create_unix_connection(
        self, protocol: Callable[[], Any], *address: Any, **options: Any
    ) -> tuple[Any, Any]:
        return await self._dial(self._loop.create_unix_connection, protocol, address, options)

    async def start_tls(
        self, transport: _CheckedTransport, *arguments: Any, **options: Any
    ) -> _CheckedTransport | None:
        encrypted = await self._loop.start_tls(transport.own, *arguments, **options)
        return None if encrypted is None else _CheckedTransport(encrypted)

    async def _dial(
        self, connect: Any, protocol: Callable[[], Any], address: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Any, Any]:
        self.is_dialled = True
        transport, checked = await connect(lambda: _CheckedProtocol(protocol()), *address, **options)
        return _CheckedTransport(transport), checked.protocol
