"""The retry budget: how many retries all calls to one upstream may make together."""

from __future__ import annotations

import math


class RetryBudget:
    """A budget: every success earns a `share` of a retry, and every retry costs one.

    So retries never exceed that share of the successes, beside up to `saved_max` retries saved from before. Hedges may
    spend from the same budget.
    """

    def __init__(self, share: float = 0.1, saved_max: float = 10.0, *, saved: float = 0.0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must be from 0 to 1, not {share!r}")
        if not 0 <= saved <= saved_max < math.inf:
            raise ValueError(f"saved must be from 0 to a finite saved_max, not {saved!r} and {saved_max!r}")
        self._share = share
        self._saved_max = saved_max
        self.saved = saved

    def earn(self) -> None:
        """Note that a call succeeded."""
        self.saved = min(self._saved_max, self.saved + self._share)

    def spend(self) -> bool:
        """Spend one retry; False if the budget has none."""
        if self.saved < 1.0 - 1e-9:  # ten times 0.1 is a little below 1
            return False
        self.saved = max(0.0, self.saved - 1.0)
        return True

    def give_back(self) -> None:
        """Return the price of a retry that was not made."""
        self.saved = min(self._saved_max, self.saved + 1.0)
