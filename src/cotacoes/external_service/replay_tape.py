"""The tape of a replay: every price of the session by its index, read again from the recording for earlier indices.

One thread does all reading, one request at a time, and each request is bounded: a cancelled one leaves nothing half
done, and one that is far ahead gets nothing until the reading has come there. A few readings are retained, each at the
place of its client, so that two clients do not send each other back to the start. The recording itself is the storage:
no price is ever lost, and memory does not grow.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import Counter

from cotacoes.errors import ServiceUnavailableError
from cotacoes.external_service.recording import LineCounts
from cotacoes.external_service.replay import Played, Timeline
from cotacoes.model.quote import Observation

READINGS_MAX = 3
STEP_PRICES = 50_000  # skipped for one request, in about half a second
HELD_PRICES_MAX = 20_000  # of each reading, so that a repeated request is not read again


class ReplayTape:
    """See the head of this file; also a `Market`. `lines_counter` counts each line once, by outcome."""

    def __init__(
        self,
        timeline: Timeline,
        lines_counter: Counter | None = None,
        *,
        step_prices: int = STEP_PRICES,
        held_prices: int = HELD_PRICES_MAX,
    ) -> None:
        self.origin = timeline.recording.origin
        self._timeline = timeline
        self._lines_counter = lines_counter
        self._step_prices = step_prices
        self._held_prices = held_prices
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay_tape")
        self._readings: list[_Reading] = []  # the one used last stands last
        self._counted = 0  # lines up to this price are counted
        self._next_due_s = math.inf
        self._last_read: dict[str, Observation] = {}

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to the price that was read last, which is the newest if there is no pace."""
        return self._last_read

    async def after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        """The prices after `index` that are due, in order; none as long as the reading is on its way there.

        LookupError if the recording ends before `index`; ServiceUnavailableError if it cannot be read just now.
        """
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._after, index, limit)
        self._last_read.update((observed.coin, observed) for _, observed in found)
        return found

    def next_due_s(self) -> float:
        """In how many seconds there is more than in the last answer; infinite if never."""
        return self._next_due_s - self._timeline.clock()

    def _after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        reading = self._reading_for(index)
        try:
            found = reading.after(index, limit)
        except OSError as error:
            self._readings.remove(reading)
            raise ServiceUnavailableError("the recording cannot be read just now") from error
        self._next_due_s = reading.next_due_s()
        self._count(reading)
        return [(played.number, self._timeline.observation(played)) for played in found]

    def _reading_for(self, index: int) -> _Reading:
        lap = self._timeline.lap
        near = math.inf if lap is None else lap.prices
        able = [one for one in self._readings if one.first_held <= index + 1 and index - one.next <= near]
        if able:
            reading = max(able, key=lambda one: one.next)
            self._readings.remove(reading)
        else:
            its_lap = self._timeline.lap_of(index + 1)
            reading = _Reading(self._timeline, its_lap, held_max=self._held_prices, step=self._step_prices)
        self._readings = [*self._readings[-READINGS_MAX + 1 :], reading]
        return reading

    def _count(self, reading: _Reading) -> None:
        reading.lines.drain(self._lines_counter if reading.next > self._counted else None)
        self._counted = max(self._counted, reading.next)


class _Reading:
    """One reading of the recording: the index that comes `next`, and the prices that came last."""

    def __init__(self, timeline: Timeline, lap: int, *, held_max: int, step: int) -> None:
        self.lines = LineCounts()
        self.next = timeline.first_of(lap)
        self.ahead: Played | None = None  # read but not due yet
        self._is_on_its_way = False
        self._timeline = timeline
        self._step = step
        self._rest = timeline.played(self.lines, lap)
        self._held: deque[Played] = deque(maxlen=held_max)

    @property
    def first_held(self) -> int:
        return self._held[0].number if self._held else self.next

    def after(self, index: int, limit: int) -> list[Played]:
        for _ in range(self._step):
            if self.next > index or self._read_one() is None:
                break
        self._is_on_its_way = self.next <= index and self._read_one() is not None
        if self.next <= index:
            if self.ahead is None and not self._is_on_its_way:
                raise LookupError("the recording ends before this index")
            return []
        start = index + 1 - self.first_held
        found = list(itertools.islice(self._held, start, start + limit))
        while len(found) < limit and (played := self._read_one()) is not None:
            found.append(played)
        return found

    def next_due_s(self) -> float:
        """The second at which there is more; infinite if never."""
        if self._is_on_its_way:
            return self._timeline.clock()
        return math.inf if self.ahead is None else self._timeline.due_s(self.ahead)

    def _read_one(self) -> Played | None:
        """The next price, if it is due."""
        if self.ahead is None:
            self.ahead = next(self._rest, None)
        played = self.ahead
        if played is None or self._timeline.due_s(played) > self._timeline.clock():
            return None
        self.ahead = None
        self.next = played.number + 1
        self._held.append(played)
        return played
