"""A token bucket: a rate, with a burst."""

from __future__ import annotations


class TokenBucket:
    """Provides `per_s` tokens a second, and up to `burst` at once. Times are monotonic seconds, passed in."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take a token and return 0; without one, return the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return 0.0
