"""Single-flight: callers that ask the same question at the same time share one call and its answer.

The flight is a task of its own. A caller that is cancelled or runs out of time leaves it, and the others still get
their answer; when the last one has left, it is cancelled. It has its own deadline, not that of its first caller.
Nothing of it is stored once it has ended: this is not a cache.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from cotacoes.patterns.resilience.deadline import Deadline

T = TypeVar("T")


class FlightLostError(Exception):
    """The shared call was cancelled from within, not by a caller."""


class _Flight:
    __slots__ = ("deadline", "task", "waiting")

    def __init__(self, task: asyncio.Task[Any], deadline: Deadline) -> None:
        self.task = task
        self.deadline = deadline
        self.waiting = 0

    def can_be_boarded(self) -> bool:
        """False once the call has finished or its deadline has passed."""
        return not self.task.done() and self.deadline.remaining() > 0


class SingleFlight(Generic[T]):
    """`deadline` applies to each flight, in seconds. There are never more flights than callers, who have a bound."""

    def __init__(self, *, deadline: float, clock: Callable[[], float]) -> None:
        if not 0 < deadline < math.inf:
            raise ValueError(f"deadline must be finite and above 0 seconds, not {deadline!r}")
        self._deadline = deadline
        self._clock = clock
        self._flights: dict[Hashable, _Flight] = {}
        self._ending: set[asyncio.Task[Any]] = set()  # without callers, and held until they have ended

    async def do(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer, and whether another caller's question brought it. Raises what `ask` raises."""
        flight = self._flights.get(key)
        is_shared = flight is not None and flight.can_be_boarded()
        if flight is None or not is_shared:
            flight = self._depart(key, ask)
        caller = asyncio.current_task()
        cancels = 0 if caller is None else caller.cancelling()
        flight.waiting += 1
        try:
            answer: T = await asyncio.shield(flight.task)
        except asyncio.CancelledError as error:
            is_caller_cancelled = caller is not None and caller.cancelling() > cancels
            if flight.task.cancelled() and not is_caller_cancelled:
                raise FlightLostError("the shared call was cancelled") from error
            raise
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._abandon(key, flight)
            del flight, caller  # they hold the error, which holds this frame
        return answer, is_shared

    def _depart(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> _Flight:
        deadline = Deadline(self._clock() + self._deadline, self._clock)
        task = asyncio.create_task(self._fly(ask, deadline), name=f"flight {key!r}")
        flight = self._flights[key] = _Flight(task, deadline)
        task.add_done_callback(lambda _: self._land(key, flight))
        return flight

    async def _fly(self, ask: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        async with deadline.enforced():
            return await ask()

    def _abandon(self, key: Hashable, flight: _Flight) -> None:
        self._forget(key, flight)  # at once, so that no caller boards a flight that is going down
        self._ending.add(flight.task)
        flight.task.cancel()

    def _land(self, key: Hashable, flight: _Flight) -> None:
        self._ending.discard(flight.task)
        self._forget(key, flight)
        if not flight.task.cancelled():
            flight.task.exception()  # retrieved, even if no caller is left

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
