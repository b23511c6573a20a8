"""The listener of the `feed` figure: when each price came, as an entry of feed_service's tape and as a quote on Redis.

    python -m benchmarks.feed_listener REDIS_URL FEED_URL SECONDS COIN…   ─▶ {"entries": {coin: [[price, at_ns], …]}, …}

A process of its own, with the adapters of the system. `at_ns` is read from the monotonic clock of the machine when an
answer or a message has come; all decoding waits for the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence

from cotacoes.adapters.http_client import HttpClient
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.model.live_message import channel, decode_message
from cotacoes.model.quote import Quote, format_price

DEADLINE_S = 3.0
BODY_BYTES_MAX = 1_048_576
Arrivals = dict[str, list[tuple[str, int]]]


async def listen(redis_url: str, feed_url: str, seconds: float, coins: Sequence[str]) -> dict[str, Arrivals]:
    """What came within the time."""
    answers: list[tuple[int, bytes]] = []
    messages: list[tuple[int, bytes]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            group.create_task(_read_tape(feed_url, answers))
            group.create_task(_subscribe(redis_url, coins, messages))
    entries: Arrivals = {}
    for at_ns, body in answers:
        for entry in json.loads(body)["quotes"]:
            entries.setdefault(entry["coin"], []).append((entry["price"], at_ns))
    quotes: Arrivals = {}
    for at_ns, message in messages:
        for line in decode_message(message):
            if isinstance(line, Quote):
                quotes.setdefault(line.coin, []).append((format_price(line.price), at_ns))
    return {"entries": entries, "quotes": quotes}


async def _read_tape(url: str, answers: list[tuple[int, bytes]]) -> None:
    async with HttpClient(deadline_s=DEADLINE_S, bytes_max=BODY_BYTES_MAX) as client:
        after = ""
        while True:
            body = (await client.get(f"{url}/quotes?wait_ms=1000{after}")).body
            answers.append((time.monotonic_ns(), body))
            after = f"&after={json.loads(body)['next']}"


async def _subscribe(url: str, coins: Sequence[str], messages: list[tuple[int, bytes]]) -> None:
    async with (
        RedisBus(url, deadline_s=DEADLINE_S) as bus,
        bus.subscribe([channel(coin) for coin in coins]) as heard,
    ):
        async for _, message in heard:
            messages.append((time.monotonic_ns(), message))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(listen(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]))))
