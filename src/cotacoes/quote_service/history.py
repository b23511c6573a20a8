"""The state of one coin in quote_service: its epoch, its newest quote, and how far delivery has come.

It decides positions and times, and does no input or output; clocks are passed in. Other files read it and change it
only by its methods. A change is noted here after the log has committed it:

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
        self.turn = asyncio.Lock()  # held while the shard is written to: an epoch begins between two batches
        self._shard = shard
        self._now = now
        self._clock = clock
        self._jump = jump
        self._epoch: int | None = None
        self._epoch_seen = 0  # the highest one that log or shard know of
        self._is_over = False  # the epoch gives no further position
        self._seq = 0
        self._prev: Position | None = None
        self._newest: Quote | None = None
        self._observed_s = 0.0  # when the newest quote was observed, on the monotonic clock
        self._recent = RecentPrices(jump)
        self._is_known = False
        self._floor: Position | None = None
        self._cursor: str | None = None
        self._delivered: Position | None = None
        self._pending = 0
        self._tail: deque[Quote] = deque(maxlen=TAIL_QUOTES_MAX)
        self._fence: Fence | None = None
        self._writer_epoch: int | None = None
        self._end: Position | None = None

    @property
    def shard(self) -> str:
        """The name of the coin's shard."""
        return self._shard

    @property
    def epoch(self) -> int | None:
        """The present epoch, or the last one until the next begins; None before the first of this process."""
        return self._epoch

    @property
    def newest(self) -> Quote | None:
        """The newest quote recorded."""
        return self._newest

    @property
    def recent(self) -> RecentPrices:
        """The recorded prices by which the next one is judged."""
        return self._recent

    @property
    def is_known(self) -> bool:
        """Whether the log or the shard has said what the coin has; until then an empty history proves nothing."""
        return self._is_known

    @property
    def floor(self) -> Position | None:
        """The oldest position held anywhere."""
        return self._floor

    @property
    def cursor(self) -> str | None:
        """Up to where the source's tape has been read."""
        return self._cursor

    @property
    def delivered(self) -> Position | None:
        """The last position that the shard has answered for."""
        return self._delivered

    @property
    def pending(self) -> int:
        """How many recorded quotes are still to be delivered."""
        return self._pending

    @property
    def fence(self) -> Fence | None:
        """The fence under which this process writes to the shard; None until the shard gives it (again)."""
        return self._fence

    @property
    def writer_epoch(self) -> int | None:
        """The highest epoch under which this process has had the fence, or will ask for it."""
        return self._writer_epoch

    @property
    def end(self) -> Position | None:
        """The last position on the shard, by the last answer to its writer."""
        return self._end

    @property
    def position(self) -> Position | None:
        """The last position recorded."""
        return None if self._newest is None else self._newest.position

    @property
    def prev(self) -> Position | None:
        """The last position of the epoch before the present one."""
        return self._prev

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
        assert self._newest is not None
        return max(0.0, self._age_by_wall_s(self._newest), self._clock() - self._observed_s)

    @property
    def can_draft(self) -> bool:
        """Whether the present epoch goes on and has a position left."""
        return self._epoch is not None and not self._is_over and self.room > 0

    def load(self, logged: LoggedCoin, pending: int, recent: Iterable[tuple[datetime, Decimal]] = ()) -> None:
        """Adopt what the log holds when it is opened. The present epoch ends, but delivery goes on under it.

        `recent` are the times and prices of the log's newest quotes before the last one, ascending.
        """
        self._is_over = True
        self._is_known = True
        self._epoch_seen = max(self._epoch_seen, logged.epoch)
        self._adopt_newer(logged.newest)
        self._recent = RecentPrices(self._jump)
        self._recent.add_older(recent)
        for quote in dict.fromkeys(filter(None, (logged.newest, self._newest))):  # the shard may have had a newer one
            self._recent.add(quote, quote.at)
        self._delivered = self.delivered_or(logged.delivered)
        self._floor = logged.floor or self._floor
        self._cursor = logged.cursor
        self._pending = pending
        self._tail.clear()

    def judged_since(self, logged: Quote) -> datetime:
        """From which time on recorded prices judge the one that follows `logged`."""
        return logged.at - self._jump.window

    def delivered_or(self, logged: Position | None) -> Position | None:
        """The last position known to be on the shard: by its answers, or by the log if that is further."""
        return max(filter(None, (self._delivered, logged)), default=None)

    def meet(self, fence: Fence) -> None:
        """Adopt what the shard says: the highest epoch, quotes newer than ours, the oldest one held."""
        self._is_known = True
        self._epoch_seen = max(self._epoch_seen, fence.epoch)
        self._floor = fence.floor or self._floor
        if self._adopt_newer(fence.newest):
            if self._pending == 0:
                self._delivered = fence.through
            if self._seq == 0:  # the epoch's first quote, still to come, follows this one
                self._prev = self.position

    def next_epoch(self, now_ms: int) -> int:
        """The number of the epoch to begin: above all known ones, and not below the clock."""
        return max(now_ms, 1 + self._epoch_seen)

    def begin_epoch(self, epoch: int) -> None:
        """The log has committed the epoch."""
        self._epoch = self._epoch_seen = epoch
        self._is_over = False
        self._seq = 0
        self._prev = self.position
        if self._writer_epoch != epoch:  # begun without the shard, whose fence is still to be asked for
            self.note_claim(epoch)

    def draft(self, observations: Sequence[Observation]) -> list[Quote]:
        """The quotes that these become, at the next positions; nothing changes until they are recorded.

        If the epoch has fewer positions left, only the first observations become quotes.
        """
        assert self._epoch is not None
        now = self._now()
        quotes: list[Quote] = []
        before = None if self._newest is None else self._newest.at
        for seq, observation in enumerate(observations[: self.room], start=self._seq + 1):
            at = before = recorded_at(before, observation.observed_at, now)
            quotes.append(
                Quote(
                    coin=self.coin,
                    currency=observation.currency,
                    price=observation.price,
                    epoch=self._epoch,
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
        assert (quotes[0].epoch, quotes[0].seq) == (self._epoch, self._seq + 1)
        self._seq = quotes[-1].seq
        for quote in quotes[:-1]:
            self._recent.add(quote, quote.at)
        self._adopt_newer(quotes[-1], is_found=False)
        self._floor = self._floor or quotes[0].position
        self._pending += len(quotes)
        self._tail.extend(quotes)

    def note_cursor(self, cursor: str | None) -> None:
        """The source's tape has been read up to here."""
        self._cursor = cursor

    def note_floor(self, floor: Position) -> None:
        """The shard has dropped what is older."""
        self._floor = floor

    def note_shard(self, shard: str) -> None:
        """The coin lives on this shard now."""
        self._shard = shard

    def note_claim(self, writer_epoch: int) -> None:
        """The fence is claimed under a new epoch, whether or not it has begun; the shard is still to confirm it."""
        self._writer_epoch, self._fence = writer_epoch, None

    def forget_fence(self) -> None:
        """The next delivery first asks the shard for the fence, and so how far the shard has come."""
        self._fence = None

    def note_writer(self, fence: Fence, pending: int) -> None:
        """The shard has confirmed this process as its writer; `pending` log entries lie after `resume_from(fence)`.

        An epoch that was begun without it follows the shard's end all the same, as the log does by now.
        """
        self.meet(fence)
        self._delivered = self.resume_from(fence)
        self._pending = pending
        self._fence = fence
        self._end = fence.through
        self._tail.clear()
        if self._end is not None and self._epoch is not None and self._end.epoch < self._epoch:
            self._prev = self._end if self._prev is None else max(self._prev, self._end)
            if self._newest is not None and (self._newest.epoch, self._newest.seq) == (self._epoch, 1):
                self._newest = replace(self._newest, prev=self._prev)

    def resume_from(self, fence: Fence) -> Position | None:
        """Where delivery goes on: what the shard lacks or may lack is sent again, which does no harm."""
        if self._delivered is None or fence.through is None:
            return None
        return min(self._delivered, fence.through)

    def tail_batch(self, limit: int) -> Sequence[Quote] | None:
        """The next quotes to deliver, at most `limit`; None if memory does not hold all: read them from the log."""
        while self._tail and self._delivered is not None and self._tail[0].position <= self._delivered:
            self._tail.popleft()
        if len(self._tail) < self._pending:
            return None
        return list(islice(self._tail, limit))

    def hole_before(self, batch: Sequence[Quote]) -> Quote | None:
        """The first quote of the batch that is new to the shard, if the shard lacks what comes before it."""
        end = self._end
        first = next((quote for quote in batch if end is None or quote.position > end), None)
        if first is None or first.before is None or (end is not None and first.before <= end):
            return None
        return first

    def note_delivered(self, batch: Sequence[Quote]) -> None:
        """The shard has answered for the batch. An empty batch says that the log has nothing more to deliver."""
        if not batch:
            self._pending = 0
            return
        self._delivered = batch[-1].position
        self._end = self._delivered if self._end is None else max(self._end, self._delivered)
        self._pending = max(0, self._pending - len(batch))

    def mark(self) -> Mark:
        """What the log should know of delivery."""
        return Mark(self._delivered, self._floor, self._cursor)

    def _adopt_newer(self, quote: Quote | None, *, is_found: bool = True) -> bool:
        """Make this quote the newest if it is; whether it was. `is_found`: it was recorded before, not just now."""
        if quote is None or (self.position is not None and quote.position <= self.position):
            return False
        self._newest = quote
        self._recent.add(quote, quote.at)
        age_s = self._age_by_wall_s(quote)
        is_unknown = is_found and age_s < -FUTURE_MAX.total_seconds()
        self._observed_s = -math.inf if is_unknown else self._clock() - max(0.0, age_s)
        return True

    def _age_by_wall_s(self, quote: Quote) -> float:
        return (self._now() - quote.observed_at).total_seconds()
