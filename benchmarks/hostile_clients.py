"""Clients that mean harm, as a process of their own: `python -m benchmarks.hostile_clients KIND PORT SECONDS`.

They talk to loopback only, are few, and end by themselves when their time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"
REQUEST = f"GET /livez HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
HANDSHAKE = (
    f"GET /v1/ws HTTP/1.1\r\nhost: {HOST}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
CHUNKED = f"PUT /livez HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
MASK = bytes(4)  # of zeros: what is masked with it stays as it is
EMPTY_TEXT, EMPTY_CONTINUATION, PONG, PING = (bytes([first, 0x80]) + MASK for first in (0x01, 0x00, 0x8A, 0x89))
SUBSCRIPTION = b'{"method":"subscribe","params":{"channel":"ticker","symbol":["BTC/USD","ETH/USD"]},"req_id":1}'
BURST_FRAMES = 43_690  # as many as fit into the 256 KiB that asyncio reads at once
COINS = 1_000
WRITE_BYTES = 65_536
RECONNECT_S = 0.05  # refused clients that come back at once would measure the accepting only

Until = Callable[[], bool]
Attack = Callable[[int, Until], Awaitable[None]]


def repeated(begin: bytes, part: bytes) -> Attack:
    """Connect, send `begin`, then `part` without an end or a pause, reading whatever comes; connect again if cut."""
    block = part * max(1, WRITE_BYTES // len(part))

    async def attack(port: int, until: Until) -> None:
        async with connected(port) as (reader, writer):
            swallow = asyncio.create_task(_swallow(reader))
            try:
                writer.write(begin)
                while not until() and not swallow.done():
                    writer.write(block)
                    await writer.drain()
            finally:
                swallow.cancel()

    return attack


async def burst(port: int, until: Until) -> None:
    """All frames in one write, as soon as the WebSocket is open."""
    async with connected(port) as (reader, writer):
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PING * BURST_FRAMES)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await _swallow(reader)


async def unknown_coins(port: int, until: Until) -> None:
    """Ask for coins that there are not, one after another, each answer waited for."""
    async with connected(port) as (reader, writer):
        for number in range(COINS):
            if until():
                return
            writer.write(f"GET /v1/quotes/unknown-{number}/current HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))


async def tape_pages(port: int, until: Until) -> None:
    """Ask for the tape of feed_service from its beginning, in the largest pages, each answer read."""
    async with connected(port) as (reader, writer):
        writer.write(_tape_request("wait_ms=0"))
        await reader.readuntil(b'"next":"')
        run = (await reader.readuntil(b"-"))[:-1].decode()
        await repeated(b"", _tape_request(f"after={run}-0&limit=10000"))(port, until)


async def tape_waits(port: int, until: Until) -> None:
    """Ask for the next price of the tape, again and again."""
    async with connected(port) as (reader, writer):
        while not until():
            writer.write(_tape_request("limit=1&wait_ms=4000"))
            await reader.readuntil(b'"next":"')


async def venue_streams(port: int, until: Until) -> None:
    """Subscribe at a simulated exchange, and read nothing."""
    async with connected(port) as (reader, writer):
        writer.write(HANDSHAKE.replace(b"/v1/ws", b"/venues/kraken/stream"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81" + bytes([0x80 | 126, 0, len(SUBSCRIPTION)]) + MASK + SUBSCRIPTION)
        await asyncio.Event().wait()  # until the time is over


def _tape_request(query: str) -> bytes:
    return f"GET /quotes?{query} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


async def silent(port: int, until: Until) -> None:
    """Connect, and say nothing."""
    async with connected(port):
        await asyncio.Event().wait()  # until the time is over


ATTACKS: dict[str, tuple[int, Attack]] = {  # how many connections, and what each does
    "pipelining": (1, repeated(b"", REQUEST)),
    "pipelining-four": (4, repeated(b"", REQUEST)),
    "continuations": (1, repeated(HANDSHAKE + EMPTY_TEXT, EMPTY_CONTINUATION)),
    "pongs": (1, repeated(HANDSHAKE, PONG)),
    "burst": (1, burst),
    "unknown-coins": (1, unknown_coins),
    "chunk-extensions": (2, repeated(CHUNKED, b"1;" + b"e" * 4_000 + b"\r\nx\r\n")),
    "nonsense": (4, repeated(b"", b"nonsense\r\n\r\n")),
    "other-hosts": (4, repeated(b"", b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n")),
    "silent": (100, silent),
    "tape-pages": (2, tape_pages),
    "tape-waits": (100, tape_waits),
    "venue-streams": (100, venue_streams),
}


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _swallow(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(WRITE_BYTES):
            pass


async def run(kind: str, port: int, seconds: float) -> None:
    """Attack for so long."""
    ends = time.monotonic() + seconds
    connections, attack = ATTACKS[kind]

    async def again_and_again() -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, ends - time.monotonic())):
                    await attack(port, lambda: time.monotonic() >= ends)
            await asyncio.sleep(RECONNECT_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(again_and_again())


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
