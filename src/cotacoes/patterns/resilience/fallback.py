"""Fallback: the last good answer, with its true age and where it came from, instead of none.

An answer is as old as the moment at which it was asked for: it can not be older than it says. Beyond `max_age` it is
no answer any more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CachedAnswer(Generic[T]):
    """A good answer of before. `age` in seconds."""

    value: T
    upstream: str
    age: float


class LastGood(Generic[T]):
    """The last good answer by key; beyond `max_keys` the one that was put longest ago is dropped."""

    def __init__(self, *, max_age: float, max_keys: int = 1024, clock: Callable[[], float]) -> None:
        if not max_age > 0 or max_keys < 1:
            raise ValueError("max_age must be above 0 seconds, and max_keys at least 1")
        self._max_age = max_age
        self._max_keys = max_keys
        self._clock = clock
        self._kept: dict[Hashable, tuple[T, str, float]] = {}

    def put(self, key: Hashable, value: T, *, upstream: str, asked_at: float) -> None:
        """Keep it, where none was asked for later; `asked_at` is when this one was, in seconds of the clock."""
        before = self._kept.get(key)
        if before is not None:
            if before[2] > asked_at:
                return  # a slow answer came after that to a later question
            del self._kept[key]
        self._kept[key] = (value, upstream, asked_at)
        if len(self._kept) > self._max_keys:
            del self._kept[next(iter(self._kept))]

    def get(self, key: Hashable) -> CachedAnswer[T] | None:
        """The last good answer; None where there is none young enough."""
        if key not in self._kept:
            return None
        value, upstream, asked_at = self._kept[key]
        age = self._clock() - asked_at
        if age > self._max_age:
            del self._kept[key]
            return None
        return CachedAnswer(value, upstream, age)
