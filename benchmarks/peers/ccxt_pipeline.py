"""ccxt.pro's pipeline: its own loops of `watch…`, and each price that they give is stored.

    python -m benchmarks.peers.ccxt_pipeline FILE SECONDS VENUE=URL…   ─▶ {"cpu_s": …, "received": …, "stored": …}
    python -m benchmarks.peers.ccxt_pipeline FILE 0 VENUE=URL…         ─▶ a line for each opening, error and new price

Addresses are options of ccxt, and so are markets. The class of a venue is its own, but for two hooks that count.
Binance wraps the frames of the combined stream; ccxt reads raw ones, so they are unwrapped for it. An error is answered
as in ccxt's own examples: by the next call.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.peers.ticker_store import TickerStore

# by venue: its method, the currency of its books, its way to write a pair, and where its addresses are
VENUES: Mapping[str, tuple[str, str, str, Callable[[str], Any]]] = {
    "binance": ("watch_bids_asks", "USDT", "", lambda url: {"spot": url}),
    "coinbase": ("watch_ticker", "USD", "-", lambda url: url),
    "kraken": ("watch_bids_asks", "USD", "/", lambda url: {"publicV2": url, "public": url}),
    "okx": ("watch_bids_asks", "USDT", "-", lambda url: url),
    "bybit": ("watch_bids_asks", "USDT", "", lambda url: {"public": {"spot": url}}),
}


def new_exchange(venue: str, url: str, note: Callable[[str], None]) -> Any:
    """ccxt's exchange at this address; `note` hears of `opened` and `received`."""
    base: Any = getattr(importlib.import_module("ccxt.pro"), venue)
    _, currency, between, addresses = VENUES[venue]

    class Counted(base):  # type: ignore[misc]
        def on_connected(self, client: Any, message: Any = None) -> None:
            note("opened")
            super().on_connected(client, message)

        def handle_message(self, client: Any, message: Any) -> None:
            note("received")
            if venue == "binance" and isinstance(message, dict):
                message = message.get("data", message)
            super().handle_message(client, message)

    exchange = Counted({"enableRateLimit": False, "newUpdates": True})
    exchange.urls["api"]["ws"] = addresses(url)
    pairs = [f"{asset}{between}{currency}" for asset in ("BTC", "ETH")]
    markets = [_market(asset, currency, pair) for asset, pair in zip(("BTC", "ETH"), pairs, strict=True)]
    exchange.set_markets([exchange.safe_market_structure(market) for market in markets])
    return exchange


def _market(asset: str, currency: str, pair: str) -> dict[str, Any]:
    return {
        "id": pair,
        "lowercaseId": pair.lower(),
        "symbol": f"{asset}/{currency}",
        "base": asset,
        "quote": currency,
        "baseId": asset,
        "quoteId": currency,
        "type": "spot",
        "spot": True,
        "active": True,
        "info": {"wsname": f"{asset}/{currency}"},
    }


async def follow(
    watch: Callable[[], Any], put: Callable[[Mapping[str, Any]], None], failed: Callable[[], None]
) -> None:
    """Call `watch…` again and again."""
    while True:
        try:
            found = await watch()
        except Exception:
            failed()
            await asyncio.sleep(0)
            continue
        for ticker in [found] if "bid" in found else found.values():
            put(ticker)


def watches(venue: str, exchange: Any) -> Sequence[Callable[[], Any]]:
    """The calls that bring the prices of both coins: one for both, or one for each."""
    method, currency, _, _ = VENUES[venue]
    symbols = [f"BTC/{currency}", f"ETH/{currency}"]
    watch = getattr(exchange, method)
    if method == "watch_ticker":
        return [functools.partial(watch, symbol) for symbol in symbols]
    return [functools.partial(watch, symbols)]


async def main(path: str, seconds: float, venues: Sequence[str]) -> None:
    store = TickerStore(path)
    tasks: list[asyncio.Future[None]] = []
    exchanges = []
    for item in venues:
        venue, _, url = item.partition("=")
        watcher = Watcher(venue, store) if seconds == 0 else None

        def note(kind: str, watcher: Watcher | None = watcher) -> None:
            store.counts[kind] += 1
            if watcher is not None:
                watcher.note(kind)

        def put(ticker: Mapping[str, Any], venue: str = venue, note: Callable[[str], None] = note) -> None:
            store.put(venue, ticker["symbol"], ticker["bid"], ticker["ask"], ticker["timestamp"])
            note("priced")

        exchange = new_exchange(venue, url, note)
        exchanges.append(exchange)
        failed = functools.partial(note, "failed")
        tasks += [asyncio.ensure_future(follow(watch, put, failed)) for watch in watches(venue, exchange)]
    if seconds:
        await store.measure(seconds)
    else:
        await store.commit()
    for task in tasks:
        task.cancel()
    for exchange in exchanges:
        await exchange.close()


class Watcher:
    """Prints what happens to a venue: each opening and failure, and the first price after one."""

    def __init__(self, venue: str, store: TickerStore) -> None:
        self._venue = venue
        self._is_told = False

    def note(self, kind: str) -> None:
        if kind == "received" or (kind == "priced" and self._is_told):
            return
        self._is_told = kind == "priced"
        sys.stdout.write(f"{json.dumps([self._venue, kind, time.monotonic()])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
