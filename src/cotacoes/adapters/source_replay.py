"""A recorded market, played again: by the clock for the newest price, page by page for who wants each one.

    Timeline    when each price is due and what time it bears, from the moment at which the run began
    Playing     the newest price of each coin whose time has come
    ReplayTape  the prices after any index, in order, as far as their time has come

Prices have indices 1, 2, 3 … from the start of the recording, over all laps of a loop. The recording itself is what the
tape is kept on: whoever asks from further back makes it be read again, so no price is ever forgotten, and memory does
not grow. Reading is done a batch at a time, in a thread, so no request waits for a disk.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from prometheus_client import Counter

from cotacoes import telemetry
from cotacoes.adapters.recording import Lines, Recording
from cotacoes.adapters.recording_formats import Recorded
from cotacoes.quote import Observation, from_microseconds

BATCH_PRICES = 2_000  # some 10 ms of work
HELD_PRICES_MAX = 20_000  # of the tape, so that a page that is asked for again is not read again
LAP_PAUSE_NS = 1_000_000_000  # between the last price of a lap and the first of the next
MAX_SPEED = math.inf  # as fast as the tape is taken


class Played(NamedTuple):
    """One price of the run: `number` is its index, `offset_ns` its receive time since the recording's first."""

    number: int
    offset_ns: int
    recorded: Recorded


@dataclass(frozen=True)
class Lap:
    """One time through the recording."""

    prices: int
    length_ns: int


def measure(recording: Recording) -> Lap:
    """Read the whole recording once; needed only where it is played in a loop. Blocking."""
    first = last = None
    count = 0
    for recorded in recording.prices(Lines()):
        first, last = first or recorded, recorded
        count += 1
    assert first is not None, "`check` has found a price"
    assert last is not None
    return Lap(count, last.received_ns - first.received_ns + LAP_PAUSE_NS)


@dataclass(frozen=True)
class Timeline:
    """The run: it began at `started_at`, which lies `started_s` on the monotonic `clock`; `now` gives the wall time.

    `lap` is None where the recording is played once; `keeps_times`: prices bear the times that were recorded.
    """

    recording: Recording
    speed: float
    started_at: datetime
    started_s: float
    clock: Callable[[], float]
    now: Callable[[], datetime]
    lap: Lap | None = None
    keeps_times: bool = False

    def played(self, lines: Lines, first: int = 1) -> Iterator[Played]:
        """The prices of the run from index `first` on."""
        lap = 0 if self.lap is None else (first - 1) // self.lap.prices
        while True:
            start_ns = None
            base = 0 if self.lap is None else lap * self.lap.prices
            lap_ns = 0 if self.lap is None else lap * self.lap.length_ns
            for number, recorded in enumerate(self.recording.prices(lines), start=base + 1):
                start_ns = recorded.received_ns if start_ns is None else start_ns
                if number >= first:
                    yield Played(number, recorded.received_ns - start_ns + lap_ns, recorded)
            if self.lap is None or start_ns is None:
                return
            lap += 1

    def first_due(self) -> int:
        """An index at or before the first price that is due now: where a run that goes on begins to read."""
        if self.lap is None:
            return 1
        elapsed_ns = max(0.0, self.clock() - self.started_s) * self.speed * 1e9
        return 1 + int(elapsed_ns // self.lap.length_ns) * self.lap.prices

    def due_s(self, played: Played) -> float:
        """The second of the monotonic clock at which the price is due."""
        return self.started_s + played.offset_ns / 1e9 / self.speed

    def observation(self, played: Played) -> Observation:
        """The price as it is told, at the time that it bears; only of one that is due."""
        _, observed_ns, coin, currency, price = played.recorded
        if self.keeps_times:
            at = from_microseconds(observed_ns // 1000)
        elif self.speed == MAX_SPEED:
            at = self.now()  # without a pace there are no distances to keep
        else:
            own_lag_ns = played.recorded.received_ns - observed_ns
            shifted = self.started_at + timedelta(microseconds=(played.offset_ns - own_lag_ns) / 1e3 / self.speed)
            at = min(shifted, self.now())  # a wall clock that was set back makes no price of the future
        return Observation(coin, currency, price, at, self.recording.origin)


class Playing:
    """Plays by the clock. `frames` counts lines by outcome; `quotes` can be asked at any time."""

    def __init__(
        self, timeline: Timeline, *, frames: Counter, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.origin = timeline.recording.origin
        self._timeline = timeline
        self._frames = frames
        self._sleep = sleep
        self._coming: deque[tuple[float, Played]] = deque()  # with the second at which each is due
        self._newest: dict[str, Observation] = {}

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to the newest price whose time has come."""
        passed: dict[str, Played] = {}
        moment = self._timeline.clock()
        while self._coming and self._coming[0][0] <= moment:
            _, played = self._coming.popleft()
            passed[played.recorded.coin] = played
        for coin, played in passed.items():
            self._newest[coin] = self._timeline.observation(played)
        return self._newest

    async def run(self) -> None:
        """Play to the end; run it once. At the end the last prices stay, with their times, and grow old."""
        timeline, lines = self._timeline, Lines()
        prices = timeline.played(lines, timeline.first_due())
        while batch := await asyncio.to_thread(_batch, prices):
            self._count(lines)
            self._coming.extend((timeline.due_s(played), played) for played in batch)
            await self._until(timeline.due_s(batch[0]))
        self._count(lines)
        if self._coming:
            await self._until(self._coming[-1][0])
        telemetry.get_logger().info("replay.ended", origin=timeline.recording.origin)

    async def _until(self, due_s: float) -> None:
        """Sleep to that second, dropping what is past."""
        await self._sleep(max(0.0, due_s - self._timeline.clock()))
        self.quotes()

    def _count(self, lines: Lines) -> None:
        for outcome in ("price", "skipped", "malformed"):
            self._frames.labels(outcome=outcome).inc(getattr(lines, outcome))
            setattr(lines, outcome, 0)


def _batch(prices: Iterator[Played]) -> list[Played]:
    return list(itertools.islice(prices, BATCH_PRICES))


class ReplayTape:
    """Every price of the run, by its index. One reading at a time; whoever asks meanwhile waits."""

    def __init__(self, timeline: Timeline) -> None:
        self.origin = timeline.recording.origin
        self._timeline = timeline
        self._lock = asyncio.Lock()
        self._held: deque[Played] = deque(maxlen=HELD_PRICES_MAX)  # without a hole, up to where the reading has come
        self._ahead: Played | None = None  # read, and not due yet
        self._rest: Iterator[Played] = iter(())
        self._next = 0  # the index that the reading brings next; 0 before the first reading
        self._taken: dict[str, Observation] = {}

    async def after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        """The prices after `index` that are due, in order; LookupError where the recording ends before `index`."""
        async with self._lock:
            found = await asyncio.to_thread(self._after, index, limit)
            self._taken.update((observed.coin, observed) for _, observed in found)
            return found

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to the price that was taken last: what is newest where there is no pace."""
        return self._taken

    def next_due_s(self) -> float:
        """In how many seconds there is more than the last answer held; infinite where never."""
        return math.inf if self._ahead is None else self._timeline.due_s(self._ahead) - self._timeline.clock()

    def _after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        if not self._next or index + 1 < self._first_held:
            self._begin(index + 1)
        while self._next <= index and self._read_one() is not None:
            pass  # on to where the asker is
        if self._next <= index and self._ahead is None:
            raise LookupError("the recording ends before this index")
        start = max(0, index + 1 - self._first_held)
        found = list(itertools.islice(self._held, start, start + limit))
        while len(found) < limit and (played := self._read_one()) is not None:
            found.append(played)
        return [(played.number, self._timeline.observation(played)) for played in found]

    @property
    def _first_held(self) -> int:
        return self._held[0].number if self._held else self._next

    def _begin(self, first: int) -> None:
        self._held.clear()
        self._ahead = None
        self._next = first
        self._rest = self._timeline.played(Lines(), first)

    def _read_one(self) -> Played | None:
        """The next price, if it is due."""
        if self._ahead is None:
            self._ahead = next(self._rest, None)
        played = self._ahead
        if played is None or self._timeline.due_s(played) > self._timeline.clock():
            return None
        self._ahead = None
        self._next = played.number + 1
        self._held.append(played)
        return played
