"""Resilience: the companions of the circuit breaker, put together in one order that is the same everywhere.

    fallback → deadline → single-flight → bulkhead → retry (breaker) → attempt timeout → classification → call

* The fallback is outermost: whatever went wrong inside, an earlier good answer with its age is better than none.
* The deadline bounds everything inside by bounding each wait: for a flight, a place, another attempt, an answer. It
  needs no timer of its own, so a call costs none; only a flight has one, since it belongs to no single caller.
* The bulkhead is waited for before a permit is acquired: a probe that queues would hold a slot and prove nothing.
* The breaker is asked before each attempt, and learns how each of them ended.
* An attempt has its own time if the deadline leaves that much: a call that hangs so long has failed. If the deadline
  leaves less, the attempt ends a little before it, and proves nothing about the upstream: that is `CallDeadlineError`,
  which classification ignores.
* An answer is cached for the fallback where it arrives, so also if its caller has left meanwhile.
* An error with the verdict SUCCESS or IGNORED is an answer: no fallback takes its place.

The layers that a policy has are chained once, when it is made; a call goes through them as it would through functions.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from cotacoes.patterns.resilience.breaker_config import BreakerState
from cotacoes.patterns.resilience.breaker_events import CallVerdict, CircuitOpenError
from cotacoes.patterns.resilience.bulkhead import Bulkhead, BulkheadFullError
from cotacoes.patterns.resilience.circuit_breaker import CircuitBreaker
from cotacoes.patterns.resilience.classification import Classify, classify
from cotacoes.patterns.resilience.deadline import CallDeadlineError, Deadline, current_deadline, without_timer
from cotacoes.patterns.resilience.fallback import LastGood
from cotacoes.patterns.resilience.retry import RetriedCall, Retrier, RetryConfig, RetryEvent
from cotacoes.patterns.resilience.retry_budget import RetryBudget
from cotacoes.patterns.resilience.single_flight import FlightLostError, SingleFlight

T = TypeVar("T")

ATTEMPT_SHARE_MAX = 0.95  # of the time left, if that is less than an attempt's: the rest is for the fallback

_NOT_MADE = (CircuitOpenError, BulkheadFullError, CallDeadlineError, FlightLostError)


class ServedFrom(enum.StrEnum):
    """Where an answer came from."""

    LIVE = "live"
    SHARED = "shared"  # another caller asked the same question at the same time
    CACHE = "cache"


_LIVE = ServedFrom.LIVE


class AttemptTimeoutError(TimeoutError):
    """The upstream did not answer within the time of one attempt."""


class CallResult(NamedTuple, Generic[T]):
    """An answer, its `age` in seconds since the question, and the name of the `upstream` that gave it.

    `reason` says why the answer is not live, and is None if it is. `attempts` are the calls that this question cost;
    those of a flight that its caller left are not counted.
    """

    value: T
    served_from: ServedFrom
    age: float
    attempts: int
    breaker_state: BreakerState | None
    reason: str | None = None
    upstream: str = ""


@dataclass(frozen=True, slots=True)
class FellBack:
    """A call failed, and an earlier answer took its place: `age` in seconds, or None if there was none to use."""

    name: str
    reason: str
    age: float | None


PolicyEvent = RetryEvent | FellBack


@dataclass(frozen=True, slots=True, kw_only=True)
class ResilienceConfig:
    """Durations in seconds: `deadline` of a whole call, and `attempt_timeout` of each attempt, which must be shorter.

    Otherwise the deadline would end every call that hangs, and the breaker would never learn of it.
    """

    deadline: float = 2.0
    attempt_timeout: float = 0.8
    retry: RetryConfig = dataclasses.field(default_factory=RetryConfig)

    def __post_init__(self) -> None:
        if not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline must be finite and above 0 seconds, not {self.deadline!r}")
        if not 0 < self.attempt_timeout < self.deadline:
            raise ValueError(
                f"attempt_timeout must be above 0 seconds and below deadline, not {self.attempt_timeout!r}"
            )


class _Question(NamedTuple):
    """What a caller asks: `key` names the question for callers that ask the same."""

    ask: Callable[[], Awaitable[Any]]
    idempotent: bool
    key: Hashable | None


class _NoAnswer(NamedTuple):
    """An error on its way out, with what only the innermost layer knows.

    It is a value because an exception around an exception would be a cycle, and would overwrite the inner one's cause.
    """

    error: Exception
    attempts: int
    reason: str
    trace: TracebackType | None  # kept apart: a shared error is raised once for each caller


_Ended: TypeAlias = CallResult[Any] | _NoAnswer
_Layer: TypeAlias = Callable[[_Question], Awaitable[_Ended]]


class ResiliencePolicy:
    """All calls to one upstream, through the companions that are given. The head of this file says in which order."""

    def __init__(
        self,
        name: str,
        config: ResilienceConfig,
        *,
        clock: Callable[[], float],
        random: Random,
        breaker: CircuitBreaker | None = None,
        budget: RetryBudget | None = None,
        bulkhead: Bulkhead | None = None,
        single_flight: SingleFlight[Any] | None = None,
        fallback: LastGood[Any] | None = None,
        classify: Classify = classify,
        on_event: Callable[[PolicyEvent], None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.breaker = breaker
        self.budget = budget or RetryBudget()
        self._clock = clock
        self._fallback = fallback
        self._classify = classify
        self._on_event = on_event
        self._retrier = Retrier(name, config.retry, self.budget, classify, random, breaker, on_event)
        self._ask: _Layer = self._retried
        if bulkhead is not None:
            self._ask = functools.partial(_in_bulkhead, bulkhead, self._ask)
        if single_flight is not None:
            self._ask = functools.partial(_in_one_flight, single_flight, self._ask)

    async def call(
        self, fn: Callable[[], Awaitable[T]], *, idempotent: bool, key: Hashable | None = None
    ) -> CallResult[T]:
        """Call `fn` and return its answer. Questions with the same `key` are the same; None is like no other.

        Raises the error of the last attempt, with a note that says why there was no further one; or CircuitOpenError,
        BulkheadFullError or CallDeadlineError if there was no attempt.
        """
        with Deadline.after(self.config.deadline, self._clock).scope():
            ended = await self._ask(_Question(fn, idempotent, key))
        if isinstance(ended, CallResult):
            return ended
        cached = self._cached(key, ended)
        if cached is not None:
            return cached
        error, trace = ended.error, ended.trace
        try:
            raise error.with_traceback(trace)
        finally:
            del ended, error, trace  # the error holds this frame

    def _cached(self, key: Hashable | None, failed: _NoAnswer) -> CallResult[Any] | None:
        if self._fallback is None or key is None:
            return None
        error, attempts, reason, _ = failed
        if not isinstance(error, _NOT_MADE) and self._classify(error).verdict is not CallVerdict.FAILURE:
            return None
        cached = self._fallback.get(key)
        if self._on_event is not None:
            self._on_event(FellBack(self.name, reason, None if cached is None else cached.age))
        if cached is None:
            return None
        state = self._breaker_state()
        return CallResult(cached.value, ServedFrom.CACHE, cached.age, attempts, state, reason, cached.upstream)

    async def _retried(self, question: _Question) -> _Ended:
        deadline = current_deadline()  # this call's, or that of the flight
        assert deadline is not None
        call: RetriedCall[Any] = self._retrier.new_call(idempotent=question.idempotent, deadline=deadline)
        asked_at = self._clock()
        try:
            value = await call.run(lambda: self._timed(question.ask, deadline))
        except Exception as error:
            return _no_answer(error, call.attempts, call.reason or "refused")
        if self._fallback is not None and question.key is not None:
            self._fallback.put(question.key, value, upstream=self.name, asked_at=asked_at)
        age = self._clock() - asked_at
        return CallResult(value, _LIVE, age, call.attempts, self._breaker_state(), upstream=self.name)

    async def _timed(self, ask: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        left = deadline.remaining()
        is_whole = self.config.attempt_timeout < left
        limit = asyncio.timeout(self.config.attempt_timeout if is_whole else left * ATTEMPT_SHARE_MAX)
        try:
            async with limit:
                return await ask()
        except TimeoutError as error:
            if not limit.expired():
                raise
            if not is_whole:
                raise CallDeadlineError("the deadline left no time for an answer") from without_timer(error)
            raise AttemptTimeoutError(f"no answer within {self.config.attempt_timeout:g} s") from without_timer(error)
        finally:
            del limit  # as in `without_timer`

    def _breaker_state(self) -> BreakerState | None:
        return None if self.breaker is None else self.breaker.state


async def _in_one_flight(flights: SingleFlight[_Ended], ask: _Layer, question: _Question) -> _Ended:
    if question.key is None:
        return await ask(question)
    deadline = current_deadline()
    assert deadline is not None
    try:
        async with deadline.enforced():
            ended, is_shared = await flights.do(question.key, lambda: ask(question))
    except CallDeadlineError as error:
        return _no_answer(error, 0, "deadline")
    except FlightLostError as error:
        return _no_answer(error, 0, "flight_lost")
    return ended._replace(served_from=ServedFrom.SHARED) if is_shared and isinstance(ended, CallResult) else ended


async def _in_bulkhead(bulkhead: Bulkhead, ask: _Layer, question: _Question) -> _Ended:
    try:
        async with bulkhead:
            return await ask(question)
    except BulkheadFullError as error:
        return _no_answer(error, 0, "bulkhead")


def _no_answer(error: Exception, attempts: int, reason: str) -> _NoAnswer:
    return _NoAnswer(error, attempts, reason, error.__traceback__)
