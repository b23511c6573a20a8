"""ccxt's parsing of exchange frames, as ccxt is set up by default: a frame goes in, what it resolves comes out."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.figure import MeasureError


class Top(NamedTuple):
    """The best bid and ask, and the time in milliseconds since 1970, in the type of number that ccxt was given."""

    bid: Any
    ask: Any
    at_ms: int | None


@dataclass
class _Client:
    """The part of ccxt's client that its handlers use; it keeps the latest dict that was resolved."""

    subscriptions: dict[str, Any] = field(default_factory=dict)
    futures: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    def resolve(self, result: Any, name: str | None = None) -> Any:
        if isinstance(result, dict) and ("bid" in result or "bids" in result):
            self.resolved = result
        return result

    def reject(self, error: Exception, name: str | None = None) -> None:
        raise error


BITFINEX_CHANNEL = {"104": {"channel": "ticker", "symbol": "tBTCUSD", "chanId": "104"}}


def _exchange(venue: str) -> Any:
    try:
        return getattr(importlib.import_module("ccxt.pro"), venue)()
    except ImportError as error:
        raise MeasureError("ccxt is not installed: run it as `make bench`") from error


def reader() -> Callable[[bytes], Any]:
    """Binance's book tickers alone, from a line of a recording."""
    exchange = _exchange("binance")

    def read(line: bytes) -> Any:
        return exchange.parse_ws_ticker(json.loads(line.partition(b" ")[2])["data"], "spot")

    return read


def book_reader(venue: str, *, number: type = float) -> Callable[[bytes], Top | None]:
    """The handlers of a venue: the book of a frame, None if it has none. `number` may be str, for exact digits."""
    exchange = _exchange(venue)
    exchange.number = number
    client = _Client(subscriptions=BITFINEX_CHANNEL if venue == "bitfinex" else {})

    def read(frame: bytes) -> Top | None:
        client.resolved = {}
        message = json.loads(frame)
        if venue == "bitstamp":  # its handler wants a book over HTTP first
            microseconds = int(message["data"]["microtimestamp"])
            client.resolved = exchange.parse_order_book(message["data"], "BTC/USD", microseconds // 1000)
        else:  # ccxt connects to the raw streams of Binance
            exchange.handle_message(client, message["data"] if venue == "binance" else message)
        return _top(client.resolved)

    return read


def _top(found: dict[str, Any]) -> Top | None:
    if "bids" in found:
        sides = [found[side][0][0] if found[side] else None for side in ("bids", "asks")]
    else:
        sides = [found.get("bid"), found.get("ask")]
    return None if None in sides else Top(sides[0], sides[1], found.get("timestamp"))
