"""The settings of a circuit breaker, and which of them are refused.

Names are those of resilience4j in snake_case, and so are the defaults of the settings that both have. Rates are shares
from 0 to 1, durations are seconds. Three rules open a closed circuit; each is optional, and at least one is needed:

    failure_rate_threshold          share of failed calls in the window, once it holds `minimum_number_of_calls`
    slow_call_rate_threshold        share of calls longer than `slow_call_duration_threshold`, under the same condition
    consecutive_failures_threshold  failures in a row, however few calls there are
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Literal

WINDOW_CALLS_MAX = 100_000  # a byte each
WINDOW_SECONDS_MAX = 3600  # a bucket of some 150 bytes each


class BreakerState(enum.Enum):
    """The state of a circuit. The last three are set by an operator, and only `reset()` leaves them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerConfig:
    """The settings, as the head of this file explains them. ValueError if a value, or two together, make no sense.

    failure_rate_threshold            reached with at least this share; None: no such rule
    minimum_number_of_calls           with fewer calls no rate is judged; a smaller count window lowers it to its size
    sliding_window_type               "count": the last `sliding_window_size` calls; "time": those of so many seconds
    consecutive_failures_threshold    None: no such rule
    slow_call_duration_threshold      a call that takes longer is slow; None: no call is
    wait_duration_in_open             the wait before the first probe
    wait_duration_multiplier          multiplies the wait after each failed half-open; a close resets it
    max_wait_duration_in_open         upper bound of the wait; None only if it does not grow
    wait_duration_jitter              makes each wait up to this share shorter or longer, within the upper bound
    permitted_calls_in_half_open      the number of probes that decide; without a failure rate all must succeed
    max_concurrent_calls_in_half_open the number of probes at the same time; None: all
    max_wait_duration_in_half_open    opens the circuit again if there is no decision by then; None: no limit
    initial_state                     the first state; `reset()` always closes the circuit
    """

    failure_rate_threshold: float | None = 0.5
    minimum_number_of_calls: int = 100
    sliding_window_type: Literal["count", "time"] = "count"
    sliding_window_size: int = 100
    consecutive_failures_threshold: int | None = None
    slow_call_duration_threshold: float | None = None
    slow_call_rate_threshold: float = 1.0
    wait_duration_in_open: float = 60.0
    wait_duration_multiplier: float = 1.0
    max_wait_duration_in_open: float | None = None
    wait_duration_jitter: float = 0.1
    permitted_calls_in_half_open: int = 10
    max_concurrent_calls_in_half_open: int | None = None
    max_wait_duration_in_half_open: float | None = 60.0
    initial_state: BreakerState = BreakerState.CLOSED

    def __post_init__(self) -> None:
        self._check_rules()
        self._check_waits()
        self._check_probes()

    @property
    def calls_needed(self) -> int:
        """The number of calls that the window must hold before a rate is judged."""
        if self.sliding_window_type == "count":
            return min(self.minimum_number_of_calls, self.sliding_window_size)
        return self.minimum_number_of_calls

    def _check_rules(self) -> None:
        if self.failure_rate_threshold is not None:
            _require_share("failure_rate_threshold", self.failure_rate_threshold)
        _require_share("slow_call_rate_threshold", self.slow_call_rate_threshold)
        _require_count("minimum_number_of_calls", self.minimum_number_of_calls)
        if self.sliding_window_type not in {"count", "time"}:
            raise ValueError(f'sliding_window_type must be "count" or "time", not {self.sliding_window_type!r}')
        largest = WINDOW_CALLS_MAX if self.sliding_window_type == "count" else WINDOW_SECONDS_MAX
        _require_count("sliding_window_size", self.sliding_window_size, largest)
        if self.consecutive_failures_threshold is not None:
            _require_count("consecutive_failures_threshold", self.consecutive_failures_threshold)
        if self.slow_call_duration_threshold is not None:
            _require_seconds("slow_call_duration_threshold", self.slow_call_duration_threshold)
        rules = (self.failure_rate_threshold, self.consecutive_failures_threshold, self.slow_call_duration_threshold)
        if all(rule is None for rule in rules):
            raise ValueError(
                "nothing would ever open this circuit: set failure_rate_threshold, consecutive_failures_threshold or "
                "slow_call_duration_threshold"
            )

    def _check_waits(self) -> None:
        _require_seconds("wait_duration_in_open", self.wait_duration_in_open)
        if not 1 <= self.wait_duration_multiplier < math.inf:
            raise ValueError(f"wait_duration_multiplier must be at least 1, not {self.wait_duration_multiplier!r}")
        if not 0 <= self.wait_duration_jitter < 1:
            raise ValueError(
                f"wait_duration_jitter must be a share of at least 0 and below 1, not {self.wait_duration_jitter!r}"
            )
        if self.max_wait_duration_in_open is None:
            if self.wait_duration_multiplier > 1:
                raise ValueError("max_wait_duration_in_open is required if wait_duration_multiplier is above 1")
        elif not self.wait_duration_in_open <= self.max_wait_duration_in_open < math.inf:
            raise ValueError(
                f"max_wait_duration_in_open must be at least wait_duration_in_open ({self.wait_duration_in_open} s), "
                f"not {self.max_wait_duration_in_open!r}"
            )

    def _check_probes(self) -> None:
        _require_count("permitted_calls_in_half_open", self.permitted_calls_in_half_open)
        if self.max_concurrent_calls_in_half_open is not None:
            _require_count(
                "max_concurrent_calls_in_half_open",
                self.max_concurrent_calls_in_half_open,
                self.permitted_calls_in_half_open,
            )
        if self.max_wait_duration_in_half_open is not None:
            _require_seconds("max_wait_duration_in_half_open", self.max_wait_duration_in_half_open)
        if not isinstance(self.initial_state, BreakerState):
            raise ValueError(f"initial_state must be a BreakerState, not {self.initial_state!r}")


def _require_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be a share above 0 and at most 1 (0.5 is half of the calls), not {value!r}")


def _require_seconds(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and above 0 seconds, not {value!r}")


def _require_count(name: str, value: Any, most: int | None = None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < 1 or value > (most or value):
        raise ValueError(f"{name} must be a whole number from 1{'' if most is None else f' to {most}'}, not {value!r}")
