"""Back-off: the wait before the next attempt grows, with full jitter, so that many callers do not return at once.

Reset it on good data, not on a connection: a server that accepts and then fails would otherwise be hammered.
"""

from __future__ import annotations

from random import Random

FIRST_S = 0.1
MOST_S = 5.0  # so that all works again within seconds after a fault


class Backoff:
    """Waits in seconds, uniform between 0 and a bound that doubles with each wait, from `first_s` up to `most_s`."""

    def __init__(self, random: Random, *, first_s: float = FIRST_S, most_s: float = MOST_S) -> None:
        self._random = random
        self._first_s = first_s
        self._most_s = most_s
        self._bound_s = first_s

    def next_s(self) -> float:
        """The wait before the next attempt."""
        wait_s = self._random.uniform(0.0, self._bound_s)
        self._bound_s = min(self._most_s, self._bound_s * 2)
        return wait_s

    def reset(self) -> None:
        """Begin again with the first bound: an attempt has succeeded."""
        self._bound_s = self._first_s
