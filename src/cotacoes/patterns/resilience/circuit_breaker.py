"""Circuit breaker: stop calling what fails, probe it now and then, and believe only evidence of the present generation.

    CLOSED ── too many failed or slow ──▶ OPEN ── wait over, next caller ──▶ HALF_OPEN
       ▲                                   ▲                                    │
       │                                   └─ probes failed, slow or no verdict ┤
       └───────────────────────────────── probes succeeded ─────────────────────┘

The whole table is in `breaker_events.py`. A pure state machine for one event loop: no asyncio, no thread, no timer;
clock and random are passed in. A caller acquires a `Permit` before the call and settles it afterwards:

    permit = breaker.acquire()        # CircuitOpenError if no call may be made
    verdict = CallVerdict.IGNORED     # cancelled, or the caller's own fault
    try:
        answer = await call()
        verdict = CallVerdict.SUCCESS
    except OSError:
        verdict = CallVerdict.FAILURE
        raise
    finally:
        permit.settle(verdict)

Invariants:

* A permit carries the generation in which it was issued, every change of state begins a new generation, and a result
  of an older one changes nothing: a call begun while closed that fails late cannot reopen a recovering circuit.
* While half-open, at most `permitted_calls_in_half_open` probes are out or counted. An ignored probe gives its slot
  back and is no evidence. The circuit decides as soon as no further probe could change the outcome.
* Half-open ends after `max_wait_duration_in_half_open`, whichever probes are out. There is no timer: the next caller
  notices it, and the change is dated back, so after a long quiet time that caller does not wait.
* The state is complete and consistent before a listener hears of it.
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable

from cotacoes.patterns.resilience.breaker_config import BreakerState, CircuitBreakerConfig
from cotacoes.patterns.resilience.breaker_events import (
    TRANSITIONS,
    BreakerEvent,
    BreakerSnapshot,
    CallNotPermitted,
    CallSettled,
    CallVerdict,
    CircuitOpenError,
    StateTransition,
    TransitionReason,
)
from cotacoes.patterns.resilience.breaker_evidence import Evidence, reason_to_end_half_open, reason_to_open

ERROR_TEXT_MAX = 200

# names of their own, since looking up a member of an Enum costs as much as all else that a closed circuit does
_CLOSED, _OPEN, _HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
_FORCED_OPEN, _DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
_REFUSING = (_OPEN, _FORCED_OPEN)  # these keep the evidence of the state before, to be shown
_FAILURE, _IGNORED = CallVerdict.FAILURE, CallVerdict.IGNORED


class Permit:
    """Permission to make one call; to be settled once, a cancelled call with `CallVerdict.IGNORED`."""

    __slots__ = ("_breaker", "_settled", "generation", "overdue", "started")

    def __init__(self, breaker: CircuitBreaker, generation: int, started: float) -> None:
        self._breaker = breaker
        self._settled = False
        self.generation = generation
        self.started = started
        self.overdue = False

    def settle(self, verdict: CallVerdict, error: BaseException | None = None) -> bool:
        """Report what the call showed; False if that changed nothing: ignored, too late, or settled before."""
        if self._settled:
            return False
        self._settled = True
        return self._breaker._settle(self, verdict, error)


class CircuitBreaker:
    """One circuit, as the head of this file describes it.

    `clock` returns monotonic seconds; `on_event` is called with each `BreakerEvent`, in order.
    """

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig,
        *,
        clock: Callable[[], float],
        random: random_module.Random,
        on_event: Callable[[BreakerEvent], None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self._clock = clock
        self._random = random
        self._on_event = on_event
        self._generation = -1
        self._wait = config.wait_duration_in_open  # grows with each half-open that fails
        self._slow_call = config.slow_call_duration_threshold
        self._probes_at_once = config.max_concurrent_calls_in_half_open or config.permitted_calls_in_half_open
        self._not_permitted = self._ignored = self._late = 0
        self._last_error: str | None = None
        self._open_until = clock() + self._jittered_wait()  # if the circuit begins open
        self._seen = Evidence(config, config.initial_state)
        self._enter(config.initial_state, clock())

    @property
    def state(self) -> BreakerState:
        """The state as the last caller left it: an open circuit stays open after its wait, until the next caller."""
        return self._state

    @property
    def generation(self) -> int:
        return self._generation

    def retry_after(self) -> float | None:
        """Seconds until a call may pass; None if one may pass now, infinite if only an operator can allow it."""
        if self._state is _FORCED_OPEN:
            return math.inf
        now = self._clock()
        if self._state is _OPEN:
            return self._open_until - now if now < self._open_until else None
        if self._state is not _HALF_OPEN or self._has_free_probe():
            return None
        # a probe may end at any time, so this is a guess
        return min(max(self._half_open_until - now, 0.0), self.config.wait_duration_in_open)

    def metrics(self) -> BreakerSnapshot:
        """The state with the evidence for it."""
        now, seen, window = self._clock(), self._seen, self._seen.window
        window.forget_old(now)
        if self._state not in _REFUSING:
            seen.find_overdue(now)
        return BreakerSnapshot(
            state=self._state,
            generation=self._generation,
            calls=window.calls,
            failures=window.failures,
            slow_calls=window.slow_calls,
            overdue=seen.overdue,
            failure_rate=seen.failure_rate,
            slow_call_rate=seen.slow_call_rate,
            consecutive_failures=seen.consecutive_failures,
            not_permitted=self._not_permitted,
            ignored=self._ignored,
            late=self._late,
            last_error=self._last_error,
            retry_after=self.retry_after(),
        )

    def try_acquire(self) -> Permit | None:
        """A permit for one call; None if no call may be made now."""
        now = self._clock()
        if (self._state is _OPEN and now < self._open_until) or (  # first, since a refusal must cost next to nothing
            (self._state is not _CLOSED or self._slow_call is not None) and not self._admits(now)
        ):
            self._not_permitted += 1
            if self._on_event is not None:
                self._on_event(CallNotPermitted(self.name, self._state, now))
            return None
        permit = Permit(self, self._generation, now)
        if self._slow_call is not None and self._state is not _DISABLED:
            self._seen.begin(permit)
        return permit

    def acquire(self) -> Permit:
        """A permit for one call; CircuitOpenError if no call may be made now."""
        permit = self.try_acquire()
        if permit is None:
            raise CircuitOpenError(self.name, self._state, self.retry_after() or 0.0, self._last_error)
        return permit

    def open_for(self, seconds: float) -> None:
        """Open now for at least so many seconds, as the upstream asks (Retry-After).

        0 changes nothing, and neither does a state that an operator has set.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"open_for takes a finite number of seconds of at least 0, not {seconds!r}")
        now = self._clock()
        self._expire_half_open(now)
        if seconds == 0 or self._state not in (_CLOSED, _OPEN, _HALF_OPEN):
            return
        if self._state is _OPEN:
            self._open_until = max(self._open_until, now + seconds)
        else:
            self._change(TransitionReason.RETRY_AFTER, now, open_until=now + seconds)

    def reset(self) -> None:
        """Close the circuit and forget its evidence; calls under way are of an older generation."""
        self._change(TransitionReason.RESET, self._clock())

    def force_open(self) -> None:
        """Let no call pass until `reset()`."""
        self._change(TransitionReason.FORCED, self._clock())

    def disable(self) -> None:
        """Let every call pass, uncounted, until `reset()`."""
        self._change(TransitionReason.DISABLED, self._clock())

    def metrics_only(self) -> None:
        """Let every call pass, counted, until `reset()`."""
        self._change(TransitionReason.METRICS_ONLY, self._clock())

    def _admits(self, now: float) -> bool:
        """Whether a call may be made, after the changes of state that time alone brings."""
        self._expire_half_open(now)
        if self._state is _OPEN and now >= self._open_until:
            self._change(TransitionReason.WAIT_OVER, now)
        elif self._slow_call is not None and self._state not in _REFUSING:
            self._seen.find_overdue(now)
            if self._seen.overdue:
                self._seen.window.forget_old(now)
                self._judge(now)
        if self._state is _HALF_OPEN:
            if not self._has_free_probe():
                return False
            self._probes_out += 1
            return True
        return self._state not in _REFUSING

    def _has_free_probe(self) -> bool:
        taken = self._probes_out + self._seen.window.calls
        return self._probes_out < self._probes_at_once and taken < self.config.permitted_calls_in_half_open

    def _expire_half_open(self, now: float) -> None:
        if self._state is _HALF_OPEN and now >= self._half_open_until:
            if self._probes_out:
                self._grow_wait()  # a probe that does not return has failed; without callers there is no evidence
            self._change(TransitionReason.HALF_OPEN_TIMED_OUT, self._half_open_until)

    def _settle(self, permit: Permit, verdict: CallVerdict, error: BaseException | None) -> bool:
        now = self._clock()
        if self._state is not _CLOSED:
            self._expire_half_open(now)
        is_late = permit.generation != self._generation
        is_counted = not is_late and verdict is not _IGNORED and self._state is not _DISABLED
        is_slow = self._slow_call is not None and now - permit.started > self._slow_call
        if not is_late:
            self._probes_out -= self._state is _HALF_OPEN
            if self._slow_call is not None:
                self._seen.end(permit)
                self._seen.find_overdue(now)
        if is_counted:
            self._seen.record(now, is_failure=verdict is _FAILURE, is_slow=is_slow)
        elif is_late:
            self._late += 1
        else:
            self._ignored += 1
        said = None if error is None else f"{type(error).__name__}: {error}"[:ERROR_TEXT_MAX]
        if verdict is _FAILURE and said is not None:
            self._last_error = said
        try:
            if self._on_event is not None:
                self._on_event(CallSettled(self.name, verdict, is_slow, is_counted, now - permit.started, now, said))
        finally:  # a listener that fails must not prevent the judgement
            if is_counted:
                self._judge(now)
        return is_counted

    def _judge(self, now: float) -> None:
        reason = None
        if self._state is _CLOSED:
            reason = reason_to_open(self._seen, self.config)
        elif self._state is _HALF_OPEN:
            reason = reason_to_end_half_open(self._seen, self.config)
            if reason in (TransitionReason.PROBES_FAILED, TransitionReason.PROBES_SLOW):
                self._grow_wait()
        if reason is not None:
            self._change(reason, now)

    def _change(self, reason: TransitionReason, at: float, *, open_until: float | None = None) -> None:
        before = self._state
        after = TRANSITIONS[before, reason]
        if after is _OPEN:
            self._open_until = at + self._jittered_wait() if open_until is None else open_until
        elif after is _CLOSED:
            self._wait = self.config.wait_duration_in_open
        self._enter(after, at)
        if self._on_event is not None:
            self._on_event(StateTransition(self.name, before, after, reason, at))

    def _enter(self, state: BreakerState, at: float) -> None:
        self._state = state
        self._generation += 1
        self._probes_out = 0
        if state is _HALF_OPEN:
            limit = self.config.max_wait_duration_in_half_open
            self._half_open_until = math.inf if limit is None else at + limit
        if state not in _REFUSING:
            self._seen = Evidence(self.config, state)

    def _grow_wait(self) -> None:
        most = self.config.max_wait_duration_in_open or self._wait
        self._wait = min(self._wait * self.config.wait_duration_multiplier, most)

    def _jittered_wait(self) -> float:
        jitter = self.config.wait_duration_jitter
        wait = self._wait * self._random.uniform(1.0 - jitter, 1.0 + jitter)
        return min(wait, self.config.max_wait_duration_in_open or math.inf)
