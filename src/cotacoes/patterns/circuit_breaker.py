"""Circuit breaker: stop calling what fails, probe it now and then, and believe only evidence of the present era.

    CLOSED ── enough failures in a row ──▶ OPEN ── wait over, next caller ──▶ HALF_OPEN
       ▲                                    ▲                                    │
       │                                    └────────── one probe fails ─────────┤
       └───────────────────── all permitted probes succeed ──────────────────────┘

A pure state machine: no asyncio, no thread, clock and random passed in. A caller takes a `Permit` before the call and
settles it after. Invariants:

* a permit carries the generation in which it was given, every change of state begins a new one, and a result of an
  older generation changes nothing: a call begun while closed that fails late can not reopen a recovering circuit;
* half-open, no more than `permitted_calls_in_half_open` probes are out at once or counted; an ignored (cancelled)
  probe gives its slot back and is no evidence;
* a probe that never comes back can not wedge the circuit: after `max_wait_duration_in_half_open` it is a failure.
"""

from __future__ import annotations

import enum
import random as random_module
from collections.abc import Callable
from dataclasses import dataclass


class State(enum.Enum):
    """Where the circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(enum.Enum):
    """What a call showed about the callee. IGNORED: nothing, it was cancelled or failed for the caller's own reason."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


class CircuitOpenError(Exception):
    """The circuit is open: the call was not made. `retry_after` is in seconds."""

    def __init__(self, name: str, state: State, retry_after: float) -> None:
        super().__init__(f"circuit {name} is {state.value}, next probe in {retry_after:.1f} s")
        self.name = name
        self.state = state
        self.retry_after = retry_after


@dataclass(frozen=True)
class CircuitBreakerConfig:
    """When to open, for how long, and what it takes to close. Durations in seconds; ValueError where impossible."""

    consecutive_failures_threshold: int = 5
    wait_duration_in_open: float = 3.0
    wait_duration_jitter: float = 0.1
    permitted_calls_in_half_open: int = 2
    max_wait_duration_in_half_open: float = 10.0

    def __post_init__(self) -> None:
        if self.consecutive_failures_threshold < 1:
            raise ValueError("consecutive_failures_threshold must be at least 1")
        if self.wait_duration_in_open <= 0:
            raise ValueError("wait_duration_in_open must be above 0 seconds")
        if not 0 <= self.wait_duration_jitter < 1:
            raise ValueError("wait_duration_jitter must be a share from 0 up to, not including, 1")
        if self.permitted_calls_in_half_open < 1:
            raise ValueError("permitted_calls_in_half_open must be at least 1")
        if self.max_wait_duration_in_half_open <= 0:
            raise ValueError("max_wait_duration_in_half_open must be above 0 seconds")


@dataclass(frozen=True)
class StateChanged:
    """A fact for whoever listens: the circuit went from one state to another."""

    name: str
    before: State
    after: State
    failures: int
    retry_after: float | None


class Permit:
    """Leave to make one call. Settle it once; cancelled callers settle with `Verdict.IGNORED`."""

    __slots__ = ("_breaker", "_generation", "_settled")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker = breaker
        self._generation = generation
        self._settled = False

    def settle(self, verdict: Verdict) -> bool:
        """Report what the call showed; False where it came too late to count, or a second time."""
        if self._settled:
            return False
        self._settled = True
        return self._breaker._settle(self._generation, verdict)


class CircuitBreaker:
    """See the head of this file. `clock` gives monotonic seconds; `on_event` is called after each change of state."""

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig,
        *,
        clock: Callable[[], float],
        random: random_module.Random,
        on_event: Callable[[StateChanged], None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self._clock = clock
        self._random = random
        self._on_event = on_event
        self._state = State.CLOSED
        self._generation = 0
        self._failures = 0
        self._open_until = 0.0
        self._half_open_until = 0.0
        self._probes_out = 0
        self._probes_succeeded = 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def generation(self) -> int:
        return self._generation

    def retry_after(self) -> float | None:
        """Seconds until a call may be let through; None where one may now."""
        if self._state is State.OPEN:
            return max(0.0, self._open_until - self._clock()) or None
        if self._state is State.HALF_OPEN and not self._has_free_probe():
            return max(0.0, self._half_open_until - self._clock())
        return None

    def try_acquire(self) -> Permit | None:
        """A permit for one call, or None where none may be made now."""
        now = self._clock()
        if self._state is State.OPEN and now >= self._open_until:
            self._change(State.HALF_OPEN)
            self._half_open_until = now + self.config.max_wait_duration_in_half_open
        elif self._state is State.HALF_OPEN and now >= self._half_open_until:
            self._open(now)  # the probes never came back
        if self._state is State.CLOSED:
            return Permit(self, self._generation)
        if self._state is State.HALF_OPEN and self._has_free_probe():
            self._probes_out += 1
            return Permit(self, self._generation)
        return None

    def acquire(self) -> Permit:
        """A permit for one call; CircuitOpenError where none may be made now."""
        permit = self.try_acquire()
        if permit is None:
            raise CircuitOpenError(self.name, self._state, self.retry_after() or 0.0)
        return permit

    def open_for(self, seconds: float) -> None:
        """Open now, for at least this long: the callee itself asked for it (Retry-After). 0 asks for nothing."""
        if seconds > 0:
            self._open(self._clock(), seconds)

    def _has_free_probe(self) -> bool:
        return self._probes_out + self._probes_succeeded < self.config.permitted_calls_in_half_open

    def _settle(self, generation: int, verdict: Verdict) -> bool:
        if generation != self._generation:
            return False
        if self._state is State.HALF_OPEN:
            self._settle_probe(verdict)
        elif verdict is Verdict.SUCCESS:
            self._failures = 0
        elif verdict is Verdict.FAILURE:
            self._failures += 1
            if self._failures >= self.config.consecutive_failures_threshold:
                self._open(self._clock())
        return True

    def _settle_probe(self, verdict: Verdict) -> None:
        self._probes_out -= 1
        if verdict is Verdict.FAILURE:
            self._failures += 1
            self._open(self._clock())
        elif verdict is Verdict.SUCCESS:
            self._probes_succeeded += 1
            if self._probes_succeeded >= self.config.permitted_calls_in_half_open:
                self._failures = 0
                self._change(State.CLOSED)

    def _open(self, now: float, seconds: float | None = None) -> None:
        if seconds is None:
            spread = self.config.wait_duration_jitter * self.config.wait_duration_in_open
            seconds = self.config.wait_duration_in_open + self._random.uniform(-spread, spread)
        until = now + seconds
        self._open_until = max(self._open_until, until) if self._state is State.OPEN else until
        self._change(State.OPEN)

    def _change(self, after: State) -> None:
        before, self._state = self._state, after
        self._generation += 1
        self._probes_out = self._probes_succeeded = 0
        if self._on_event is not None and before is not after:
            self._on_event(StateChanged(self.name, before, after, self._failures, self.retry_after()))
