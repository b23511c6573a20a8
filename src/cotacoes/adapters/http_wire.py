"""The network under the HTTP client: it counts the bytes of an answer on the wire, and notices bytes beyond it.

If a server sends a second answer unasked, the client would take it for the answer to its next question. The pool drops
an idle connection if there is something to read on it, which it takes for a sign that it was closed. So this network
reports something to read if more bytes came than the answer has, or if its length is unknown (chunks, no length).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_WITHOUT_BODY = re.compile(rb"HTTP/1\.[01] (204|304)")


class CountedNetwork(httpcore2.AsyncNetworkBackend):
    """Connections on which an answer may take `bytes_max` bytes, including its head and the framing of its chunks."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        return _CountedStream(stream, self._bytes_max)


class _CountedStream(httpcore2.AsyncNetworkStream):
    """One connection; the count begins again with each request."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, bytes_max: int) -> None:
        self._stream = stream
        self._bytes_max = bytes_max
        self._head = b""
        self._received = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._received += len(data)
        if self._received > self._bytes_max:
            raise httpcore2.ReadError(f"the answer takes more than {self._bytes_max} bytes")
        if _HEAD_END not in self._head:
            self._head += data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._received:
            self._head, self._received = b"", 0
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _CountedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._bytes_max)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._received and self._received != answer_bytes(self._head):
            return True
        return self._stream.get_extra_info(info)


def answer_bytes(start: bytes) -> int | None:
    """The number of bytes of the answer that starts like this; None if its head does not say."""
    head, end, _ = start.partition(_HEAD_END)
    if not end or _CODING.search(head):
        return None
    if _WITHOUT_BODY.match(head):
        return len(head) + len(end)
    length = _LENGTH.search(head + b"\r\n")
    return None if length is None else len(head) + len(end) + int(length[1])
