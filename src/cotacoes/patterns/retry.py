"""Retry: a few more tries inside one deadline, paid from a budget, and each of them let through by the breaker.

tenacity drives both, with its own hooks and nothing around them:

    before                 the breaker's permit; refused: CircuitOpenError, or the error of the try before
    retry                  what the outcome shows is settled, of a cancellation too; whether another try is worth it
    wait                   full jitter under a bound that doubles, or the wait that the callee asked for
    stop                   attempts, circuit, deadline, budget, in this order; the reason is kept
    retry_error_callback   the last error as it is, with a note that says why there was no further try

One controller per call: tenacity's own carries the state of a call (shared by 20 tasks it mixed up all of them). One
layer only: retries of two layers multiply. Predicates are positive: the negative ones swallow cancellation.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

import tenacity

from cotacoes.patterns.breaker_events import CircuitOpenError, Verdict
from cotacoes.patterns.circuit_breaker import CircuitBreaker, Permit
from cotacoes.patterns.classification import Classification, Classify
from cotacoes.patterns.deadline import Deadline

T = TypeVar("T")

_GOOD = Classification(Verdict.SUCCESS)


class StopReason(enum.StrEnum):
    """Why there was no further try."""

    NOT_RETRYABLE = "not_retryable"  # the same question would get the same answer
    NOT_IDEMPOTENT = "not_idempotent"  # to ask twice may do it twice
    ATTEMPTS = "attempts"
    CIRCUIT = "circuit"
    DEADLINE = "deadline"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """How often and how long apart. Durations in seconds; ValueError where impossible.

    max_attempts           calls in all, the first included
    wait_duration          bound of the first wait; it doubles with each, up to `max_wait_duration`
    max_retry_after        a wait that the callee asks for is obeyed up to this
    retry_non_idempotent   calls that may do it twice are tried again as well
    """

    max_attempts: int = 2
    wait_duration: float = 0.05
    max_wait_duration: float = 0.4
    max_retry_after: float = 300.0
    retry_non_idempotent: bool = False

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts!r}")
        if not 0 <= self.wait_duration <= self.max_wait_duration:
            raise ValueError(f"wait_duration must be from 0 to max_wait_duration, not {self.wait_duration!r}")
        if not self.max_retry_after >= 0:
            raise ValueError(f"max_retry_after must be at least 0 seconds, not {self.max_retry_after!r}")


class RetryBudget:
    """Every success earns a share of a retry, every retry costs one: retries never exceed that share of the successes.

    Beside it a reserve of `saved_max`, which a quiet time fills. Hedges may spend from the same budget.
    """

    def __init__(self, share: float = 0.1, saved_max: float = 10.0, *, saved: float = 0.0) -> None:
        self._share = share
        self._saved_max = saved_max
        self.saved = saved

    def earn(self) -> None:
        """A call succeeded."""
        self.saved = min(self._saved_max, self.saved + self._share)

    def spend(self) -> bool:
        """Take one further call from the budget; False where there is none."""
        if self.saved < 1.0 - 1e-9:  # ten times 0.1 is a little below 1
            return False
        self.saved -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One try of a call ended. `outcome` is the classification's word for it, `not_permitted` where none was made."""

    name: str
    outcome: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RetriesStopped:
    """A call failed for good, after so many tries, and why there was no further one."""

    name: str
    reason: StopReason
    attempts: int


RetryEvent = AttemptEnded | RetriesStopped


@dataclass(frozen=True, slots=True)
class Retrier:
    """What all calls to one callee share; `new_call` makes the controller of one."""

    name: str
    config: RetryConfig
    budget: RetryBudget
    classify: Classify
    random: Random
    breaker: CircuitBreaker | None = None
    on_event: Callable[[RetryEvent], None] | None = None

    def new_call(self, *, idempotent: bool, deadline: Deadline | None = None) -> RetriedCall[Any]:
        """A fresh controller; it is used once."""
        return RetriedCall(self, idempotent, deadline)


class RetriedCall(Generic[T]):
    """One call and its tries."""

    def __init__(self, shared: Retrier, idempotent: bool, deadline: Deadline | None) -> None:
        self.attempts = 0
        self.reason: StopReason | None = None
        self._shared = shared
        self._may_repeat = idempotent or shared.config.retry_non_idempotent
        self._deadline = deadline
        self._permit: Permit | None = None
        self._seen = _GOOD
        self._error: BaseException | None = None

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` answers; its last error, with a note, or CircuitOpenError where none was made."""
        retrying = tenacity.AsyncRetrying(
            before=self._admit,
            retry=self._settle,
            wait=self._wait,
            stop=self._stop,
            retry_error_callback=self._give_up,
            sleep=asyncio.sleep,
        )

        async def attempt() -> T:
            return await call()  # tenacity awaits only what is visibly a coroutine function

        try:
            return await retrying(attempt)
        finally:
            self._release()  # whatever the way out, no permit stays out

    async def _admit(self, state: tenacity.RetryCallState) -> None:
        breaker = self._shared.breaker
        if breaker is not None:
            try:
                self._permit = breaker.acquire()
            except CircuitOpenError:
                self.reason = StopReason.CIRCUIT
                self._tell(AttemptEnded(self._shared.name, "not_permitted", self.attempts + 1))
                if self._error is not None:
                    self._give_up(state)  # the circuit opened during the wait: the error that was seen says more
                self._tell(RetriesStopped(self._shared.name, self.reason, self.attempts))
                raise
        self.attempts = state.attempt_number

    async def _settle(self, state: tenacity.RetryCallState) -> bool:
        assert state.outcome is not None
        error = self._error = state.outcome.exception()
        seen = self._seen = _GOOD if error is None else self._shared.classify(error)
        if self._permit is not None:
            self._permit.settle(seen.verdict, error)
            self._permit = None
        self._tell(AttemptEnded(self._shared.name, seen.outcome, self.attempts))
        if error is None:
            self._shared.budget.earn()
            return False
        if seen.retry_after and self._shared.breaker is not None:
            self._shared.breaker.open_for(min(seen.retry_after, self._shared.config.max_retry_after))
        if seen.retryable and self._may_repeat:
            return True
        if seen.verdict is Verdict.FAILURE:
            self.reason = StopReason.NOT_IDEMPOTENT if seen.retryable else StopReason.NOT_RETRYABLE
            self._tell(RetriesStopped(self._shared.name, self.reason, self.attempts))
        return False

    def _wait(self, state: tenacity.RetryCallState) -> float:
        config = self._shared.config
        bound: float = min(config.max_wait_duration, config.wait_duration * 2.0 ** min(state.attempt_number - 1, 30))
        asked = min(self._seen.retry_after or 0.0, config.max_retry_after)
        return max(asked, self._shared.random.uniform(0.0, bound))

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        breaker, deadline = self._shared.breaker, self._deadline
        if state.attempt_number >= self._shared.config.max_attempts:
            self.reason = StopReason.ATTEMPTS
        elif breaker is not None and breaker.retry_after() is not None:
            self.reason = StopReason.CIRCUIT
        elif deadline is not None and state.upcoming_sleep >= deadline.remaining():
            self.reason = StopReason.DEADLINE
        elif not self._shared.budget.spend():  # last, so that nothing is spent on a try that will not be made
            self.reason = StopReason.BUDGET
        return self.reason is not None

    def _give_up(self, state: tenacity.RetryCallState) -> None:
        assert self._error is not None
        assert self.reason is not None
        self._tell(RetriesStopped(self._shared.name, self.reason, self.attempts))
        self._error.add_note(f"no further try after {self.attempts}: {self.reason.value}")
        raise self._error

    def _release(self) -> None:
        if self._permit is not None:
            self._permit.settle(Verdict.IGNORED)
            self._permit = None

    def _tell(self, event: RetryEvent) -> None:
        if self._shared.on_event is not None:
            self._shared.on_event(event)
