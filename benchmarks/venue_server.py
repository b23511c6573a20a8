"""The venues of the `feed` figures: a server of WebSockets that sends frames which were made beforehand.

    python -m benchmarks.venue_server FRAMES_PER_S   ─▶ its port, then for each step of a price [coin, price, at_ns]

    ws://127.0.0.1:PORT/pace/VENUE…    all paced connections together get about FRAMES_PER_S
    ws://127.0.0.1:PORT/slow/VENUE…    one frame a second of each symbol
    ws://127.0.0.1:PORT/flood/VENUE…   as many frames as are read

A client gets the symbols that its messages or its address name. Frames bear the present time, in milliseconds. At a
pace, a price stands until its step, and then all venues send the new one at once; most frames of a real market repeat
the price, too. `at_ns` is the monotonic clock of the machine, which every process reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from benchmarks.made_frames import AT_MS, BOOKS, SYMBOLS
from benchmarks.venue_frames import made_frame
from cotacoes.adapters.websocket_server import text_frame
from cotacoes.model.venue_symbols import rate_symbols_at, symbol_at

COINS = {"bitcoin": 6_000_000, "ethereum": 300_000}  # by name, the price in cents
VENUES = 6  # of which each gets the same share of the pace
STEP_S = 0.2  # between two steps of a coin, on the average
SLOW_S = 1.0
RATE_S = 1.0  # between two frames of a stablecoin
CHUNK_BYTES = 60_000
CHUNKS = 8
STAMPS = [f"{AT_MS}".encode(), f"{AT_MS - 1}".encode()]
ISO_STAMP = b"2026-08-13T09:26:14.873"
NUMBER = b'"sequence_num":2,'


class Client:
    """A connection: what it asked for, and the frames that it gets."""

    def __init__(self, connection: ServerConnection, venue: str) -> None:
        self.venue = venue
        self._asked = ""
        self._heard = asyncio.Event()
        self._connection = connection
        self._number = 0

    def hear(self, text: str) -> None:
        """The client has named symbols."""
        self._asked += text.lower()
        self._heard.set()
        self._heard = asyncio.Event()

    async def symbol(self, coin: str) -> str:
        """The venue's symbol of a coin, once the client has asked for it."""
        while (symbol := self.wants(coin)) is None:
            await self._heard.wait()
        return symbol

    def wants(self, coin: str) -> str | None:
        """The venue's symbol of a coin, if the client has asked for it."""
        pair = symbol_at(self.venue, coin, {})
        return None if pair is None or pair.symbol.lower() not in self._asked else pair.symbol

    def frame(self, symbol: str, cents: int) -> bytes:
        """A frame of the WebSocket, with a stamp that is still to be replaced."""
        return self._framed(made_frame(self.venue, cents), symbol)

    def rate_frames(self) -> Sequence[bytes]:
        """A frame of each stablecoin that the client has asked for: a dollar."""
        symbols = rate_symbols_at(self.venue, {}).values()
        return [
            self._framed(BOOKS[self.venue]("0.9999", "1.0001"), symbol)
            for symbol in symbols
            if symbol.lower() in self._asked
        ]

    def write(self, frames: bytes) -> None:
        """Send frames, with the present time and the numbers of this connection."""
        now_ms = time.time_ns() // 1_000_000
        for stamp in STAMPS:
            frames = frames.replace(stamp, b"%d" % now_ms)
        iso = f"{datetime.fromtimestamp(now_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}"
        frames = frames.replace(ISO_STAMP, iso.encode())
        if self.venue == "coinbase":
            frames = self._numbered(frames)
        if self._connection.state is State.OPEN:
            self._connection.transport.write(frames)

    async def drain(self) -> None:
        """Wait until little of what was written is still to be read."""
        await self._connection.drain()
        await asyncio.sleep(0)

    def _framed(self, frame: bytes, symbol: str) -> bytes:
        made = SYMBOLS[self.venue]
        frame = frame.replace(made.encode(), symbol.encode()).replace(made.lower().encode(), symbol.lower().encode())
        return text_frame(frame.replace(NUMBER, b'"sequence_num":1000000000,'))

    def _numbered(self, frames: bytes) -> bytes:
        first, *others = frames.split(b'"sequence_num":1000000000')
        numbered = [first]
        for part in others:
            self._number += 1
            numbered += [b'"sequence_num":%d' % (1_000_000_000 + self._number), part]
        return b"".join(numbered)


class Market:
    """The prices, and the connections that are paced."""

    def __init__(self, frames_per_s: float) -> None:
        self._pause_s = VENUES * len(COINS) / frames_per_s
        self._cents = dict(COINS)
        self._clients: set[Client] = set()

    async def serve(self, connection: ServerConnection) -> None:
        """Send a client its frames until it leaves."""
        assert connection.request is not None
        _, mode, venue, *_ = connection.request.path.split("/")
        client = Client(connection, venue.partition("?")[0])
        client.hear(connection.request.path)
        tasks = [asyncio.create_task(self._send_rates(client))]
        for coin in COINS:
            sending = self._flood(client, coin) if mode == "flood" else self._send_paced(client, coin, mode)
            tasks.append(asyncio.create_task(sending))
        self._clients |= set() if mode == "flood" else {client}
        try:
            async for message in connection:
                if message == "ping":
                    await connection.send("pong")
                client.hear(str(message))
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            for task in tasks:
                task.cancel()

    async def step(self, coin: str) -> None:
        """Let the price of a coin rise at random moments; say so."""
        dice = random.Random(coin)
        while True:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * STEP_S)
            self._cents[coin] += 2
            cents, at_ns = self._cents[coin], time.monotonic_ns()
            for client in self._clients:
                if (symbol := client.wants(coin)) is not None:
                    client.write(client.frame(symbol, cents))
            middle = cents * 10 + 5  # a frame's ask is a cent above its bid
            _say([coin, f"{middle // 1000}.{middle % 1000:03d}", at_ns])

    async def _send_paced(self, client: Client, coin: str, mode: str) -> None:
        pause_s = self._pause_s if mode == "pace" else SLOW_S
        dice = random.Random(f"{client.venue}/{coin}")
        frames: dict[int, bytes] = {}
        while True:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * pause_s)
            if (symbol := client.wants(coin)) is not None:
                cents = self._cents[coin]
                if cents not in frames:
                    frames = {cents: client.frame(symbol, cents)}
                client.write(frames[cents])

    async def _flood(self, client: Client, coin: str) -> None:
        symbol = await client.symbol(coin)
        dice = random.Random(coin)
        size = max(1, CHUNK_BYTES // len(client.frame(symbol, COINS[coin])))
        chunks = []
        for _ in range(CHUNKS):
            steps = (dice.randrange(-100, 101) for _ in range(size))
            chunks.append(b"".join(client.frame(symbol, COINS[coin] + step) for step in steps))
        while True:
            for chunk in chunks:
                client.write(chunk)
                await client.drain()

    async def _send_rates(self, client: Client) -> None:
        while True:
            await asyncio.sleep(RATE_S)
            for frame in client.rate_frames():
                client.write(frame)


async def main(frames_per_s: float) -> None:
    """Serve until ended."""
    market = Market(frames_per_s)
    async with (
        serve(market.serve, "127.0.0.1", 0, compression=None, ping_interval=None) as server,
        asyncio.TaskGroup() as group,
    ):
        _say(next(iter(server.sockets)).getsockname()[1])
        for coin in COINS:
            group.create_task(market.step(coin))


def _say(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(float(sys.argv[1])))
