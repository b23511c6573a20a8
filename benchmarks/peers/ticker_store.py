"""Where the peers' programs store each price: SQLite, and one durable commit for all prices of 50 ms.

A peer's package may need other releases of what the system uses, so its program runs on an interpreter of its own, and
uses nothing of the system.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections import Counter
from typing import Any

COMMIT_S = 0.05
WARM_S = 2.0


class TickerStore:
    """A table of prices. `counts` has what was received and stored, and what else the program counts."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        self._connection.execute("CREATE TABLE ticker (venue TEXT, symbol TEXT, bid TEXT, ask TEXT, at REAL)")
        self._connection.execute("BEGIN")
        self._first = asyncio.Event()
        self.counts: Counter[str] = Counter()

    def put(self, venue: str, symbol: str, bid: Any, ask: Any, at: float | None) -> None:
        """Store a price."""
        self._connection.execute("INSERT INTO ticker VALUES (?,?,?,?,?)", (venue, symbol, str(bid), str(ask), at))
        self.counts["stored"] += 1
        self._first.set()

    async def commit(self) -> None:
        """Commit for as long as the program runs."""
        while True:
            await asyncio.sleep(COMMIT_S)
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN")

    async def measure(self, seconds: float) -> None:
        """Print what came within these seconds, and what processor time it took."""
        committing = asyncio.ensure_future(self.commit())
        await self._first.wait()
        await asyncio.sleep(WARM_S)
        before, cpu_s, began_s = self.counts.copy(), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu_s, elapsed_s = time.process_time() - cpu_s, time.monotonic() - began_s
        committing.cancel()
        sys.stdout.write(json.dumps({"cpu_s": cpu_s, "elapsed_s": elapsed_s, **(self.counts - before)}) + "\n")
        sys.stdout.flush()
