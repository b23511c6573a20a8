"""The evidence of a circuit breaker: what the calls of one generation have shown, and what follows from it.

Evidence is the window, the failures in a row, and the calls under way that are overdue: they have not ended, but they
are certainly slow. Two pure rules read it, and return the reason for a change of state, or None.
"""

from __future__ import annotations

from typing import Protocol

from cotacoes.patterns.resilience.breaker_config import BreakerState, CircuitBreakerConfig
from cotacoes.patterns.resilience.breaker_events import TransitionReason
from cotacoes.patterns.resilience.sliding_window import FAILED, SLOW, CountWindow, TimeWindow, Window


class UnderWay(Protocol):
    """A call that has begun. `started` is in seconds of the breaker's clock."""

    started: float
    overdue: bool


class Evidence:
    """The evidence of one generation. A state that counts nothing has one too, which stays empty."""

    __slots__ = ("_slow_call", "_under_way", "calls_needed", "consecutive_failures", "overdue", "window")

    def __init__(self, config: CircuitBreakerConfig, state: BreakerState) -> None:
        self._slow_call = config.slow_call_duration_threshold
        self._under_way: dict[UnderWay, None] = {}  # in the order in which they began, so the oldest is at hand
        self.consecutive_failures = 0
        self.overdue = 0
        self.window: Window
        if state is BreakerState.HALF_OPEN:
            self.calls_needed = config.permitted_calls_in_half_open
            self.window = CountWindow(self.calls_needed)
        else:
            self.calls_needed = config.calls_needed
            is_count = config.sliding_window_type == "count"
            self.window = (CountWindow if is_count else TimeWindow)(config.sliding_window_size)

    @property
    def failure_rate(self) -> float | None:
        """The share of failed calls; None if there are too few calls."""
        return self.window.failures / self.window.calls if self.window.calls >= self.calls_needed else None

    @property
    def slow_call_rate(self) -> float | None:
        """The share of slow calls, with overdue calls among them; None if there are too few calls."""
        judged = self.window.calls + self.overdue
        return (self.window.slow_calls + self.overdue) / judged if judged >= self.calls_needed else None

    def record(self, now: float, *, is_failure: bool, is_slow: bool) -> None:
        """Count one call that has ended."""
        self.consecutive_failures = self.consecutive_failures + 1 if is_failure else 0
        self.window.record((FAILED if is_failure else 0) | (SLOW if is_slow else 0), now)

    def begin(self, call: UnderWay) -> None:
        """Note a call that is under way; needed only if calls can be slow."""
        self._under_way[call] = None

    def end(self, call: UnderWay) -> None:
        """Note that the call is no longer under way."""
        if call.overdue:
            self.overdue -= 1
        elif self._under_way:
            del self._under_way[call]

    def find_overdue(self, now: float) -> None:
        """Count each call that has become overdue, once."""
        while self._under_way and self._slow_call is not None:
            oldest = next(iter(self._under_way))
            if now - oldest.started <= self._slow_call:
                break
            del self._under_way[oldest]
            oldest.overdue = True
            self.overdue += 1


def reason_to_open(seen: Evidence, config: CircuitBreakerConfig) -> TransitionReason | None:
    """Why a closed circuit opens now. A threshold is reached with at least its value.

    Rates are divided, not multiplied, since 0.1 * 30 is more than 3.
    """
    window, calls = seen.window, seen.window.calls
    if window.failures:
        rate, limit = config.failure_rate_threshold, config.consecutive_failures_threshold
        if rate is not None and calls >= seen.calls_needed and window.failures / calls >= rate:
            return TransitionReason.FAILURE_RATE
        if limit is not None and seen.consecutive_failures >= limit:
            return TransitionReason.CONSECUTIVE_FAILURES
    slow_calls = window.slow_calls + seen.overdue
    if slow_calls:
        judged = calls + seen.overdue
        if judged >= seen.calls_needed and slow_calls / judged >= config.slow_call_rate_threshold:
            return TransitionReason.SLOW_CALL_RATE
    return None


def reason_to_end_half_open(seen: Evidence, config: CircuitBreakerConfig) -> TransitionReason | None:
    """Why a half-open circuit opens or closes now: as soon as no probe that is left could change the outcome."""
    window, permitted = seen.window, config.permitted_calls_in_half_open
    rate, limit = config.failure_rate_threshold, config.consecutive_failures_threshold
    left = permitted - window.calls
    if window.failures:
        if rate is None or window.failures / permitted >= rate:
            return TransitionReason.PROBES_FAILED
        if limit is not None and seen.consecutive_failures >= limit:
            return TransitionReason.PROBES_FAILED
    if config.slow_call_duration_threshold is not None:
        if (window.slow_calls + seen.overdue) / permitted >= config.slow_call_rate_threshold:
            return TransitionReason.PROBES_SLOW
        if (window.slow_calls + left) / permitted >= config.slow_call_rate_threshold:
            return None
    if left and (rate is None or (window.failures + left) / permitted >= rate):
        return None
    if left and limit is not None and seen.consecutive_failures + left >= limit:
        return None
    return TransitionReason.PROBES_SUCCEEDED
