"""How many quotes a batch may hold, so that it fits into the shard's deadline.

A batch that misses its deadline is rolled back, and would miss it again if it were sent again as it was. So the limit
is halved until a batch fits, down to a single quote, and doubled when a full batch leaves enough of its time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from cotacoes.errors import ShardTimedOutError
from cotacoes.patterns.sharding.shard import BATCH_QUOTES_MAX

SPARE_SHARE = 1 / 3  # of the deadline: twice as many quotes still fit, with room for a slow moment


class BatchLimit:
    """One coin's limit, `quotes`. `clock` gives monotonic seconds."""

    def __init__(self, deadline_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.quotes = BATCH_QUOTES_MAX
        self._spare_s = SPARE_SHARE * deadline_s
        self._clock = clock

    @contextlib.contextmanager
    def measured(self, quotes: int) -> Iterator[None]:
        """Store a batch of so many quotes within this context; its time decides how many the next one may hold."""
        began = self._clock()
        try:
            yield
        except ShardTimedOutError:
            self.quotes = max(1, quotes // 2)
            raise
        if quotes >= self.quotes and self._clock() - began < self._spare_s:
            self.quotes = min(BATCH_QUOTES_MAX, 2 * self.quotes)
