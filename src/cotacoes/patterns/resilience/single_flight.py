"""Single-flight: of those who ask the same thing at the same time one asks, and all get the answer.

The flight is a task of its own: a caller that is cancelled or runs out of time leaves it, and the others still get
their answer; when the last one has left it is cancelled. It has its own deadline and not that of the caller who
happened to come first. Once it has ended nothing of it is kept: this is no cache.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from cotacoes.patterns.resilience.deadline import Deadline

T = TypeVar("T")


class FlightLostError(Exception):
    """The shared call was cancelled from within; whoever waited for it was not."""


class _Flight:
    __slots__ = ("deadline", "task", "waiting")

    def __init__(self, task: asyncio.Task[Any], deadline: Deadline) -> None:
        self.task = task
        self.deadline = deadline
        self.waiting = 0

    def can_be_boarded(self) -> bool:
        """Not once it has ended or its time is up, though it may take a moment longer to come down."""
        return not self.task.done() and self.deadline.remaining() > 0


class SingleFlight(Generic[T]):
    """`deadline` is of each flight, in seconds. Not more flights than callers, so the callers' bound is theirs."""

    def __init__(self, *, deadline: float, clock: Callable[[], float]) -> None:
        if not 0 < deadline < math.inf:
            raise ValueError(f"deadline must be above 0 seconds, finite, not {deadline!r}")
        self._deadline = deadline
        self._clock = clock
        self._flights: dict[Hashable, _Flight] = {}
        self._ending: set[asyncio.Task[Any]] = set()  # left by all, and held until they have ended

    async def do(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer, and whether it is that of another caller's question. Raises what `ask` raises."""
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
            del flight, caller  # they hold the error, and the error holds this frame
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
        self._forget(key, flight)  # at once, so that nobody boards a flight that is going down
        self._ending.add(flight.task)
        flight.task.cancel()

    def _land(self, key: Hashable, flight: _Flight) -> None:
        self._ending.discard(flight.task)
        self._forget(key, flight)
        if not flight.task.cancelled():
            flight.task.exception()  # looked at, be there somebody left to hear it or not

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
