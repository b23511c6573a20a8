"""The answers of `/quote`, good and bad, as raw ASGI: a framework would repair what is broken here on purpose.

Every bad answer ends: by itself, or by a cut connection when the client leaves, the service stops or `hold_s` is over.
"""

from __future__ import annotations

import asyncio
import functools
import struct
import zlib
from collections.abc import Iterable, Iterator

from starlette.responses import Response

from cotacoes.adapters.http_server import connection
from cotacoes.adapters.http_server.connection import Receive, Scope, Send
from cotacoes.errors import ProblemError
from cotacoes.errors.problem_json import PROBLEM_JSON, problem_body
from cotacoes.external_service.faults import FaultKind

HUGE_BYTES = 64 * 1024 * 1024
BOMB_BYTES = 200 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
DRIP_PAUSE_S = 0.1  # shorter than any timeout of a single read
GARBAGE = bytes(range(256))
HTML = b"<!doctype html><title>Maintenance</title><p>We will be right back."

JSON_TYPE = "application/json"

_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time
_DEFLATE_END = b"\x03\x00"  # RFC 1951: a last, empty block


class SimulatedFailureError(ProblemError):
    """A failure on purpose, with the status that is set at `/faults`. Nothing is broken."""

    slug, title, status = "simulated-failure", "Simulated failure", 503

    def __init__(self, detail: str, *, status: int = 503, retry_after_s: float | None = None, **extra: object) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)
        self.status = status


def refusal(status: int, retry_after_s: int | None) -> Response:
    """An error on purpose; 429 and 503 have a `Retry-After` if one is set."""
    failure = SimulatedFailureError("this source fails on purpose; see /faults for how often", status=status)
    headers = {"cache-control": "no-store"}
    if retry_after_s is not None and status in {429, 503}:
        headers["retry-after"] = str(retry_after_s)
    return Response(problem_body(failure), status, headers, PROBLEM_JSON)


class BadAnswer(Response):
    """The good body as `kind` alters it; holds the connection for `hold_s` at most, and ends with `stopping`."""

    def __init__(self, kind: FaultKind, good: bytes, *, hold_s: float, stopping: asyncio.Event) -> None:
        super().__init__()
        self._kind = kind
        self._good = good
        self._hold_s = hold_s
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match self._kind:
            case FaultKind.HANG:
                await self._ended(receive, self._hold_s)
                await connection.cut(scope)
            case FaultKind.CUT_BODY:
                await _start(send, 200, ("content-type", JSON_TYPE), ("content-length", str(len(self._good))))
                await send(
                    {"type": "http.response.body", "body": self._good[: len(self._good) // 2], "more_body": True}
                )
                await connection.cut(scope)
            case FaultKind.DRIP_BODY:
                await self._drip(scope, receive, send)
            case FaultKind.HUGE_BODY:
                await _start(send, 200, ("content-type", JSON_TYPE))
                await _stream(send, _huge())
            case FaultKind.GZIP_BOMB:
                bomb = await asyncio.to_thread(gzip_bomb)
                await _start(send, 200, ("content-type", JSON_TYPE), ("content-encoding", "gzip"))
                await _stream(send, _chunks(bomb))
            case FaultKind.GARBAGE:
                await _whole(send, 200, GARBAGE, ("content-type", JSON_TYPE))
            case FaultKind.HTML_200:
                await _whole(send, 200, HTML, ("content-type", "text/html"))
            case FaultKind.REDIRECT:
                await _whole(send, 302, b"", ("location", "/livez"))
            case _:
                raise AssertionError(f"{self._kind.value} is not a fault of the answer")

    async def _drip(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Byte by byte, each within any read timeout, so that the whole never arrives."""
        await _start(send, 200, ("content-type", JSON_TYPE), ("content-length", str(len(self._good))))
        for index in range(min(len(self._good) - 1, int(self._hold_s / DRIP_PAUSE_S))):
            await send({"type": "http.response.body", "body": self._good[index : index + 1], "more_body": True})
            if await self._ended(receive, DRIP_PAUSE_S):
                break
        await connection.cut(scope)

    async def _ended(self, receive: Receive, wait_s: float) -> bool:
        """Wait; True as soon as the client has left or the service stops."""
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(_left(receive)), group.create_task(self._stopping.wait())]
            done, _ = await asyncio.wait(ends, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in ends:
                task.cancel()
        return bool(done)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int, *headers: tuple[str, str]) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in (*headers, ("cache-control", "no-store"))]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _whole(send: Send, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    await _start(send, status, *headers, ("content-length", str(len(body))))
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _huge() -> Iterator[bytes]:
    """One very long JSON string, of which only a chunk exists at a time."""
    yield b'{"bitcoin":"'
    for _ in range(HUGE_BYTES // CHUNK_BYTES):
        yield b"9" * CHUNK_BYTES
    yield b'"}'


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), CHUNK_BYTES):
        yield body[start : start + CHUNK_BYTES]


@functools.cache
def gzip_bomb() -> bytes:
    """A gzip body of some 200 KB that inflates to `BOMB_BYTES` spaces; made once, in about 50 ms, and cached.

    Only one piece is packed: after a full flush it refers to nothing before it, so it can be repeated.
    """
    piece = b" " * (1024 * 1024)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    count = BOMB_BYTES // len(piece)
    checksum = functools.reduce(lambda so_far, _: zlib.crc32(piece, so_far), range(count), 0)
    return _GZIP_HEAD + packed * count + _DEFLATE_END + struct.pack("<II", checksum, count * len(piece))
