"""Retry: a few more tries inside one deadline, paid from a budget, so that a sick callee is not hammered.

One controller per call (tenacity's own carries the state of a call, so it must not be shared), one layer only, and
positive predicates only (the negative ones swallow cancellation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import tenacity


class RetryBudget:
    """Every call earns a share of a retry, every retry costs one: retries never exceed that share of the calls."""

    def __init__(self, share: float = 0.1, saved_max: float = 10.0) -> None:
        self._share = share
        self._saved_max = saved_max
        self._saved = 0.0

    def earn(self) -> None:
        """A first call was made."""
        self._saved = min(self._saved_max, self._saved + self._share)

    def spend(self) -> bool:
        """Take one retry from the budget; False where there is none."""
        if self._saved < 1.0 - 1e-9:  # ten times 0.1 is a little below 1
            return False
        self._saved -= 1.0
        return True


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long apart: `attempts` in all, waits in seconds, doubled each time, with full jitter."""

    attempts: int = 2
    wait_s: float = 0.05
    wait_max_s: float = 0.4


def new_retrying(
    policy: RetryPolicy,
    budget: RetryBudget,
    is_retryable: Callable[[BaseException], bool],
    random: Random,
) -> tenacity.AsyncRetrying:
    """A fresh controller for one call; the last error comes out as it is."""

    def is_worth_it(state: tenacity.RetryCallState) -> bool:
        error = None if state.outcome is None else state.outcome.exception()
        return (
            error is not None
            and state.attempt_number < policy.attempts
            and is_retryable(error)
            and budget.spend()  # last, so that nothing is spent on a retry that will not be made
        )

    def wait_s(state: tenacity.RetryCallState) -> float:
        doubled: float = policy.wait_s * 2.0 ** (state.attempt_number - 1)
        return random.uniform(0.0, min(policy.wait_max_s, doubled))

    budget.earn()
    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts), wait=wait_s, retry=is_worth_it, reraise=True
    )
