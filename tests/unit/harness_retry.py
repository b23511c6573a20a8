"""A retrier with its breaker, in virtual time, and an upstream that fails as planned."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit import fake_event_loop

from cotacoes.patterns.resilience import (
    BreakerState,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    Classification,
    Deadline,
    RetriesStopped,
    RetryBudget,
    RetryConfig,
    StopReason,
    classify,
)
from cotacoes.patterns.resilience.classification import Classify
from cotacoes.patterns.resilience.retry import Retrier

ONE_PROBE = {"initial_state": BreakerState.HALF_OPEN, "permitted_calls_in_half_open": 1}


class AskedToWaitError(Exception):
    outcome = "unavailable"

    def __init__(self, retry_after_s: float | None = None) -> None:
        super().__init__("later")
        self.retry_after_s = retry_after_s


class RetrierRig:
    """A retrier, its breaker, and what it reported; in virtual time."""

    def __init__(
        self,
        budget: RetryBudget | None = None,
        *,
        breaker: dict[str, Any] | None = None,
        classify: Classify = classify,
        random_: random.Random | None = None,
        on_event: Callable[[Any], None] | None = None,
        **config: Any,
    ) -> None:
        self.clock = asyncio.get_running_loop().time
        self.events: list[Any] = []
        self.calls = 0
        self.sent: list[float] = []
        self.budget = budget or RetryBudget(saved=10.0)
        given = {"consecutive_failures_threshold": 100, "failure_rate_threshold": None, **(breaker or {})}
        self.breaker = CircuitBreaker("x", CircuitBreakerConfig(**given), clock=self.clock, random=random.Random(1))
        self.retrier = Retrier(
            "x",
            RetryConfig(**config),
            self.budget,
            classify,
            random_ or random.Random(2),
            self.breaker,
            on_event or self.events.append,
        )

    def without_breaker(self) -> None:
        self.retrier = dataclasses.replace(self.retrier, breaker=None)

    def assert_no_permit_is_out(self) -> None:
        """Whether no permit is out: in a half-open circuit it would be a probe that stays out."""
        assert self.breaker._probes_out == 0

    async def call(
        self, errors: list[BaseException], *, idempotent: bool = True, deadline: Deadline | None = None
    ) -> int:
        """Each call raises the next error; the one after the last answers with its number."""

        async def upstream() -> int:
            self.calls += 1
            self.sent.append(self.clock())
            if errors:
                raise errors.pop(0)
            return self.calls

        answer: int = await self.retrier.new_call(idempotent=idempotent, deadline=deadline).run(upstream)
        return answer

    @property
    def stopped(self) -> list[tuple[StopReason, int]]:
        return [(event.reason, event.attempts) for event in self.events if isinstance(event, RetriesStopped)]


def in_virtual_time(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()

    fake_event_loop.run(whole())


def ignore_all(error: BaseException) -> Classification:
    return Classification(CallVerdict.IGNORED, retryable=isinstance(error, Exception))


class Late(random.Random):
    def uniform(self, low: float, high: float) -> float:
        return high
