"""Trimming of the local log: delivered entries are dropped, oldest first, a few at a time.

These entries of each coin stay:

    undelivered ones           however many, up to the quota
    the newest 1,000           so that short ranges can be read while the shard is away
    recorded recently          within `COTACOES_LOG_KEPT_S`, so that a shard restored from a backup of that age gets
                               back all that it lost; only while the log fills no more than half of its quota

So a tape at full speed cannot fill the log: beyond half of the quota only the newest 1,000 stay. What counts is when an
entry was recorded and not its own time, since the source decides how old that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from cotacoes.adapters.quote_log.rows import QUERIES
from cotacoes.model.quote import Position, Quote, position_of, to_microseconds

KEPT_QUOTES = 1_000
QUOTA_SHARE = 0.5  # up to which delivered entries are retained for a time
TRIM_EVERY = 500
TRIM_COINS_MAX = 4  # in one append, so that no commit waits until a thousand coins are trimmed
TRIM_QUOTES_MAX = 5_000  # in one trim: a long backlog, delivered at last, is not dropped within one deadline

_NONE = (None, None, None, None)

Execute = Callable[[str, Any], Any]  # of the log's database


@dataclass(frozen=True)
class Retention:
    """Which delivered entries of a coin stay: the newest `quotes`, and those recorded within the last `seconds`.

    A coin is trimmed after `every` further quotes.
    """

    quotes: int = KEPT_QUOTES
    seconds: float = 0.0
    every: int = TRIM_EVERY


NEWEST_ONLY = Retention()


class Trimming:
    """Decides what to drop, and drops it. `now` gives the wall time."""

    def __init__(self, retention: Retention, now: Callable[[], datetime]) -> None:
        self._retention = retention
        self._now = now
        self._untrimmed: Counter[str] = Counter()

    def due(self, recorded: Sequence[Quote]) -> list[str]:
        """The coins to be trimmed after these further quotes."""
        self._untrimmed.update(quote.coin for quote in recorded)
        every = self._retention.every
        return list(islice((coin for coin, count in self._untrimmed.items() if count >= every), TRIM_COINS_MAX))

    def trim(self, execute: Execute, coins: Iterable[str], *, is_tight: bool) -> None:
        """Drop the entries of these coins that are no longer needed; if there are too many, the rest soon."""
        left = TRIM_QUOTES_MAX
        for coin in coins:
            if left == 0:
                self._untrimmed[coin] = self._retention.every
                continue
            self._untrimmed.pop(coin, None)  # a coin that comes again comes after the others
            end = self._end(execute, coin)
            if end is None:
                continue
            beyond = execute(QUERIES["trim_beyond"], (coin, *end, left)).fetchone()
            if beyond is not None:
                end = Position(*beyond)
            young = None if is_tight else self._first_young(execute, coin, end)
            if beyond is not None and young is None:
                self._untrimmed[coin] = self._retention.every
            left -= execute(QUERIES["trim"], (coin, *(young or end))).rowcount

    def _end(self, execute: Execute, coin: str) -> Position | None:
        """The oldest entry that stays whatever its age; None if all stay."""
        row = execute(QUERIES["trim_bounds"], {"coin": coin, "kept": self._retention.quotes - 1}).fetchone() or _NONE
        delivered, kept = position_of(*row[:2]), position_of(*row[2:])
        return None if delivered is None or kept is None else min(delivered, kept)

    def _first_young(self, execute: Execute, coin: str, end: Position) -> Position | None:
        """The first entry before `end` that was recorded within the time of retention."""
        since = to_microseconds(self._now()) - round(self._retention.seconds * 1_000_000)
        found = execute(QUERIES["trim_young"], (coin, *end, since)).fetchone()
        return None if found is None else Position(*found)
