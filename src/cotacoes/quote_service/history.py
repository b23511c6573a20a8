"""One coin's history as quote_service holds it in memory: the era, the newest quote, how far delivery has come.

Pure: decides positions and times, touches nothing; clocks are passed in. The log is told first, and only what it has
committed is noted here:

    draft(observations) ──▶ log.append ──▶ note_recorded ──▶ tail_batch ──▶ shard.append ──▶ note_delivered

Invariants: positions are given without holes within an era; `at` never falls; `newest` is durable; an age never falls
while the quote stays the same, whatever is done to the wall clock.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice

from msgspec.structs import replace

from cotacoes.adapters.quote_log.rows import LoggedCoin, Mark
from cotacoes.model.quote import SEQ_MAX, Observation, Position, Quote
from cotacoes.patterns.sharding.shard import Fence
from cotacoes.quote_service.recent_prices import FUTURE_MAX, JumpLimit, RecentPrices, recorded_at

TAIL_QUOTES_MAX = 10_000  # undelivered quotes kept in memory; older ones are read from the log


class CoinHistory:
    """See the head of this file. `now` gives the wall time, `clock` monotonic seconds."""

    def __init__(
        self,
        coin: str,
        shard: str,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        jump: JumpLimit = JumpLimit(),  # noqa: B008  # frozen
    ) -> None:
        self.coin = coin
        self.shard = shard
        self.epoch: int | None = None
        self.newest: Quote | None = None
        self.recent = RecentPrices(jump)  # the prices by which the next one is judged
        self.is_known = False  # whether log or shard have said what there is; before that, nothing is no answer
        self.delivered: Position | None = None
        self.floor: Position | None = None
        self.cursor: str | None = None  # where the source's tape was taken to
        self.pending = 0
        self.fence: Fence | None = None
        self._jump = jump
        self.writer_epoch: int | None = None  # the highest number under which this process has had the fence, or will
        self.end: Position | None = None  # where the shard ends, by its last answer to its writer
        self.turn = asyncio.Lock()  # held while the shard is written to: an era begins between two batches
        self._now = now
        self._clock = clock
        self._observed_s = 0.0  # when the newest quote was observed, on the monotonic clock
        self._seq = 0
        self._is_over = False
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
    def room(self) -> int:
        """How many positions the present era has left."""
        return SEQ_MAX - self._seq

    @property
    def age_s(self) -> float:
        """How long ago the newest quote was observed, by the clock that says longer: a wall clock can be set back.

        Infinite if nobody can know: it was found with a time ahead of the clock, which was wrong when it was recorded.
        """
        assert self.newest is not None
        return max(0.0, self._age_by_wall_s(self.newest), self._clock() - self._observed_s)

    @property
    def can_draft(self) -> bool:
        """Whether the present era goes on, and has a position left."""
        return self.epoch is not None and not self._is_over and self.room > 0

    def load(self, logged: LoggedCoin, pending: int, recent: Iterable[tuple[datetime, Decimal]] = ()) -> None:
        """Take over what the log says, at its opening. The era is over, if there is one: it gives no further position.

        `recent` are the times and prices of its newest quotes before the last one, ascending.

        It stays the era under which delivery goes on, until the next one begins.
        """
        self._is_over = True
        self.is_known = True
        self._era_seen = max(self._era_seen, logged.epoch)
        self._take_newer(logged.newest)
        self.recent = RecentPrices(self._jump)
        self.recent.add_older(recent)
        for quote in dict.fromkeys(filter(None, (logged.newest, self.newest))):  # the shard may have told a newer one
            self.recent.add(quote, quote.at)
        self.delivered = self.delivered_or(logged.delivered)
        self.floor = logged.floor or self.floor
        self.cursor = logged.cursor
        self.pending = pending
        self._tail.clear()

    def judged_since(self, logged: Quote) -> datetime:
        """From which time on recorded prices judge the one that follows `logged`."""
        return logged.at - self._jump.window

    def delivered_or(self, logged: Position | None) -> Position | None:
        """How far the shard is known to have come: by what it answered us, or by what the log says, if that is more."""
        return max(filter(None, (self.delivered, logged)), default=None)

    def meet(self, fence: Fence) -> None:
        """Take over what the shard says: the highest era, quotes newer than ours, the oldest one held."""
        self.is_known = True
        self._era_seen = max(self._era_seen, fence.epoch)
        self.floor = fence.floor or self.floor
        if self._take_newer(fence.newest):
            if self.pending == 0:
                self.delivered = fence.through
            if self._seq == 0:  # the era's first quote, still to come, follows this one
                self._prev = self.position

    def next_epoch(self, now_ms: int) -> int:
        """The number of the era to begin: above all known ones, and not below the clock."""
        return max(now_ms, 1 + self._era_seen)

    def begin_era(self, epoch: int) -> None:
        """The log has committed the era."""
        self.epoch = self._era_seen = epoch
        self._is_over = False
        self._seq = 0
        self._prev = self.position
        if self.writer_epoch != epoch:  # begun without the shard, which has to be asked for its fence
            self.writer_epoch, self.fence = epoch, None

    def draft(self, observations: Sequence[Observation]) -> list[Quote]:
        """The quotes that these become, at the next positions; nothing changes until they are recorded.

        Where the era has fewer positions left than that, only the first ones become quotes.
        """
        assert self.epoch is not None
        now = self._now()
        quotes: list[Quote] = []
        before = None if self.newest is None else self.newest.at
        for seq, observation in enumerate(observations[: self.room], start=self._seq + 1):
            at = before = recorded_at(before, observation.observed_at, now)
            quotes.append(
                Quote(
                    coin=self.coin,
                    currency=observation.currency,
                    price=observation.price,
                    epoch=self.epoch,
                    seq=seq,
                    observed_at=observation.observed_at,
                    at=at,
                    origin=observation.origin,
                    prev=self._prev if seq == 1 else None,
                )
            )
        return quotes

    def note_recorded(self, quotes: Sequence[Quote]) -> None:
        """The log has committed the quotes: their positions are used up."""
        assert (quotes[0].epoch, quotes[0].seq) == (self.epoch, self._seq + 1)
        self._seq = quotes[-1].seq
        for quote in quotes[:-1]:
            self.recent.add(quote, quote.at)
        self._take_newer(quotes[-1], is_found=False)
        self.floor = self.floor or quotes[0].position
        self.pending += len(quotes)
        self._tail.extend(quotes)

    def note_claim(self, writer_epoch: int) -> None:
        """The shard has given this process the fence under a new number, whether or not an era is begun with it."""
        self.writer_epoch, self.fence = writer_epoch, None

    def note_writer(self, fence: Fence, pending: int) -> None:
        """The shard has taken us as its writer; `pending` entries of the log lie after `resume_from(fence)`.

        An era that was begun without it follows the shard's end all the same, as the log does by now.
        """
        self.meet(fence)
        self.delivered = self.resume_from(fence)
        self.pending = pending
        self.fence = fence
        self.end = fence.through
        self._tail.clear()
        if self.end is not None and self.epoch is not None and self.end.epoch < self.epoch:
            self._prev = self.end if self._prev is None else max(self._prev, self.end)
            if self.newest is not None and (self.newest.epoch, self.newest.seq) == (self.epoch, 1):
                self.newest = replace(self.newest, prev=self._prev)

    def resume_from(self, fence: Fence) -> Position | None:
        """Where delivery goes on: what the shard lacks or may lack is sent again, which does no harm."""
        if self.delivered is None or fence.through is None:
            return None
        return min(self.delivered, fence.through)

    def tail_batch(self, limit: int) -> Sequence[Quote] | None:
        """The next quotes to deliver, at most `limit`; None if memory does not hold all: read them from the log."""
        while self._tail and self.delivered is not None and self._tail[0].position <= self.delivered:
            self._tail.popleft()
        if len(self._tail) < self.pending:
            return None
        return list(islice(self._tail, limit))

    def hole_before(self, batch: Sequence[Quote]) -> Quote | None:
        """The first quote of the batch that is new to the shard, if the shard lacks what comes before it."""
        end = self.end
        first = next((quote for quote in batch if end is None or quote.position > end), None)
        if first is None or first.before is None or (end is not None and first.before <= end):
            return None
        return first

    def note_delivered(self, batch: Sequence[Quote]) -> None:
        """The shard has answered for the batch."""
        self.delivered = batch[-1].position
        self.end = self.delivered if self.end is None else max(self.end, self.delivered)
        self.pending = max(0, self.pending - len(batch))

    def mark(self) -> Mark:
        """What the log should know of delivery."""
        return Mark(self.delivered, self.floor, self.cursor)

    def _take_newer(self, quote: Quote | None, *, is_found: bool = True) -> bool:
        """Whether this quote is newer than what we have, and so the newest now. `is_found`: it was recorded before."""
        if quote is None or (self.position is not None and quote.position <= self.position):
            return False
        self.newest = quote
        self.recent.add(quote, quote.at)
        age_s = self._age_by_wall_s(quote)
        is_unknown = is_found and age_s < -FUTURE_MAX.total_seconds()
        self._observed_s = -math.inf if is_unknown else self._clock() - max(0.0, age_s)
        return True

    def _age_by_wall_s(self, quote: Quote) -> float:
        return (self._now() - quote.observed_at).total_seconds()
