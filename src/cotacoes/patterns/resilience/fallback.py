"""Fallback: the last good answer, with its true age and its upstream, instead of no answer.

The age of an answer counts from the question, so the answer is never older than it says. Beyond `max_age` it is no
longer used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CachedAnswer(Generic[T]):
    """An earlier good answer. `age` in seconds."""

    value: T
    upstream: str
    age: float


class LastGood(Generic[T]):
    """The last good answer for each key. Beyond `max_keys` the one that was put first is dropped."""

    def __init__(self, *, max_age: float, max_keys: int = 1024, clock: Callable[[], float]) -> None:
        if not max_age > 0 or max_keys < 1:
            raise ValueError("max_age must be above 0 seconds, and max_keys at least 1")
        self._max_age = max_age
        self._max_keys = max_keys
        self._clock = clock
        self._answers: dict[Hashable, tuple[T, str, float]] = {}

    def put(self, key: Hashable, value: T, *, upstream: str, asked_at: float) -> None:
        """Cache an answer, unless there is one to a later question. `asked_at` is in seconds of the clock."""
        before = self._answers.get(key)
        if before is not None:
            if before[2] > asked_at:
                return  # a slow answer, after the answer to a later question
            del self._answers[key]
        self._answers[key] = (value, upstream, asked_at)
        if len(self._answers) > self._max_keys:
            del self._answers[next(iter(self._answers))]

    def get(self, key: Hashable) -> CachedAnswer[T] | None:
        """The last good answer; None if there is none within `max_age`."""
        if key not in self._answers:
            return None
        value, upstream, asked_at = self._answers[key]
        age = self._clock() - asked_at
        if age > self._max_age:
            del self._answers[key]
            return None
        return CachedAnswer(value, upstream, age)
