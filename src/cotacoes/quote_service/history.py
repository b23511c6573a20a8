"""The state of one coin in quote_service: its epoch, its newest quote, and how far delivery has come.

It decides positions and times, and does no input or output; clocks are passed in. Other files read its fields and
change them only by its methods. A change is noted here after the log has committed it:

    draft(observations) ──▶ log.append ──▶ note_recorded ──▶ tail_batch ──▶ shard.append ──▶ note_delivered

Invariants: positions have no holes within an epoch; `at` never falls; `newest` is durable; an age never falls while the
quote stays the same, whatever happens to the wall clock.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice

from msgspec.structs import replace

from cotacoes.adapters.quote_log.rows import LoggedCoin, Mark
from cotacoes.model.quote import SEQ_MAX, Observation, Position, Quote, utc_now
from cotacoes.patterns.sharding.shard import Fence
from cotacoes.quote_service.recent_prices import FUTURE_MAX, JumpLimit, RecentPrices, recorded_at

TAIL_QUOTES_MAX = 10_000  # undelivered quotes held in memory; older ones are read from the log


class CoinHistory:
    """See the head of this file. `now` gives the wall time, `clock` monotonic seconds."""

    def __init__(
        self,
        coin: str,
        shard: str,
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        jump: JumpLimit = JumpLimit(),  # noqa: B008  # frozen
    ) -> None:
        self.coin = coin
        self.shard = shard
        self.turn = asyncio.Lock()  # held while the shard is written to: an epoch begins between two batches
        self.is_known = False  # whether log or shard has said what there is; until then nothing is not "empty"
        self.epoch: int | None = None  # the present one, or the last one until the next begins
        self.prev: Position | None = None  # the last position of the epoch before the present one
        self.newest: Quote | None = None
        self.recent = RecentPrices(jump)  # the recorded prices by which the next one is judged
        self.floor: Position | None = None  # the oldest one held anywhere
        self.cursor: str | None = None  # after which the source's tape is read on
        self.delivered: Position | None = None  # the last one that the shard has answered for
        self.pending = 0  # recorded quotes that are still to be delivered
        self.fence: Fence | None = None  # under which this process writes; None until the shard gives it (again)
        self.writer_epoch: int | None = None  # the highest one under which this process has had the fence, or will
        self.end: Position | None = None  # the last one on the shard, by its last answer to its writer
        self._now = now
        self._clock = clock
        self._jump = jump
        self._observed_s = 0.0  # when the newest quote was observed, on the monotonic clock
        self._epoch_seen = 0  # the highest one that log or shard know of
        self._is_over = False  # the epoch gives no further position
        self._seq = 0
        self._tail: deque[Quote] = deque(maxlen=TAIL_QUOTES_MAX)

    @property
    def position(self) -> Position | None:
        """The last position recorded."""
        return None if self.newest is None else self.newest.position

    @property
    def room(self) -> int:
        """How many positions the present epoch has left."""
        return SEQ_MAX - self._seq

    @property
    def age_s(self) -> float:
        """How long ago the newest quote was observed, by the clock that says longer: a wall clock can be set back.

        Infinite if its age is unknown: it was found with a time ahead of the clock, which was wrong when it was
        recorded.
        """
        assert self.newest is not None
        return max(0.0, self._age_by_wall_s(self.newest), self._clock() - self._observed_s)

    @property
    def can_draft(self) -> bool:
        """Whether the present epoch goes on and has a position left."""
        return self.epoch is not None and not self._is_over and self.room > 0

    def load(self, logged: LoggedCoin, pending: int, recent: Iterable[tuple[datetime, Decimal]] = ()) -> None:
        """Adopt what the log holds when it is opened. The present epoch ends, but delivery goes on under it.

        `recent` are the times and prices of the log's newest quotes before the last one, ascending.
        """
        self._is_over = True
        self.is_known = True
        self._epoch_seen = max(self._epoch_seen, logged.epoch)
        self._adopt_newer(logged.newest)
        self.recent = RecentPrices(self._jump)
        self.recent.add_older(recent)
        for quote in dict.fromkeys(filter(None, (logged.newest, self.newest))):  # the shard may have had a newer one
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
        """The last position known to be on the shard: by its answers, or by the log if that is further."""
        return max(filter(None, (self.delivered, logged)), default=None)

    def meet(self, fence: Fence) -> None:
        """Adopt what the shard says: the highest epoch, quotes newer than ours, the oldest one held."""
        self.is_known = True
        self._epoch_seen = max(self._epoch_seen, fence.epoch)
        self.floor = fence.floor or self.floor
        if self._adopt_newer(fence.newest):
            if self.pending == 0:
                self.delivered = fence.through
            if self._seq == 0:  # the epoch's first quote, still to come, follows this one
                self.prev = self.position

    def next_epoch(self, now_ms: int) -> int:
        """The number of the epoch to begin: above all known ones, and not below the clock."""
        return max(now_ms, 1 + self._epoch_seen)

    def begin_epoch(self, epoch: int) -> None:
        """The log has committed the epoch."""
        self.epoch = self._epoch_seen = epoch
        self._is_over = False
        self._seq = 0
        self.prev = self.position
        if self.writer_epoch != epoch:  # begun without the shard, whose fence is still to be asked for
            self.note_claim(epoch)

    def draft(self, observations: Sequence[Observation]) -> list[Quote]:
        """The quotes that these become, at the next positions; nothing changes until they are recorded.

        If the epoch has fewer positions left, only the first observations become quotes.
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
                    prev=self.prev if seq == 1 else None,
                    agreement=observation.agreement,
                )
            )
        return quotes

    def note_recorded(self, quotes: Sequence[Quote]) -> None:
        """The log has committed the quotes: their positions are used up."""
        assert (quotes[0].epoch, quotes[0].seq) == (self.epoch, self._seq + 1)
        self._seq = quotes[-1].seq
        for quote in quotes[:-1]:
            self.recent.add(quote, quote.at)
        self._adopt_newer(quotes[-1], is_found=False)
        self.floor = self.floor or quotes[0].position
        self.pending += len(quotes)
        self._tail.extend(quotes)

    def note_cursor(self, cursor: str | None) -> None:
        """The source's tape has been read up to here."""
        self.cursor = cursor

    def note_floor(self, floor: Position) -> None:
        """The shard has dropped what is older."""
        self.floor = floor

    def note_shard(self, shard: str) -> None:
        """The coin lives on this shard now."""
        self.shard = shard

    def note_claim(self, writer_epoch: int) -> None:
        """The fence is claimed under a new epoch, whether or not it has begun; the shard is still to confirm it."""
        self.writer_epoch, self.fence = writer_epoch, None

    def forget_fence(self) -> None:
        """The next delivery first asks the shard for the fence, and so how far the shard has come."""
        self.fence = None

    def note_writer(self, fence: Fence, pending: int) -> None:
        """The shard has confirmed this process as its writer; `pending` log entries lie after `resume_from(fence)`.

        An epoch that was begun without it follows the shard's end all the same, as the log does by now.
        """
        self.meet(fence)
        self.delivered = self.resume_from(fence)
        self.pending = pending
        self.fence = fence
        self.end = fence.through
        self._tail.clear()
        if self.end is not None and self.epoch is not None and self.end.epoch < self.epoch:
            self.prev = self.end if self.prev is None else max(self.prev, self.end)
            if self.newest is not None and (self.newest.epoch, self.newest.seq) == (self.epoch, 1):
                self.newest = replace(self.newest, prev=self.prev)

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
        """The shard has answered for the batch. An empty batch says that the log has nothing more to deliver."""
        if not batch:
            self.pending = 0
            return
        self.delivered = batch[-1].position
        self.end = self.delivered if self.end is None else max(self.end, self.delivered)
        self.pending = max(0, self.pending - len(batch))

    def mark(self) -> Mark:
        """What the log should know of delivery."""
        return Mark(self.delivered, self.floor, self.cursor)

    def _adopt_newer(self, quote: Quote | None, *, is_found: bool = True) -> bool:
        """Make this quote the newest if it is; whether it was. `is_found`: it was recorded before, not just now."""
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
