"""ccxt's parsing of a book ticker frame, as ccxt is set up by default."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from benchmarks.figure import MeasureError


def reader() -> Callable[[bytes], Any]:
    try:
        exchange: Any = importlib.import_module("ccxt.pro").binance()
    except ImportError as error:
        raise MeasureError("ccxt is not installed: run it as `make bench`") from error

    def read(line: bytes) -> Any:
        return exchange.parse_ws_ticker(json.loads(line.partition(b" ")[2])["data"], "spot")

    return read
