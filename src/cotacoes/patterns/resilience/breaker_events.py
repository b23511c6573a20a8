"""The transitions of a circuit breaker as a table, its verdicts, its events, and the error of a call not permitted.

The table is the state machine: a change of state that is not in it does not exist, and the diagram in
`docs/explanation/circuit-breaker.md` is drawn from it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from cotacoes.patterns.resilience.breaker_config import BreakerState


class CallVerdict(enum.Enum):
    """What a call showed about the upstream. IGNORED: nothing; it was cancelled, or failed because of the caller."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


class TransitionReason(enum.StrEnum):
    """Why the state changed."""

    FAILURE_RATE = "failure_rate"
    SLOW_CALL_RATE = "slow_call_rate"
    CONSECUTIVE_FAILURES = "consecutive_failures"
    RETRY_AFTER = "retry_after"  # the upstream asked for a pause: `open_for`
    WAIT_OVER = "wait_over"
    PROBES_SUCCEEDED = "probes_succeeded"
    PROBES_FAILED = "probes_failed"
    PROBES_SLOW = "probes_slow"
    HALF_OPEN_TIMED_OUT = "half_open_timed_out"
    RESET = "reset"
    FORCED = "forced"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


TRANSITIONS: Mapping[tuple[BreakerState, TransitionReason], BreakerState] = {
    (BreakerState.CLOSED, TransitionReason.FAILURE_RATE): BreakerState.OPEN,
    (BreakerState.CLOSED, TransitionReason.SLOW_CALL_RATE): BreakerState.OPEN,
    (BreakerState.CLOSED, TransitionReason.CONSECUTIVE_FAILURES): BreakerState.OPEN,
    (BreakerState.CLOSED, TransitionReason.RETRY_AFTER): BreakerState.OPEN,
    (BreakerState.OPEN, TransitionReason.WAIT_OVER): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, TransitionReason.PROBES_SUCCEEDED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, TransitionReason.PROBES_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, TransitionReason.PROBES_SLOW): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, TransitionReason.HALF_OPEN_TIMED_OUT): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, TransitionReason.RETRY_AFTER): BreakerState.OPEN,
    **dict.fromkeys(((state, TransitionReason.RESET) for state in BreakerState), BreakerState.CLOSED),
    **dict.fromkeys(((state, TransitionReason.FORCED) for state in BreakerState), BreakerState.FORCED_OPEN),
    **dict.fromkeys(((state, TransitionReason.DISABLED) for state in BreakerState), BreakerState.DISABLED),
    **dict.fromkeys(((state, TransitionReason.METRICS_ONLY) for state in BreakerState), BreakerState.METRICS_ONLY),
}


@dataclass(frozen=True, slots=True)
class StateTransition:
    """The circuit changed its state, or an operator set its present state again.

    `at` is in seconds of the breaker's clock.
    """

    name: str
    from_state: BreakerState
    to_state: BreakerState
    reason: TransitionReason
    at: float


@dataclass(frozen=True, slots=True)
class CallSettled:
    """A call ended. `counted` is False if it was ignored, if it was late, or if the breaker is disabled."""

    name: str
    verdict: CallVerdict
    slow: bool
    counted: bool
    duration: float
    at: float
    error: str | None


@dataclass(frozen=True, slots=True)
class CallNotPermitted:
    """A call was refused."""

    name: str
    state: BreakerState
    at: float


BreakerEvent = StateTransition | CallSettled | CallNotPermitted


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """The present state of a breaker. Durations in seconds, rates as shares.

    `calls` to `consecutive_failures` describe the window (half-open: the probes). A rate is None if there are too few
    calls to judge it. `overdue` calls are still under way and count as slow already. `not_permitted`, `ignored` and
    `late` count over the whole life of the breaker; late results are of an older generation and changed nothing.
    """

    state: BreakerState
    generation: int
    calls: int
    failures: int
    slow_calls: int
    overdue: int
    failure_rate: float | None
    slow_call_rate: float | None
    consecutive_failures: int
    not_permitted: int
    ignored: int
    late: int
    last_error: str | None
    retry_after: float | None


class CircuitOpenError(Exception):
    """The call was not made. `retry_after` is in seconds, and infinite if only an operator lets calls through again."""

    def __init__(self, name: str, state: BreakerState, retry_after: float, last_error: str | None = None) -> None:
        until = "until it is reset" if retry_after == math.inf else f"next probe in {retry_after:.1f} s"
        because = "" if last_error is None else f"; last error: {last_error}"
        super().__init__(f"circuit {name} is {state.value.replace('_', ' ')}, {until}{because}")
        self.name = name
        self.state = state
        self.retry_after = retry_after
        self.last_error = last_error
