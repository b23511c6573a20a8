"""A source that names thousands of coins nobody asked for, as a process: `… hostile_source PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime

COINS = {"bitcoin": "67012.34", "ethereum": "3512.10"}
UNKNOWN = 9_990


def answer() -> bytes:
    """One answer of the source, with the present prices."""
    prices = COINS | {f"unknown-{number}": "1.5" for number in range(UNKNOWN)}
    told = prices | {
        "observed_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "currency": dict.fromkeys(prices, "USD"),
        "origin": "sim",
    }
    body = json.dumps(told).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def main() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer())
                await writer.drain()
        except (OSError, EOFError):
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
