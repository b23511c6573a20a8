"""Requests per second of HTTP answers: a keep-alive load of raw sockets, bounded in connections and time."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

CONNECTIONS = 16


class _Asker(asyncio.Protocol):
    """Asks again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self.answers = 0
        self.failed = 0
        self._request = request
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        self.answers += 1
        self.failed += not head.startswith(b"HTTP/1.1 200")
        assert self._transport is not None
        self._transport.write(self._request)


async def requests_per_second(port: int, path: str, seconds: float) -> float:
    """One round; every answer must be a 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: _Asker(request), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    answers = sum(asker.answers for _, asker in pairs)
    failed = sum(asker.failed for _, asker in pairs)
    for transport, _ in pairs:
        transport.close()
    if failed or not answers:
        raise RuntimeError(f"{failed} of {answers} answers of {path} were no 200")
    return answers / elapsed


async def compare(targets: dict[str, tuple[int, str]], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Several rounds over each (port, path), taken in turns so that noise meets all alike."""
    rates: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(rounds):
        for name, (port, path) in targets.items():
            rates[name].append(await requests_per_second(port, path, seconds))
    return rates


if __name__ == "__main__":
    port, path = int(sys.argv[1]), sys.argv[2]
    rates = [asyncio.run(requests_per_second(port, path, 3)) for _ in range(3)]
    sys.stdout.write(f"{statistics.median(rates):.0f} requests/s\n")
