"""Bulkhead: a limit of calls at the same time, and of calls that wait, and how long; others are refused at once.

An upstream that hangs then holds up no more than its own share of the process.
"""

from __future__ import annotations

import asyncio
import math

from cotacoes.patterns.resilience.deadline import current_deadline, without_timer


class BulkheadFullError(Exception):
    """The call was not made: too many calls are under way, and too many wait, or this one has waited too long."""

    def __init__(self, name: str, calls: int, waited: float) -> None:
        super().__init__(f"bulkhead {name} is full: {calls} calls are under way, waited {waited:g} s")
        self.name = name
        self.max_concurrent_calls = calls


class Bulkhead:
    """An async context manager, for any number of tasks, that holds one of the places.

    The wait for a place is in seconds, ends with the current deadline, and is in order of arrival. ValueError if a
    limit makes no sense.
    """

    def __init__(
        self, name: str, *, max_concurrent_calls: int, max_wait_duration: float = 0.0, max_waiting_calls: int = 1000
    ) -> None:
        if max_concurrent_calls < 1:
            raise ValueError(f"max_concurrent_calls must be at least 1, not {max_concurrent_calls!r}")
        if not 0 <= max_wait_duration < math.inf:
            raise ValueError(f"max_wait_duration must be finite and at least 0 seconds, not {max_wait_duration!r}")
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
        """Acquire a place; BulkheadFullError if none becomes free in time."""
        await self._acquire()
        self.calls += 1

    async def __aexit__(self, *_: object) -> None:
        """Release the place."""
        self.calls -= 1
        self._places.release()

    async def _acquire(self) -> None:
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
            del limit  # as in `without_timer`
