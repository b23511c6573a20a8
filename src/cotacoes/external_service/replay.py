"""A recorded market, played again: when each price is due, what time it bears, and which one is the newest.

    Timeline    when each price is due and what time it bears, from the start of the playback session
    Playing     the newest price of each coin whose time has come

Prices have indices 1, 2, 3 … from the start of the recording, over all laps of a loop. A thread reads them in batches,
so no request waits for a disk.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from prometheus_client import Counter

from cotacoes.external_service.recording import LineCounts, Recording
from cotacoes.external_service.recording_formats import Recorded
from cotacoes.model.quote import Observation, from_microseconds, utc_now
from cotacoes.observability.logs import get_logger

BATCH_PRICES = 2_000  # some 10 ms of work
LAP_PAUSE_NS = 1_000_000_000  # between the last price of a lap and the first of the next
MAX_SPEED = math.inf  # as fast as the tape is read


class Played(NamedTuple):
    """One price of the session: `number` is its index, `offset_ns` when it is due, since the session's start.

    A price that goes back in time is due with the one before, and its own time is `late_ns` before that.
    """

    number: int
    offset_ns: int
    recorded: Recorded
    late_ns: int = 0

    @property
    def own_ns(self) -> int:
        """Its own receive time, since the session's start."""
        return self.offset_ns - self.late_ns


@dataclass(frozen=True)
class Lap:
    """One time through the recording."""

    prices: int
    length_ns: int


def measure(recording: Recording) -> Lap:
    """Read the whole recording once, to know when it ends. Blocking."""
    first_ns = last_ns = None
    count = 0
    for recorded in recording.prices(LineCounts()):
        first_ns = recorded.received_ns if first_ns is None else first_ns
        last_ns = max(last_ns or 0, recorded.received_ns)
        count += 1
    assert first_ns is not None, "`check` has found a price"
    assert last_ns is not None
    return Lap(count, last_ns - first_ns + LAP_PAUSE_NS)


@dataclass(frozen=True)
class Timeline:
    """The session began at `started_at`, which is `started_s` on the monotonic `clock`; `now` gives the wall time.

    `lap` is None if the recording is played once; `keeps_times`: prices bear the times that were recorded.
    """

    recording: Recording
    speed: float
    started_at: datetime
    started_s: float
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = utc_now
    lap: Lap | None = None
    keeps_times: bool = False

    def played(self, lines: LineCounts, lap: int = 0) -> Iterator[Played]:
        """The prices of the session from the start of a lap on; OSError if the recording cannot be read."""
        while True:
            start_ns = None
            offset_ns = 0
            prices = self.recording.prices(lines)
            if self.lap is not None:
                prices = itertools.islice(prices, self.lap.prices)  # it may have grown since it was measured
            for number, recorded in enumerate(prices, start=self.first_of(lap)):
                start_ns = recorded.received_ns if start_ns is None else start_ns
                own_ns = recorded.received_ns - start_ns
                offset_ns = max(offset_ns, own_ns)  # a pace does not go back
                lap_ns = 0 if self.lap is None else lap * self.lap.length_ns
                yield Played(number, lap_ns + offset_ns, recorded, offset_ns - own_ns)
            if self.lap is None or start_ns is None:
                return
            lap += 1

    def first_of(self, lap: int) -> int:
        """The index of a lap's first price."""
        return 1 if self.lap is None else 1 + lap * self.lap.prices

    def lap_of(self, index: int) -> int:
        """The lap of an index."""
        return 0 if self.lap is None else (index - 1) // self.lap.prices

    def lap_due(self) -> int:
        """The lap that is played now: a resumed session begins to read at its start."""
        if self.lap is None:
            return 0
        elapsed_ns = max(0.0, self.clock() - self.started_s) * self.speed * 1e9
        return int(elapsed_ns // self.lap.length_ns)

    def due_s(self, played: Played) -> float:
        """The second of the monotonic clock at which the price is due."""
        return self.started_s + played.offset_ns / 1e9 / self.speed

    def observation(self, played: Played) -> Observation:
        """The price, if it is due, with the time that it bears."""
        received_ns, observed_ns, coin, currency, price, agreement = played.recorded
        if self.keeps_times:
            at = from_microseconds(observed_ns // 1000)
        elif self.speed == MAX_SPEED:
            at = self.now()  # without a pace there are no intervals to preserve
        else:
            own_lag_ns = received_ns - observed_ns
            shifted = self.started_at + timedelta(microseconds=(played.own_ns - own_lag_ns) / 1e3 / self.speed)
            at = min(shifted, self.now())  # a wall clock that was set back must not make a price of the future
        return Observation(coin, currency, price, at, self.recording.origin, agreement)


class Playing:
    """A `Market` that plays by the clock while `run` runs. `lines_counter` counts lines by outcome."""

    def __init__(
        self, timeline: Timeline, *, lines_counter: Counter, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.origin = timeline.recording.origin
        self._timeline = timeline
        self._lines_counter = lines_counter
        self._sleep = sleep
        self._coming: deque[tuple[float, Played]] = deque()  # with the second at which each is due
        self._newest: dict[str, Observation] = {}
        self._newest_ns: dict[str, int] = {}

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to the newest price whose time has come."""
        passed: dict[str, Played] = {}
        moment = self._timeline.clock()
        while self._coming and self._coming[0][0] <= moment:
            _, played = self._coming.popleft()
            coin = played.recorded.coin
            if played.own_ns >= self._newest_ns.get(coin, played.own_ns):  # else it goes back in time
                passed[coin] = played
                self._newest_ns[coin] = played.own_ns
        for coin, played in passed.items():
            self._newest[coin] = self._timeline.observation(played)
        return self._newest

    async def run(self) -> None:
        """Play to the end, once. Then the last prices stay, with their times, and grow old."""
        timeline, lines = self._timeline, LineCounts()
        prices = timeline.played(lines, timeline.lap_due())
        try:
            while batch := await asyncio.to_thread(_batch, prices):
                lines.drain(self._lines_counter)
                self._coming.extend((timeline.due_s(played), played) for played in batch)
                await self._until(timeline.due_s(batch[0]))
        except OSError as error:
            get_logger().warning("replay.broken", origin=self.origin, reason=str(error))
        lines.drain(self._lines_counter)
        if self._coming:
            await self._until(self._coming[-1][0])
        get_logger().info("replay.ended", origin=timeline.recording.origin)

    async def _until(self, due_s: float) -> None:
        """Sleep until that second, then drop the prices that are past."""
        await self._sleep(max(0.0, due_s - self._timeline.clock()))
        self.quotes()


def _batch(prices: Iterator[Played]) -> list[Played]:
    return list(itertools.islice(prices, BATCH_PRICES))
