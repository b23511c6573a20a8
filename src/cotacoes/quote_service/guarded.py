"""How the source is called: retry(breaker(call)), by a deadline, and every call counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from cotacoes.errors import SourceError, SourceGoneError, SourceUnavailableError
from cotacoes.patterns.circuit_breaker import CircuitBreaker, CircuitOpenError, Verdict
from cotacoes.patterns.retry import RetryBudget, RetryPolicy, new_retrying
from cotacoes.telemetry import QuoteMetrics

RETRY_AFTER_MAX_S = 300.0

T = TypeVar("T")


class GuardedCalls:
    """The calls to one source."""

    def __init__(self, breaker: CircuitBreaker, retry: RetryPolicy, metrics: QuoteMetrics, random: Random) -> None:
        self._breaker = breaker
        self._retry = retry
        self._budget = RetryBudget()
        self._metrics = metrics
        self._random = random

    async def call(self, ask: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """What the source answers; SourceError, CircuitOpenError or TimeoutError where it does not by the deadline."""

        async def once() -> T:
            return await self._once(ask)

        async with asyncio.timeout(deadline_s):
            answer: T = await new_retrying(self._retry, self._budget, _is_retryable, self._random)(once)
            return answer

    async def _once(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            permit = self._breaker.acquire()
        except CircuitOpenError:
            self._metrics.fetches.labels(outcome="not_permitted").inc()
            raise
        verdict = Verdict.IGNORED
        try:
            answer = await ask()
            verdict = Verdict.SUCCESS
        except SourceGoneError:
            verdict = Verdict.SUCCESS  # an answer of a healthy source
            self._metrics.fetches.labels(outcome=SourceGoneError.__name__).inc()
            raise
        except SourceError as error:
            verdict = Verdict.FAILURE
            self._metrics.fetches.labels(outcome=type(error).__name__).inc()
            permit.settle(verdict)
            if isinstance(error, SourceUnavailableError) and error.retry_after_s:
                self._breaker.open_for(min(error.retry_after_s, RETRY_AFTER_MAX_S))
            raise
        finally:
            permit.settle(verdict)
        self._metrics.fetches.labels(outcome="ok").inc()
        return answer


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, SourceUnavailableError) and not error.retry_after_s
