"""Bulkhead: so many calls at once, so many waiting, each so long; whoever comes beyond that is refused at once.

One callee that hangs then holds up no more than its own share of the process.
"""

from __future__ import annotations

import asyncio
import math

from cotacoes.patterns.resilience.deadline import current_deadline, without_timer


class BulkheadFullError(Exception):
    """The call was not made: too many are under way, and too many wait, or this one has waited long enough."""

    def __init__(self, name: str, calls: int, waited: float) -> None:
        super().__init__(f"bulkhead {name} is full: {calls} calls are under way, waited {waited:g} s")
        self.name = name
        self.max_concurrent_calls = calls


class Bulkhead:
    """An async context manager, for any number of tasks: within, one holds a place.

    ValueError where a bound is none. The wait is in seconds, and ends with the current deadline; those who wait get in
    by turns.
    """

    def __init__(
        self, name: str, *, max_concurrent_calls: int, max_wait_duration: float = 0.0, max_waiting_calls: int = 1000
    ) -> None:
        if max_concurrent_calls < 1:
            raise ValueError(f"max_concurrent_calls must be at least 1, not {max_concurrent_calls!r}")
        if not 0 <= max_wait_duration < math.inf:
            raise ValueError(f"max_wait_duration must be from 0 seconds, finite, not {max_wait_duration!r}")
        if max_waiting_calls < 0:
            raise ValueError(f"max_waiting_calls must be at least 0, not {max_waiting_calls!r}")
        self.name = name
        self.calls = 0
        self.waiting = 0
        self._max_calls = max_concurrent_calls
        self._max_wait = max_wait_duration
        self._max_waiting = max_waiting_calls
        self._places = asyncio.Semaphore(max_concurrent_calls)

    async def __aenter__(self) -> None:
        """Take a place; BulkheadFullError where there is none in time."""
        await self._take()
        self.calls += 1

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self.calls -= 1
        self._places.release()

    async def _take(self) -> None:
        if self._places.locked():
            if self._max_wait == 0 or self.waiting >= self._max_waiting:
                raise BulkheadFullError(self.name, self._max_calls, 0.0)
            await self._wait()
        else:
            await self._places.acquire()  # at once

    async def _wait(self) -> None:
        deadline = current_deadline()
        left = self._max_wait if deadline is None else min(self._max_wait, deadline.remaining())
        limit = asyncio.timeout(left)
        self.waiting += 1
        try:
            async with limit:
                await self._places.acquire()
        except TimeoutError as error:
            raise BulkheadFullError(self.name, self._max_calls, left) from without_timer(error)
        finally:
            self.waiting -= 1
            del limit  # as `without_timer`
