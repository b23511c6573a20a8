"""A subscriber of the `intake` figure: waits until a flood is in Valkey, takes it in, prints the seconds it took.

    python -m benchmarks.fanout_intake_listener ours|redis-py PORT QUOTES      ─▶ `ready`, then the seconds

Both decode each line and account for its position; a gap ends them with 1.
"""

from __future__ import annotations

import asyncio
import sys
import time

import redis

from benchmarks.fanout_history import COIN
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.feed.feeds import Feeds
from cotacoes.model.live_message import channel
from cotacoes.patterns.pub_sub.recovery_events import QuoteReceived

DEADLINE_S = 60.0
GO = "intake:go"  # a list: whoever waits for it goes once something is in it
KINDS = ("ours", "redis-py")


class Account:
    """Takes in messages until all quotes are there."""

    def __init__(self, quotes: int) -> None:
        self._left = quotes
        self._feeds = Feeds([COIN], time.monotonic())
        self._feeds[COIN].skip_start()

    def take(self, message: bytes) -> bool:
        """Whether that was the last; ValueError at a gap."""
        _, events = self._feeds.receive(channel(COIN), message, time.monotonic())
        for event in events:
            if not isinstance(event, QuoteReceived):
                raise ValueError(f"lost: {event}")
        self._left -= len(events)
        return self._left <= 0


async def ours(port: int, account: Account) -> float:
    url = f"redis://127.0.0.1:{port}"
    async with RedisBus(url, deadline_s=DEADLINE_S) as bus, bus.subscribe([channel(COIN)]) as messages:
        await asyncio.to_thread(_wait, port)
        started = time.monotonic()
        async for _, message in messages:
            if account.take(message):
                break
        return time.monotonic() - started


def redis_py(port: int, account: Account) -> float:
    with redis.Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(channel(COIN))
        listener.get_message(timeout=DEADLINE_S)  # the confirmation
        _wait(port)
        started = time.monotonic()
        for message in listener.listen():
            if account.take(message["data"]):
                break
        return time.monotonic() - started


def _wait(port: int) -> None:
    """Say that it may begin, and wait until it has."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with redis.Redis(port=port, socket_timeout=2 * DEADLINE_S) as client:
        client.blpop([GO], DEADLINE_S)


def main(kind: str, port: int, quotes: int) -> None:
    account = Account(quotes)
    elapsed_s = asyncio.run(ours(port, account)) if kind == "ours" else redis_py(port, account)
    sys.stdout.write(str(elapsed_s))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
