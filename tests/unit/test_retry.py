"""Retries are few, paid from a budget, and each call has a controller of its own."""

import asyncio
import random

import pytest

from cotacoes.patterns.retry import RetryBudget, RetryPolicy, new_retrying


class FlakyError(Exception):
    pass


class Callee:
    def __init__(self, failures: int) -> None:
        self.calls = 0
        self._failures = failures

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise FlakyError(self.calls)
        return self.calls


def call(callee: Callee, budget: RetryBudget, *, attempts: int = 3) -> int:
    policy = RetryPolicy(attempts=attempts, wait_s=0.0, wait_max_s=0.0)
    retrying = new_retrying(policy, budget, lambda error: isinstance(error, FlakyError), random.Random(1))
    result: int = asyncio.run(retrying(callee))
    return result


def rich_budget() -> RetryBudget:
    budget = RetryBudget(share=1.0)
    for _ in range(10):
        budget.earn()
    return budget


def test_a_call_that_fails_once_is_tried_again() -> None:
    assert call(Callee(1), rich_budget()) == 2


def test_the_last_error_comes_out_as_it_is_after_the_last_attempt() -> None:
    callee = Callee(9)
    with pytest.raises(FlakyError, match="3"):
        call(callee, rich_budget())
    assert callee.calls == 3


def test_what_is_not_retryable_is_not_tried_again() -> None:
    async def broken() -> None:
        raise ValueError

    retrying = new_retrying(RetryPolicy(), rich_budget(), lambda error: False, random.Random(1))
    with pytest.raises(ValueError):
        asyncio.run(retrying(broken))


def test_retries_cost_at_most_ten_percent_more_calls_whatever_fails() -> None:
    budget = RetryBudget(share=0.1)
    calls = 0
    for _ in range(1000):
        callee = Callee(99)
        with pytest.raises(FlakyError):
            call(callee, budget, attempts=5)
        calls += callee.calls
    assert 1090 <= calls <= 1100


def test_cancellation_is_passed_on_at_once() -> None:
    started = asyncio.Event()
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        started.set()
        await asyncio.Event().wait()

    async def cancelled() -> None:
        retrying = new_retrying(
            RetryPolicy(attempts=5), rich_budget(), lambda error: isinstance(error, Exception), random.Random(1)
        )
        task = asyncio.ensure_future(retrying(hang))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert calls == 1
