"""Retry: a few more attempts within one deadline, paid from a budget, each permitted by the breaker.

tenacity drives the attempts through its own hooks:

    before                 acquire a permit; without one, or without time, raise that or the error of the last attempt
    retry                  settle the permit, after a cancellation too; decide whether another attempt is worthwhile
    wait                   full jitter under a bound that doubles, or the wait that the upstream asked for
    stop                   attempts, circuit, deadline, budget, in this order; the reason is noted
    retry_error_callback   raise the last error as it is, with a note that says why there was no further attempt

Each call has its own controller, since tenacity's carries the state of one call (shared by 20 tasks it mixed up all of
them). Only one layer retries: retries of two layers multiply. Anything but an Exception, above all a cancellation, is
settled as ignored and passed on unclassified.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

import tenacity

from cotacoes.patterns.resilience.backoff import Backoff
from cotacoes.patterns.resilience.breaker_events import CallVerdict, CircuitOpenError
from cotacoes.patterns.resilience.circuit_breaker import CircuitBreaker, Permit
from cotacoes.patterns.resilience.classification import Classification, Classify, Outcome
from cotacoes.patterns.resilience.deadline import CallDeadlineError, Deadline
from cotacoes.patterns.resilience.retry_budget import RetryBudget

T = TypeVar("T")

_GOOD = Classification(CallVerdict.SUCCESS)
_CANCELLED = Classification(CallVerdict.IGNORED, outcome=Outcome.CANCELLED)


class AttemptCounter:
    """The number of calls that were permitted since the counting began."""

    __slots__ = ("attempts",)

    def __init__(self) -> None:
        self.attempts = 0


_counter: contextvars.ContextVar[AttemptCounter | None] = contextvars.ContextVar("cotacoes_attempts", default=None)


def count_attempts() -> AttemptCounter:
    """Count the attempts of this task and of the tasks that it starts, even if they end with an error."""
    counter = AttemptCounter()
    _counter.set(counter)
    return counter


class StopReason(enum.StrEnum):
    """Why there was no further attempt."""

    NOT_RETRYABLE = "not_retryable"  # the same question would get the same answer
    NOT_IDEMPOTENT = "not_idempotent"  # a second attempt may do it twice
    ATTEMPTS = "attempts"
    CIRCUIT = "circuit"
    DEADLINE = "deadline"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """How often to try, and how long apart. Durations in seconds; ValueError if a value makes no sense.

    max_attempts           the number of attempts, the first included
    wait_duration          upper bound of the first wait; doubles with each wait, up to `max_wait_duration`
    max_retry_after        upper bound of a wait that the upstream asks for
    retry_non_idempotent   whether to retry calls that are not idempotent
    """

    max_attempts: int = 2
    wait_duration: float = 0.05
    max_wait_duration: float = 0.4
    max_retry_after: float = 300.0
    retry_non_idempotent: bool = False

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts!r}")
        if not 0 <= self.max_wait_duration < math.inf:
            raise ValueError(f"max_wait_duration must be finite and at least 0 seconds, not {self.max_wait_duration!r}")
        if not 0 <= self.wait_duration <= self.max_wait_duration:
            raise ValueError(f"wait_duration must be from 0 to max_wait_duration, not {self.wait_duration!r}")
        if not 0 <= self.max_retry_after < math.inf:
            raise ValueError(f"max_retry_after must be finite and at least 0 seconds, not {self.max_retry_after!r}")


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt ended. `outcome` is the classification's, or `not_permitted` if the breaker refused it."""

    name: str
    outcome: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RetriesStopped:
    """A call failed after so many attempts, and the reason why there was no further one."""

    name: str
    reason: StopReason
    attempts: int


RetryEvent = AttemptEnded | RetriesStopped


@dataclass(frozen=True, slots=True)
class Retrier:
    """What all calls to one upstream share; `new_call` makes the controller of one call."""

    name: str
    config: RetryConfig
    budget: RetryBudget
    classify: Classify
    random: Random
    breaker: CircuitBreaker | None = None
    on_event: Callable[[RetryEvent], None] | None = None

    def new_call(self, *, idempotent: bool, deadline: Deadline | None = None) -> RetriedCall[Any]:
        """A controller for one call."""
        return RetriedCall(self, idempotent, deadline)


class RetriedCall(Generic[T]):
    """One call and its attempts."""

    def __init__(self, shared: Retrier, idempotent: bool, deadline: Deadline | None) -> None:
        self.attempts = 0
        self.reason: StopReason | None = None
        self._shared = shared
        self._may_repeat = idempotent or shared.config.retry_non_idempotent
        self._deadline = deadline
        self._permit: Permit | None = None
        self._backoff: Backoff | None = None
        self._is_paid = False  # for an attempt that has not begun
        self._seen = _GOOD
        self._error: BaseException | None = None
        self._state: tenacity.RetryCallState | None = None

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of `call`. Raises its last error, with a note, or CircuitOpenError if no attempt was permitted."""
        retrying = tenacity.AsyncRetrying(
            before=self._admit,
            retry=self._settle,
            wait=self._wait,
            stop=self._stop,
            retry_error_callback=self._give_up,
            sleep=asyncio.sleep,
        )

        async def attempt() -> T:  # tenacity awaits only coroutine functions
            try:
                return await call()
            except tenacity.TryAgain as error:
                raise RuntimeError("tenacity.TryAgain left the call") from error  # tenacity would retry it unseen

        try:
            return await retrying(attempt)
        finally:
            self._release()  # on every way out, so that no permit stays out
            vars(retrying).clear()  # it belongs to this call, and refers to itself

    async def _admit(self, state: tenacity.RetryCallState) -> None:
        self._state = state
        refused = self._reason_to_refuse()
        if refused is not None:
            self.reason = refused
            self._give_up(state)
        self._is_paid = False
        self.attempts = state.attempt_number
        if (counter := _counter.get()) is not None:
            counter.attempts += 1

    def _reason_to_refuse(self) -> StopReason | None:
        """Why there is no attempt; without a reason the permit is acquired."""
        breaker, deadline = self._shared.breaker, self._deadline
        if deadline is not None and deadline.remaining() == 0:
            self._set_first_error(CallDeadlineError("the deadline left no time for a call"))
            return StopReason.DEADLINE
        try:
            self._permit = None if breaker is None else breaker.acquire()
        except CircuitOpenError as error:
            self._set_first_error(error)
            self._report(AttemptEnded(self._shared.name, "not_permitted", self.attempts + 1))
            return StopReason.CIRCUIT
        return None

    def _set_first_error(self, error: Exception) -> None:
        if self._error is None:  # an error from before the wait says more
            self._error = error

    async def _settle(self, state: tenacity.RetryCallState) -> bool:
        assert state.outcome is not None
        error = self._error = state.outcome.exception()
        if error is None:
            seen = _GOOD
        elif isinstance(error, Exception):
            seen = self._shared.classify(error)
        else:
            seen = _CANCELLED
        self._seen = seen
        if self._permit is not None:
            self._permit.settle(seen.verdict, error)
            self._permit = None
        self._report(AttemptEnded(self._shared.name, seen.outcome, self.attempts))
        if error is None:
            self._shared.budget.earn()
            return False
        asked = self._wait_asked_for()
        if asked and self._shared.breaker is not None:
            self._shared.breaker.open_for(asked)
        if seen.retryable and self._may_repeat:
            return True
        if seen.verdict is CallVerdict.FAILURE:
            self._note_stop(StopReason.NOT_IDEMPOTENT if seen.retryable else StopReason.NOT_RETRYABLE)
        elif isinstance(error, CallDeadlineError):
            self._note_stop(StopReason.DEADLINE)
        return False

    def _wait(self, _: tenacity.RetryCallState) -> float:
        if self._backoff is None:  # most calls need no wait
            config = self._shared.config
            self._backoff = Backoff(self._shared.random, first_s=config.wait_duration, most_s=config.max_wait_duration)
        return max(self._wait_asked_for(), self._backoff.next_s())

    def _wait_asked_for(self) -> float:
        asked = self._seen.retry_after or 0.0
        return min(asked, self._shared.config.max_retry_after) if asked > 0 else 0.0  # NaN counts as none

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        breaker, deadline = self._shared.breaker, self._deadline
        if state.attempt_number >= self._shared.config.max_attempts:
            self.reason = StopReason.ATTEMPTS
        elif breaker is not None and breaker.retry_after() is not None:
            self.reason = StopReason.CIRCUIT
        elif deadline is not None and state.upcoming_sleep >= deadline.remaining():
            self.reason = StopReason.DEADLINE
        elif not self._shared.budget.spend():  # last, so that nothing is spent on an attempt that will not be made
            self.reason = StopReason.BUDGET
        else:
            self._is_paid = True
        return self.reason is not None

    def _give_up(self, _: tenacity.RetryCallState) -> None:
        assert self._error is not None
        assert self.reason is not None
        self._note_stop(self.reason)
        raise self._error

    def _note_stop(self, reason: StopReason) -> None:
        assert self._error is not None
        self.reason = reason
        note = f"no further attempt after {self.attempts}: {reason.value}"
        if note not in getattr(self._error, "__notes__", ()):  # the same error object may be raised again
            self._error.add_note(note)
        self._report(RetriesStopped(self._shared.name, reason, self.attempts))

    def _release(self) -> None:
        if self._is_paid:
            self._shared.budget.give_back()
            self._is_paid = False
        self._error = None  # its traceback holds this object, and such a cycle would keep all frames of the call
        if self._state is not None:
            self._state.outcome = None
            self._state = None
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.settle(CallVerdict.IGNORED)

    def _report(self, event: RetryEvent) -> None:
        if self._shared.on_event is not None:
            self._shared.on_event(event)
