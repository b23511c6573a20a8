"""The viewers of the `page` figure: so many open pages, as the page opens its stream.

    python -m benchmarks.page_viewers URL PAGES SECONDS COIN…      ─▶ {"quotes": …, "silent_s": …, "delays_ms": […]}

`quotes` came to all together, `silent_s` is the longest time in which nothing came to one of them, and `delays_ms` are
those of one page, from the recording of a quote to its arrival.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cotacoes.adapters.websocket_client import RawLink, connect
from cotacoes.errors import StreamRefusedError
from cotacoes.model.live_message import decode_message
from cotacoes.model.quote import Quote, to_microseconds

CONNECT_DEADLINE_S = 30.0
OPENED_AT_ONCE = 20
QUOTE = b'{"v":1,"type":"quote"'


@dataclass
class Viewer:
    """One open page. What it hears is counted; only one of them decodes it, since all share a core."""

    decodes: bool
    quotes: int = 0
    silent_s: float = 0.0
    delays_ms: list[float] = field(default_factory=list)
    _heard_s: float = field(default_factory=time.monotonic)

    def hear(self, message: bytes) -> None:
        now_s = time.monotonic()
        self.silent_s, self._heard_s = max(self.silent_s, now_s - self._heard_s), now_s
        if message.startswith(QUOTE):
            self.quotes += 1
            if self.decodes:
                now_us = time.time_ns() / 1000
                quotes = (line for line in decode_message(message) if isinstance(line, Quote))
                self.delays_ms += [(now_us - to_microseconds(quote.at)) / 1000 for quote in quotes]

    def begin(self) -> None:
        """Count from now on."""
        self.quotes, self.silent_s, self._heard_s = 0, 0.0, time.monotonic()
        self.delays_ms.clear()


async def opened_link(url: str) -> RawLink:
    """A link, once the gateway takes it: it limits how many are opened a second."""
    while True:
        try:
            return await connect(url, deadline_s=CONNECT_DEADLINE_S)
        except StreamRefusedError as refusal:
            await asyncio.sleep(refusal.retry_after_s or 1.0)


async def view(url: str, pages: int, seconds: float, coins: Sequence[str]) -> list[Viewer]:
    """Open the pages, and look for so long once all are open."""
    viewers = [Viewer(decodes=number == 0) for number in range(pages)]
    opening = asyncio.Semaphore(OPENED_AT_ONCE)
    opened = asyncio.Semaphore(0)

    async def follow(viewer: Viewer) -> None:
        async with opening:
            link = await opened_link(url)
            await link.send(json.dumps({"op": "subscribe", "topics": ["status"]}))
            await link.send(json.dumps({"op": "subscribe", "coins": list(coins)}))
            opened.release()
        await link.hand_over(viewer.hear)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(viewer)) for viewer in viewers]
        for _ in viewers:
            await opened.acquire()
        for viewer in viewers:
            viewer.begin()
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
    return viewers


def main(url: str, pages: int, seconds: float, coins: Sequence[str]) -> None:
    viewers = asyncio.run(view(url, pages, seconds, coins))
    found = {
        "quotes": sum(viewer.quotes for viewer in viewers),
        "silent_s": max(viewer.silent_s for viewer in viewers),
        "delays_ms": viewers[0].delays_ms,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
