"""What a circuit breaker does and says: its transitions as a table, its verdicts, its events, its refusal.

The table is the machine: a change of state that does not stand in it does not exist, and the diagram in
`docs/explanation/circuit-breaker.md` is drawn from it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from cotacoes.patterns.resilience.breaker_config import State


class Verdict(enum.Enum):
    """What a call showed about the callee. IGNORED: nothing, it was cancelled or failed for the caller's own reason."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


class Reason(enum.StrEnum):
    """Why the state changed."""

    FAILURE_RATE = "failure_rate"
    SLOW_CALL_RATE = "slow_call_rate"
    CONSECUTIVE_FAILURES = "consecutive_failures"
    RETRY_AFTER = "retry_after"  # the callee asked for a rest: `open_for`
    WAIT_OVER = "wait_over"
    PROBES_SUCCEEDED = "probes_succeeded"
    PROBES_FAILED = "probes_failed"
    PROBES_SLOW = "probes_slow"
    HALF_OPEN_TIMED_OUT = "half_open_timed_out"
    RESET = "reset"
    FORCED = "forced"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


TRANSITIONS: Mapping[tuple[State, Reason], State] = {
    (State.CLOSED, Reason.FAILURE_RATE): State.OPEN,
    (State.CLOSED, Reason.SLOW_CALL_RATE): State.OPEN,
    (State.CLOSED, Reason.CONSECUTIVE_FAILURES): State.OPEN,
    (State.CLOSED, Reason.RETRY_AFTER): State.OPEN,
    (State.OPEN, Reason.WAIT_OVER): State.HALF_OPEN,
    (State.HALF_OPEN, Reason.PROBES_SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Reason.PROBES_FAILED): State.OPEN,
    (State.HALF_OPEN, Reason.PROBES_SLOW): State.OPEN,
    (State.HALF_OPEN, Reason.HALF_OPEN_TIMED_OUT): State.OPEN,
    (State.HALF_OPEN, Reason.RETRY_AFTER): State.OPEN,
    **dict.fromkeys(((state, Reason.RESET) for state in State), State.CLOSED),
    **dict.fromkeys(((state, Reason.FORCED) for state in State), State.FORCED_OPEN),
    **dict.fromkeys(((state, Reason.DISABLED) for state in State), State.DISABLED),
    **dict.fromkeys(((state, Reason.METRICS_ONLY) for state in State), State.METRICS_ONLY),
}


@dataclass(frozen=True, slots=True)
class StateTransition:
    """The circuit went from one state to another, or into the same one anew where a person said so.

    `at` is in seconds of the breaker's clock.
    """

    name: str
    from_state: State
    to_state: State
    reason: Reason
    at: float


@dataclass(frozen=True, slots=True)
class CallSettled:
    """A call ended. `counted` is False for an ignored one, a late one, and all while the breaker is disabled."""

    name: str
    verdict: Verdict
    slow: bool
    counted: bool
    duration: float
    at: float
    error: str | None


@dataclass(frozen=True, slots=True)
class CallNotPermitted:
    """A call was refused."""

    name: str
    state: State
    at: float


Event = StateTransition | CallSettled | CallNotPermitted


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker as it stands. Durations in seconds, rates as shares.

    The first block is of the window (half-open: of the probes). A rate is None where there is too little to judge it
    by. `overdue` calls are still under way and count as slow already. The second block is of the breaker's whole life;
    `late` results were of an older generation and changed nothing.
    """

    state: State
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
    """The call was not made. `retry_after` is in seconds, infinite where only a person lets calls through again."""

    def __init__(self, name: str, state: State, retry_after: float, last_error: str | None = None) -> None:
        until = "until it is reset" if retry_after == math.inf else f"next probe in {retry_after:.1f} s"
        because = "" if last_error is None else f"; last error: {last_error}"
        super().__init__(f"circuit {name} is {state.value.replace('_', ' ')}, {until}{because}")
        self.name = name
        self.state = state
        self.retry_after = retry_after
        self.last_error = last_error
