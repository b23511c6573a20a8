"""A policy with all companions, in virtual time, and an upstream that follows a script."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit import fake_event_loop

from cotacoes.patterns.resilience import (
    Bulkhead,
    CallResult,
    CircuitBreaker,
    CircuitBreakerConfig,
    LastGood,
    ResilienceConfig,
    ResiliencePolicy,
    RetryBudget,
    RetryConfig,
    SingleFlight,
    current_deadline,
)


class PolicyRig:
    """A policy with all companions; `script` says what each call does: seconds to take, or an error to raise."""

    def __init__(
        self,
        *,
        breaker: dict[str, Any] | None = None,
        retry: dict[str, Any] | None = None,
        companions: dict[str, Any] | None = None,
        places: int = 2,
        **config: Any,
    ) -> None:
        self.clock = asyncio.get_running_loop().time
        self.events: list[Any] = []
        self.script: list[float | Exception] = []
        self.calls = 0
        self.lefts: list[float] = []
        given = {
            "failure_rate_threshold": None,
            "consecutive_failures_threshold": 3,
            "wait_duration_in_open": 5.0,
            "wait_duration_jitter": 0.0,
            "permitted_calls_in_half_open": 1,
            **(breaker or {}),
        }
        self.breaker = CircuitBreaker("x", CircuitBreakerConfig(**given), clock=self.clock, random=random.Random(1))
        self.bulkhead = Bulkhead("x", max_concurrent_calls=places, max_wait_duration=60.0)
        self.flights = SingleFlight[Any](deadline=4.0, clock=self.clock)
        self.fallback = LastGood[Any](max_age=100.0, clock=self.clock)
        self.budget = RetryBudget(saved=10.0)
        self.policy = ResiliencePolicy(
            "x",
            ResilienceConfig(**{"deadline": 4.0, "attempt_timeout": 1.0, **config}, retry=RetryConfig(**(retry or {}))),
            clock=self.clock,
            random=random.Random(1),
            breaker=self.breaker,
            budget=self.budget,
            **{
                "bulkhead": self.bulkhead,
                "single_flight": self.flights,
                "fallback": self.fallback,
                "on_event": self.events.append,
                **(companions or {}),
            },
        )

    async def upstream(self) -> int:
        self.calls += 1
        number = self.calls
        deadline = current_deadline()
        assert deadline is not None
        self.lefts.append(deadline.remaining())
        step = self.script.pop(0) if self.script else 0.0
        if isinstance(step, Exception):
            raise step
        await asyncio.sleep(step)
        return number

    async def call(self, *script: float | Exception, key: Any = None, idempotent: bool = True) -> CallResult[int]:
        self.script += script
        return await self.policy.call(self.upstream, idempotent=idempotent, key=key)

    def assert_nothing_is_left(self) -> None:
        assert (self.bulkhead.calls, self.bulkhead.waiting) == (0, 0)
        assert not self.flights._flights
        assert not self.flights._ending
        assert self.breaker._probes_out == 0


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()

    fake_event_loop.run(whole())
