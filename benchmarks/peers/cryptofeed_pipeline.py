"""cryptofeed's pipeline: its FeedHandler with a callback that stores each ticker.

    python -m benchmarks.peers.cryptofeed_pipeline FILE SECONDS VENUE=URL…   ─▶ {"cpu_s": …, "stored": …}
    python -m benchmarks.peers.cryptofeed_pipeline FILE 0 VENUE=URL…         ─▶ a line for each opening and new price

It reads the present tickers of Binance and OKX alone of the venues that are followed here. Its addresses and symbols
are attributes of classes, which subclasses replace: it asks an exchange for all of its symbols first, and refuses
addresses without TLS, so its connections get theirs before they are opened.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.ticker_store import TickerStore

CLASSES: Mapping[str, tuple[str, str]] = {"binance": ("Binance", ""), "okx": ("OKX", "-")}
ASSETS = ("BTC", "ETH")
STALLED_S = 10  # for its watcher, which then restarts a connection; by default 120, asked every 30
SYMBOLS = [f"{asset}-USDT" for asset in ASSETS]


def new_feed(venue: str, url: str, store: TickerStore, *, is_watched: bool) -> Any:
    """Its feed of a venue."""
    name, between = CLASSES[venue]
    base: Any = getattr(importlib.import_module("cryptofeed.exchanges"), name)
    endpoint: Any = importlib.import_module("cryptofeed.connection").WebsocketEndpoint
    is_told = False

    def note(kind: str) -> None:
        nonlocal is_told
        if is_watched and not (kind == "priced" and is_told):
            is_told = kind == "priced"
            sys.stdout.write(f"{json.dumps([venue, kind, time.monotonic()])}\n")
            sys.stdout.flush()

    class Local(base):  # type: ignore[misc]
        websocket_endpoints = [endpoint(url.replace("ws://", "wss://"))]  # noqa: RUF012

        @classmethod
        def symbol_mapping(cls, *_: Any, **__: Any) -> dict[str, str]:
            symbols = {symbol: symbol.replace("-", between) for symbol in SYMBOLS}
            kinds = {"instrument_type": dict.fromkeys(SYMBOLS, "spot"), "tick_size": dict.fromkeys(SYMBOLS, "0.01")}
            importlib.import_module("cryptofeed.symbols").Symbols.set(cls.id, symbols, kinds)
            return symbols

        def connect(self) -> Any:
            connections = super().connect()
            for connection, *_ in connections:
                connection.address = connection.address.replace("wss://", "ws://")
                opening = connection._open

                async def opened(opening: Any = opening) -> None:
                    await opening()
                    note("opened")

                connection._open = opened
            return connections

    async def put(ticker: Any, received_s: float) -> None:
        store.counts["received"] += 1
        store.put(venue, ticker.symbol, ticker.bid, ticker.ask, ticker.timestamp)
        note("priced")

    return Local(symbols=SYMBOLS, channels=["ticker"], callbacks={"ticker": put}, timeout=STALLED_S, timeout_interval=1)


def main(path: str, seconds: float, venues: Sequence[str]) -> None:
    handler = importlib.import_module("cryptofeed").FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
    store = TickerStore(path)
    for item in venues:
        venue, _, url = item.partition("=")
        handler.add_feed(new_feed(venue, url, store, is_watched=seconds == 0))
    loop = importlib.import_module("uvloop").new_event_loop()  # what it installs by itself
    asyncio.set_event_loop(loop)
    handler.run(start_loop=False, install_signal_handlers=False)
    loop.run_until_complete(store.measure(seconds) if seconds else store.commit())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
