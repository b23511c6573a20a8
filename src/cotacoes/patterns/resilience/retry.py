"""Retry: a few more tries inside one deadline, paid from a budget, and each of them let through by the breaker.

tenacity drives both, with its own hooks and nothing around them:

    before                 the breaker's permit; none, or no time left: that as an error, or the error of the try before
    retry                  what the outcome shows is settled, of a cancellation too; whether another try is worth it
    wait                   full jitter under a bound that doubles, or the wait that the callee asked for
    stop                   attempts, circuit, deadline, budget, in this order; the reason is kept
    retry_error_callback   the last error as it is, with a note that says why there was no further try

One controller per call: tenacity's own carries the state of a call (shared by 20 tasks it mixed up all of them). One
layer only: retries of two layers multiply. What is no Exception, a cancellation above all, is settled as ignored and
passed on: nobody is asked about it.
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
    """`attempts` are the calls that were let through since the counting began."""

    __slots__ = ("attempts",)

    def __init__(self) -> None:
        self.attempts = 0


_tally: contextvars.ContextVar[AttemptCounter | None] = contextvars.ContextVar("cotacoes_tally", default=None)


def count_attempts() -> AttemptCounter:
    """Count from here on what this task, and those that it starts, do: also where all that is seen is an error."""
    tally = AttemptCounter()
    _tally.set(tally)
    return tally


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
        if not 0 <= self.max_wait_duration < math.inf:
            raise ValueError(f"max_wait_duration must be from 0 seconds, finite, not {self.max_wait_duration!r}")
        if not 0 <= self.wait_duration <= self.max_wait_duration:
            raise ValueError(f"wait_duration must be from 0 to max_wait_duration, not {self.wait_duration!r}")
        if not 0 <= self.max_retry_after < math.inf:
            raise ValueError(f"max_retry_after must be from 0 seconds, finite, not {self.max_retry_after!r}")


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
        self._backoff: Backoff | None = None
        self._is_paid = False  # for a try that has not begun
        self._seen = _GOOD
        self._error: BaseException | None = None
        self._state: tenacity.RetryCallState | None = None

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

        async def attempt() -> T:  # tenacity awaits only what is visibly a coroutine function
            try:
                return await call()
            except tenacity.TryAgain as error:
                raise RuntimeError("tenacity.TryAgain left the call") from error  # here it would pass by `retry`

        try:
            return await retrying(attempt)
        finally:
            self._release()  # whatever the way out, no permit stays out
            vars(retrying).clear()  # it was for this call, and refers to itself

    async def _admit(self, state: tenacity.RetryCallState) -> None:
        self._state = state
        refused = self._reason_to_refuse()
        if refused is not None:
            self.reason = refused
            self._give_up(state)
        self._is_paid = False
        self.attempts = state.attempt_number
        if (tally := _tally.get()) is not None:
            tally.attempts += 1

    def _reason_to_refuse(self) -> StopReason | None:
        """Where there is none, the permit is taken."""
        breaker, deadline = self._shared.breaker, self._deadline
        if deadline is not None and deadline.remaining() == 0:
            self._keep_first(CallDeadlineError("the deadline left no time for a call"))
            return StopReason.DEADLINE
        try:
            self._permit = None if breaker is None else breaker.acquire()
        except CircuitOpenError as error:
            self._keep_first(error)
            self._tell(AttemptEnded(self._shared.name, "not_permitted", self.attempts + 1))
            return StopReason.CIRCUIT
        return None

    def _keep_first(self, error: Exception) -> None:
        if self._error is None:  # what was seen before the wait says more
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
        self._tell(AttemptEnded(self._shared.name, seen.outcome, self.attempts))
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
        if self._backoff is None:  # most calls need none
            config = self._shared.config
            self._backoff = Backoff(self._shared.random, first_s=config.wait_duration, most_s=config.max_wait_duration)
        return max(self._wait_asked_for(), self._backoff.next_s())

    def _wait_asked_for(self) -> float:
        asked = self._seen.retry_after or 0.0
        return min(asked, self._shared.config.max_retry_after) if asked > 0 else 0.0  # what is no number is none

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
        note = f"no further try after {self.attempts}: {reason.value}"
        if note not in getattr(self._error, "__notes__", ()):  # one and the same error may be raised again and again
            self._error.add_note(note)
        self._tell(RetriesStopped(self._shared.name, reason, self.attempts))

    def _release(self) -> None:
        if self._is_paid:
            self._shared.budget.give_back()
            self._is_paid = False
        self._error = None  # its traceback holds this object: a cycle, and with it all that was on the way
        if self._state is not None:
            self._state.outcome = None
            self._state = None
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.settle(CallVerdict.IGNORED)

    def _tell(self, event: RetryEvent) -> None:
        if self._shared.on_event is not None:
            self._shared.on_event(event)
