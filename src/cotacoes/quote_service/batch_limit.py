"""How many quotes a batch may hold, so that it fits into the shard's deadline.

A batch that misses its deadline is rolled back; sent again as it was it would miss it again, for ever. So it is halved
until it fits, down to a single quote, and doubled again when a full one leaves enough of its time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cotacoes.errors import ShardTimedOutError
from cotacoes.patterns.sharding.shard import BATCH_QUOTES_MAX

SPARE_SHARE = 1 / 3  # of its deadline: what takes less still fits when it is twice as much, with room for a slow moment


class BatchLimit:
    """One coin's limit, `quotes`. `clock` gives monotonic seconds."""

    def __init__(self, deadline_s: float, clock: Callable[[], float]) -> None:
        self.quotes = BATCH_QUOTES_MAX
        self._spare_s = SPARE_SHARE * deadline_s
        self._clock = clock

    @contextlib.contextmanager
    def measured(self, quotes: int) -> Iterator[None]:
        """Within it a batch of so many quotes is stored, which decides how many the next may hold."""
        began = self._clock()
        try:
            yield
        except ShardTimedOutError:
            self.quotes = max(1, quotes // 2)
            raise
        if quotes >= self.quotes and self._clock() - began < self._spare_s:
            self.quotes = min(BATCH_QUOTES_MAX, 2 * self.quotes)
