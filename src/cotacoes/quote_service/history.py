"""One coin's history as quote_service holds it in memory: the era, the newest quote, how far delivery has come.

Pure: decides positions and times, touches nothing. The log is told first, and only what it has committed is noted here:

    draft(observation) ──▶ log.append ──▶ note_recorded ──▶ next_batch ──▶ shard.append ──▶ note_delivered

Invariants: positions are given without holes within an era; `at` never falls; `newest` is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from cotacoes.adapters.quote_log import LoggedCoin, Mark
from cotacoes.patterns.sharding import BATCH_QUOTES_MAX, Fence
from cotacoes.quote import SEQ_MAX, Observation, Position, Quote

TAIL_QUOTES_MAX = 10_000  # undelivered quotes kept in memory; older ones are read from the log


class CoinHistory:
    """See the head of this file."""

    def __init__(self, coin: str, shard: str) -> None:
        self.coin = coin
        self.shard = shard
        self.epoch: int | None = None
        self.newest: Quote | None = None
        self.delivered: Position | None = None
        self.floor: Position | None = None
        self.pending = 0
        self.fence: Fence | None = None
        self._seq = 0
        self._prev: Position | None = None
        self._era_seen = 0
        self._tail: deque[Quote] = deque(maxlen=TAIL_QUOTES_MAX)

    @property
    def position(self) -> Position | None:
        """The last position recorded."""
        return None if self.newest is None else self.newest.position

    @property
    def prev(self) -> Position | None:
        """The last position of the era before the present one."""
        return self._prev

    @property
    def has_local_state(self) -> bool:
        """Whether an era is known, from the log or the shard, after which a new one can begin."""
        return self._era_seen > 0

    @property
    def can_draft(self) -> bool:
        """Whether the present era has a position left."""
        return self.epoch is not None and self._seq < SEQ_MAX

    def load(self, logged: LoggedCoin, pending: int) -> None:
        """Take over what the log says, at its opening; the era is over, a new one must begin."""
        self.epoch = None
        self._era_seen = max(self._era_seen, logged.epoch)
        if logged.newest is not None and (self.position is None or logged.newest.position > self.position):
            self.newest = logged.newest
        self.delivered = logged.delivered
        self.floor = logged.floor or self.floor
        self.pending = pending
        self.fence = None
        self._tail.clear()

    def meet(self, fence: Fence) -> None:
        """Take over what the shard says: the highest era, quotes newer than ours, the oldest one held."""
        self._era_seen = max(self._era_seen, fence.epoch)
        self.floor = fence.floor or self.floor
        if fence.newest is not None and (self.position is None or fence.newest.position > self.position):
            self.newest = fence.newest
            if self.pending == 0:
                self.delivered = fence.through

    def next_epoch(self, now_ms: int) -> int:
        """The number of the era to begin: above all known ones, and not below the clock."""
        return max(now_ms, 1 + self._era_seen)

    def begin_era(self, epoch: int) -> None:
        """The log has committed the era."""
        self.epoch = self._era_seen = epoch
        self._seq = 0
        self._prev = self.position
        self.fence = None

    def draft(self, observation: Observation, now: datetime) -> Quote:
        """The quote that this observation becomes, at the next position; nothing changes until it is recorded."""
        assert self.epoch is not None
        at = min(observation.observed_at, now)
        return Quote(
            coin=self.coin,
            currency=observation.currency,
            price=observation.price,
            epoch=self.epoch,
            seq=self._seq + 1,
            observed_at=observation.observed_at,
            at=at if self.newest is None else max(self.newest.at, at),
            origin=observation.origin,
            prev=self._prev if self._seq == 0 else None,
        )

    def note_recorded(self, quote: Quote) -> None:
        """The log has committed the quote: the position is used up."""
        assert (quote.epoch, quote.seq) == (self.epoch, self._seq + 1)
        self._seq = quote.seq
        self.newest = quote
        self.floor = self.floor or quote.position
        self.pending += 1
        self._tail.append(quote)

    def note_writer(self, fence: Fence, pending: int) -> None:
        """The shard has taken us as its writer; `pending` entries of the log lie after `resume_from(fence)`."""
        self.meet(fence)
        self.delivered = self.resume_from(fence)
        self.pending = pending
        self.fence = fence

    def resume_from(self, fence: Fence) -> Position | None:
        """Where delivery goes on: what the shard lacks or may lack is sent again, which does no harm."""
        if self.delivered is None or fence.through is None:
            return None
        return min(self.delivered, fence.through)

    def tail_batch(self) -> Sequence[Quote] | None:
        """The next quotes to deliver, where memory holds them all; None: read them from the log."""
        while self._tail and self.delivered is not None and self._tail[0].position <= self.delivered:
            self._tail.popleft()
        if len(self._tail) < self.pending:
            return None
        return list(islice(self._tail, BATCH_QUOTES_MAX))

    def note_delivered(self, batch: Sequence[Quote]) -> None:
        """The shard has answered for the batch."""
        self.delivered = batch[-1].position
        self.pending = max(0, self.pending - len(batch))

    def mark(self) -> Mark:
        """What the log should know of delivery."""
        return Mark(self.delivered, self.floor)
