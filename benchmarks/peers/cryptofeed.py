"""cryptofeed's parsing of ticker frames: its own handlers, with a callback that does nothing.

It is in no lock file, since it has no wheel and so needs a compiler. It is measured if it is installed:
`.venv/bin/python -m pip install cryptofeed`.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable
from typing import Any

# of the venues that we follow, those whose tickers it reads in their present protocols
CLASSES = {"binance": ("Binance", "BTCUSDT"), "okx": ("OKX", "BTC-USDT")}


def book_reader(venue: str) -> Callable[[bytes], Any] | None:
    """The handler of a venue; None without cryptofeed, or if it does not read what we read."""
    if venue not in CLASSES:
        return None
    name, symbol = CLASSES[venue]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exchange_class: Any = getattr(importlib.import_module("cryptofeed.exchanges"), name)
    except ImportError:
        return None
    exchange = exchange_class.__new__(exchange_class)  # its own construction asks the exchange for all symbols
    exchange.exchange_symbol_mapping = {symbol: "BTC-USDT"}
    exchange.requires_authentication = False
    exchange.callbacks = {"ticker": [_ignore]}

    def read(frame: bytes) -> None:
        with contextlib.suppress(StopIteration):  # it waits for nothing, so one step is all of it
            exchange.message_handler(frame.decode(), None, 0.0).send(None)
            raise AssertionError("cryptofeed waits for something")

    return read


async def _ignore(ticker: Any, received_s: float) -> None:
    """Take a ticker."""
