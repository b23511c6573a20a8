"""Resilience: the companions of the circuit breaker, put together in one order that is the same everywhere.

    fallback → deadline → single-flight → bulkhead → retry (breaker) → attempt timeout → classification → call

* fallback outside of all: whatever went wrong inside, a good answer of before is better than none, with its age;
* the deadline bounds everything inside, by bounding each wait: for a flight, a place, a further try, an answer. It
  needs no timer of its own, so a call costs none. Only a flight has its own, as it is not one caller's;
* the bulkhead is waited for before a permit is taken: a probe that queues would hold a slot and prove nothing;
* the breaker is asked anew for each try, and hears of each;
* a try has its own time where the deadline leaves so much: what hangs that long has failed. Where it leaves less, the
  try ends a little before it, and nothing is proved against the callee: `CallDeadlineError`, which classification
  ignores;
* what is kept for the fallback is kept where it comes in, so it is kept also when the caller has gone meanwhile;
* an answer that says no (`CallVerdict.SUCCESS` or `IGNORED` of an error) is an answer: no fallback takes its place.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
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

ATTEMPT_SHARE_MAX = 0.95  # of what is left, where that is less than a try: the rest is for the way out, or a fallback

_NOT_MADE = (CircuitOpenError, BulkheadFullError, CallDeadlineError, FlightLostError)


class ServedFrom(enum.StrEnum):
    """Where an answer came from."""

    LIVE = "live"
    SHARED = "shared"  # of another caller's question, under way at the same time
    CACHE = "cache"


_LIVE = ServedFrom.LIVE


class AttemptTimeoutError(TimeoutError):
    """The callee brought no answer within the time of one try."""


class CallResult(NamedTuple, Generic[T]):
    """An answer. `age` in seconds since it was asked for; `reason` says why it is not a live one, None where it is.

    `upstream` is the name of the policy that brought it, `attempts` how many calls were made for it now; the calls of
    a flight that its caller left are not counted.
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
    """A good answer of before took the place of one that did not come. `age` in seconds; None: there was none."""

    name: str
    reason: str
    age: float | None


PolicyEvent = RetryEvent | FellBack


@dataclass(frozen=True, slots=True, kw_only=True)
class ResilienceConfig:
    """Durations in seconds: `deadline` of a whole call, `attempt_timeout` of each try in it, which is the shorter one.

    Were it not, what hangs would always be ended by the deadline, and the breaker would never hear of it.
    """

    deadline: float = 2.0
    attempt_timeout: float = 0.8
    retry: RetryConfig = dataclasses.field(default_factory=RetryConfig)

    def __post_init__(self) -> None:
        if not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline must be above 0 seconds, finite, not {self.deadline!r}")
        if not 0 < self.attempt_timeout < self.deadline:
            raise ValueError(f"attempt_timeout must be above 0 and below deadline, not {self.attempt_timeout!r} s")


class _NoAnswer(NamedTuple):
    """An error on its way out, with what only the innermost layer knows.

    A value, as an exception around an exception would be a cycle, and would overwrite what the inner one came from.
    """

    error: Exception
    attempts: int
    reason: str
    trace: TracebackType | None  # of its own way: one that is shared is raised once for each caller


_Ended: TypeAlias = CallResult[T] | _NoAnswer


class ResiliencePolicy:
    """All calls to one upstream. See the head of this file; a companion that is None is left out."""

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
        self._bulkhead = bulkhead
        self._single_flight = single_flight
        self._fallback = fallback
        self._classify = classify
        self._on_event = on_event
        self._retrier = Retrier(name, config.retry, self.budget, classify, random, breaker, on_event)

    async def call(
        self, fn: Callable[[], Awaitable[T]], *, idempotent: bool, key: Hashable | None = None
    ) -> CallResult[T]:
        """What `fn` answers. `key` names the question, for those who ask the same; without one none is the same.

        Raises the error of the last try (a note says why there was no further one), CircuitOpenError, BulkheadFullError
        or CallDeadlineError.
        """
        deadline = Deadline.after(self.config.deadline, self._clock)
        return await self._or_last_good(
            key,
            lambda: self._by(deadline, lambda: self._in_one_flight(key, lambda: self._in_place(fn, idempotent, key))),
        )

    async def _or_last_good(self, key: Hashable | None, call: Callable[[], Awaitable[_Ended[T]]]) -> CallResult[T]:
        ended = await call()
        if isinstance(ended, CallResult):
            return ended
        kept = self._kept(key, ended)
        if kept is not None:
            return kept
        error, trace = ended.error, ended.trace
        try:
            raise error.with_traceback(trace)
        finally:
            del ended, error, trace  # the error holds this frame

    def _kept(self, key: Hashable | None, failed: _NoAnswer) -> CallResult[Any] | None:
        if self._fallback is None or key is None:
            return None
        error, attempts, reason, _ = failed
        if not isinstance(error, _NOT_MADE) and self._classify(error).verdict is not CallVerdict.FAILURE:
            return None
        kept = self._fallback.get(key)
        if self._on_event is not None:
            self._on_event(FellBack(self.name, reason, None if kept is None else kept.age))
        if kept is None:
            return None
        return CallResult(kept.value, ServedFrom.CACHE, kept.age, attempts, self._state(), reason, kept.upstream)

    async def _by(self, deadline: Deadline, call: Callable[[], Awaitable[_Ended[T]]]) -> _Ended[T]:
        with deadline.scope():
            return await call()

    async def _in_one_flight(self, key: Hashable | None, call: Callable[[], Awaitable[_Ended[T]]]) -> _Ended[T]:
        if self._single_flight is None or key is None:
            return await call()
        deadline = current_deadline()
        assert deadline is not None
        try:
            async with deadline.enforced():
                ended, is_shared = await self._single_flight.do(key, call)
        except CallDeadlineError as error:
            return _no_answer(error, 0, "deadline")
        except FlightLostError as error:
            return _no_answer(error, 0, "flight_lost")
        return ended._replace(served_from=ServedFrom.SHARED) if is_shared and isinstance(ended, CallResult) else ended

    async def _in_place(self, fn: Callable[[], Awaitable[T]], idempotent: bool, key: Hashable | None) -> _Ended[T]:
        if self._bulkhead is None:
            return await self._retried(fn, idempotent, key)
        try:
            async with self._bulkhead:
                return await self._retried(fn, idempotent, key)
        except BulkheadFullError as error:
            return _no_answer(error, 0, "bulkhead")

    async def _retried(self, fn: Callable[[], Awaitable[T]], idempotent: bool, key: Hashable | None) -> _Ended[T]:
        deadline = current_deadline()  # this call's, or that of the flight
        assert deadline is not None
        call: RetriedCall[T] = self._retrier.new_call(idempotent=idempotent, deadline=deadline)
        asked_at = self._clock()
        try:
            value = await call.run(lambda: self._timed(fn, deadline))
        except Exception as error:
            return _no_answer(error, call.attempts, call.reason or "refused")
        if self._fallback is not None and key is not None:
            self._fallback.put(key, value, upstream=self.name, asked_at=asked_at)
        age = self._clock() - asked_at
        return CallResult(value, _LIVE, age, call.attempts, self._state(), upstream=self.name)

    async def _timed(self, fn: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        left = deadline.remaining()
        is_whole = self.config.attempt_timeout < left
        limit = asyncio.timeout(self.config.attempt_timeout if is_whole else left * ATTEMPT_SHARE_MAX)
        try:
            async with limit:
                return await fn()
        except TimeoutError as error:
            if not limit.expired():
                raise
            if not is_whole:
                raise CallDeadlineError("the deadline left no time for an answer") from without_timer(error)
            raise AttemptTimeoutError(f"no answer within {self.config.attempt_timeout:g} s") from without_timer(error)
        finally:
            del limit  # as `without_timer`

    def _state(self) -> BreakerState | None:
        return None if self.breaker is None else self.breaker.state


def _no_answer(error: Exception, attempts: int, reason: str) -> _NoAnswer:
    return _NoAnswer(error, attempts, reason, error.__traceback__)
