"""Sliding windows: the outcomes of the last calls, with running totals.

A count window holds the last N calls; a time window holds those of the last N seconds, in one bucket for each second.
Recording a call is O(1), and so is reading. A time window forgets a call N-1 to N seconds after it.

Each call is a code: 0 for a good one, `FAILED`, `SLOW`, or both.
"""

from __future__ import annotations

FAILED = 1
SLOW = 2


class CountWindow:
    """The last `size` calls, one byte each."""

    __slots__ = ("_next", "_ring", "_size", "calls", "failures", "slow_calls")

    def __init__(self, size: int) -> None:
        self._size = size
        self._ring = bytearray(size)
        self._next = 0
        self.calls = 0
        self.failures = 0
        self.slow_calls = 0

    def record(self, code: int, now: float) -> None:
        """Count one call; beyond `size` the oldest call is forgotten."""
        index = self._next
        if self.calls < self._size:
            self.calls += 1
            forgotten = 0
        else:
            forgotten = self._ring[index]
        self._next = index + 1 if index + 1 < self._size else 0
        if code != forgotten:
            self.failures += (code & FAILED) - (forgotten & FAILED)
            self.slow_calls += (code >> 1) - (forgotten >> 1)
        self._ring[index] = code

    def forget_old(self, now: float) -> None:
        """Do nothing: the last calls do not depend on the time."""


class TimeWindow:
    """The calls of the last `size` seconds, the present one included; `now` is in seconds of a monotonic clock."""

    __slots__ = ("_buckets", "_second", "_size", "calls", "failures", "slow_calls")

    def __init__(self, size: int) -> None:
        self._size = size
        self._buckets = [[0, 0, 0] for _ in range(size)]
        self._second = 0
        self.calls = 0
        self.failures = 0
        self.slow_calls = 0

    def record(self, code: int, now: float) -> None:
        """Count one call in the bucket of the present second."""
        self.forget_old(now)
        bucket = self._buckets[self._second % self._size]
        bucket[0] += 1
        bucket[1] += code & FAILED
        bucket[2] += code >> 1
        self.calls += 1
        self.failures += code & FAILED
        self.slow_calls += code >> 1

    def forget_old(self, now: float) -> None:
        """Forget the seconds that have left the window since the last call; at most `size` buckets are emptied."""
        second = int(now)
        first = max(self._second + 1, second - self._size + 1)
        for passed in range(first, second + 1):
            bucket = self._buckets[passed % self._size]
            self.calls -= bucket[0]
            self.failures -= bucket[1]
            self.slow_calls -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._second = max(self._second, second)


Window = CountWindow | TimeWindow
