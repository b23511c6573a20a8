"""The subscriber of the `live` figure: listens for a while, and prints how long each quote was on its way.

    python -m benchmarks.live_listener URL SECONDS COIN…      ─▶ {"coin": [[observed_us, arrived_us], …], …}

URL is that of Redis, or of the gateway's WebSocket. A process of its own, with the system's own adapters, as any
subscriber in Python would have it. The wall clock is read when a message has come, before anything is done with it; all
decoding waits for the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.adapters.websocket_client import connect
from cotacoes.model.live_message import channel, decode_message
from cotacoes.model.quote import Quote, to_microseconds

CONNECT_DEADLINE_S = 2.0
QUOTE = b'{"v":1,"type":"quote"'


async def listen(url: str, seconds: float, coins: Sequence[str]) -> list[tuple[int, bytes]]:
    """What came in the time, each message after the microsecond of its arrival."""
    return await (listen_on_gateway if url.startswith("ws") else listen_on_redis)(url, seconds, coins)


async def listen_on_gateway(url: str, seconds: float, coins: Sequence[str]) -> list[tuple[int, bytes]]:
    heard: list[tuple[int, bytes]] = []
    link = await connect(url, deadline_s=CONNECT_DEADLINE_S)
    await link.send(json.dumps({"op": "subscribe", "coins": list(coins)}))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                frame = await link.receive()
                heard.append((time.time_ns() // 1000, frame.encode() if isinstance(frame, str) else frame))
    link.abort()
    quotes = [(at, frame) for at, frame in heard if frame.startswith(QUOTE)]
    return quotes[len(coins) :]  # less the newest ones, which come first and were there before


async def listen_on_redis(url: str, seconds: float, coins: Sequence[str]) -> list[tuple[int, bytes]]:
    heard: list[tuple[int, bytes]] = []
    with contextlib.suppress(TimeoutError):
        async with (
            RedisBus(url, deadline_s=CONNECT_DEADLINE_S) as bus,
            bus.subscribe([channel(coin) for coin in coins]) as messages,
            asyncio.timeout(seconds),
        ):
            async for _, message in messages:
                heard.append((time.time_ns() // 1000, message))
    return heard


def times_on_the_way(heard: Sequence[tuple[int, bytes]]) -> dict[str, list[tuple[int, int]]]:
    """By coin: when each quote was observed and when it arrived, in microseconds since 1970."""
    times: dict[str, list[tuple[int, int]]] = {}
    for arrived_us, message in heard:
        for line in decode_message(message):
            if isinstance(line, Quote):
                times.setdefault(line.coin, []).append((to_microseconds(line.observed_at), arrived_us))
    return times


if __name__ == "__main__":
    sys.stdout.write(json.dumps(times_on_the_way(asyncio.run(listen(sys.argv[1], float(sys.argv[2]), sys.argv[3:])))))
