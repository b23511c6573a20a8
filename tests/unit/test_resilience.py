"""The companions in their order: each rule that the order makes is a test that fails where two are swapped."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit import virtual_time

from cotacoes.patterns import (
    AttemptTimeoutError,
    Bulkhead,
    BulkheadFullError,
    CallDeadlineError,
    CallResult,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    Deadline,
    FellBack,
    LastGood,
    ResilienceConfig,
    ResiliencePolicy,
    RetryBudget,
    RetryConfig,
    SingleFlight,
    Source,
    State,
    current_deadline,
)


class RefusedError(Exception):
    outcome = "refused"


class Rig:
    """A policy with all companions; `script` says what each call does: seconds to take, or an error to raise."""

    def __init__(
        self, *, breaker: dict[str, Any] | None = None, retry: dict[str, Any] | None = None, **config: Any
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
        self.bulkhead = Bulkhead("x", max_concurrent_calls=2, max_wait_duration=60.0)
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
            bulkhead=self.bulkhead,
            single_flight=self.flights,
            fallback=self.fallback,
            on_event=self.events.append,
        )

    async def callee(self) -> int:
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
        return await self.policy.call(self.callee, idempotent=idempotent, key=key)

    def assert_nothing_is_left(self) -> None:
        assert (self.bulkhead.calls, self.bulkhead.waiting) == (0, 0)
        assert not self.flights._flights
        assert self.breaker._probes_out == 0


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()

    virtual_time.run(whole())


def test_a_good_call_is_live_and_says_how_it_came() -> None:
    async def work() -> None:
        rig = Rig()
        result = await rig.call(0.5)
        assert result == CallResult(1, Source.LIVE, pytest.approx(0.5), 1, State.CLOSED, None, "x")
        rig.assert_nothing_is_left()

    run(work)


def test_a_try_that_fails_is_followed_by_another() -> None:
    async def work() -> None:
        rig = Rig()
        result = await rig.call(OSError())
        assert (result.value, result.attempts, result.source) == (2, 2, Source.LIVE)

    run(work)


def test_without_an_answer_the_error_of_the_last_try_comes_out_as_it_is() -> None:
    async def work() -> None:
        rig = Rig()
        cause = ValueError("inner")
        error = OSError("no route")
        error.__cause__ = cause
        with pytest.raises(OSError, match="no route") as caught:
            await rig.call(OSError("first"), error)
        assert caught.value is error
        assert caught.value.__cause__ is cause
        assert error.__notes__ == ["no further try after 2: attempts"]
        rig.assert_nothing_is_left()

    run(work)


# fallback → all


@pytest.mark.parametrize(
    ("script", "reason"),
    [([OSError(), OSError()], "attempts"), ([ValueError()], "not_retryable"), ([9.0, 9.0], "attempts")],
)
def test_whatever_went_wrong_the_last_good_answer_is_given_with_its_age(script: list[Any], reason: str) -> None:
    async def work() -> None:
        rig = Rig()
        await rig.call(0.25, key="a")
        await asyncio.sleep(10.0)
        result = await rig.call(*script, key="a")
        assert (result.value, result.source, result.reason, result.origin) == (1, Source.CACHE, reason, "x")
        assert result.age == pytest.approx(rig.clock()), "since it was asked for, at 0"
        assert result.attempts == len(script)
        assert rig.events[-1] == FellBack("x", reason, result.age)

    run(work)


def test_a_circuit_that_is_open_falls_back_without_a_call() -> None:
    async def work() -> None:
        rig = Rig()
        await rig.call(key="a")
        rig.breaker.force_open()
        result = await rig.call(key="a")
        assert (result.source, result.reason, result.breaker_state) == (Source.CACHE, "circuit", State.FORCED_OPEN)
        assert rig.calls == 1
        with pytest.raises(CircuitOpenError):
            await rig.call(key="b")
        assert rig.events[-1] == FellBack("x", "circuit", None)

    run(work)


def test_an_answer_that_says_no_is_an_answer() -> None:
    async def work() -> None:
        rig = Rig()
        await rig.call(key="a")
        with pytest.raises(RefusedError):
            await rig.call(RefusedError(), key="a")
        assert rig.breaker.metrics().failures == 0

    run(work)


def test_the_deadline_falls_back_too_and_without_a_key_nothing_does() -> None:
    async def work() -> None:
        rig = Rig(attempt_timeout=4.0)
        await rig.call(key="a")
        with Deadline.after(1.0, rig.clock).scope():
            result = await rig.call(9.0, key="a")
        assert (result.source, result.reason) == (Source.CACHE, "deadline")
        with pytest.raises(OSError):
            await rig.call(OSError(), OSError())

    run(work)


# deadline → single-flight → bulkhead → retry


def test_all_tries_and_waits_end_by_one_deadline() -> None:
    async def work() -> None:
        rig = Rig(
            retry={"max_attempts": 9, "wait_duration": 0.5, "max_wait_duration": 0.5},
            breaker={"consecutive_failures_threshold": 99},
        )
        with pytest.raises(TimeoutError):
            await rig.call(*[9.0] * 9)
        assert rig.clock() <= 4.0
        assert 3 <= rig.calls < 9
        assert rig.lefts == sorted(rig.lefts, reverse=True), "one moment, not a duration for each"
        rig.assert_nothing_is_left()

    run(work)


def test_a_wait_for_a_place_is_part_of_the_deadline() -> None:
    async def work() -> None:
        rig = Rig(attempt_timeout=4.0)
        holding = [asyncio.create_task(rig.call(3.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with Deadline.after(1.0, rig.clock).scope(), pytest.raises(BulkheadFullError):
            await rig.call()
        assert rig.clock() == pytest.approx(1.0)
        await asyncio.gather(*holding)

    run(work)


def test_no_permit_is_taken_before_there_is_a_place() -> None:
    """A probe that queues would hold the only slot of a half-open circuit, and prove nothing."""

    async def work() -> None:
        rig = Rig(attempt_timeout=4.0)
        holding = [asyncio.create_task(rig.call(3.0)) for _ in range(2)]
        await asyncio.sleep(0)
        rig.breaker.open_for(1.0)
        await asyncio.sleep(1.0)
        waiting = asyncio.create_task(rig.call())
        await asyncio.sleep(0.5)
        assert rig.breaker.state is State.OPEN, "nobody has asked it"
        permit = rig.breaker.try_acquire()
        assert permit is not None
        await asyncio.gather(*holding)
        with pytest.raises(CircuitOpenError):
            await waiting

    run(work)


def test_those_who_ask_the_same_take_one_place() -> None:
    async def work() -> None:
        rig = Rig()
        results = await asyncio.gather(*(rig.call(0.5 if not number else 0.0, key="a") for number in range(50)))
        assert rig.calls == 1
        assert [result.source for result in results] == [Source.LIVE] + [Source.SHARED] * 49
        assert {result.value for result in results} == {1}

    run(work)


def test_one_caller_out_of_time_leaves_a_flight_to_the_others() -> None:
    async def work() -> None:
        rig = Rig(attempt_timeout=4.0)

        async def hurried() -> None:
            with Deadline.after(0.5, rig.clock).scope():
                await rig.call(2.0, key="a")

        first = asyncio.create_task(hurried())
        await asyncio.sleep(0.1)
        assert (await rig.call(key="a")).value == 1
        with pytest.raises(CallDeadlineError):
            await first
        assert rig.lefts == [pytest.approx(4.0)], "the flight's own"

    run(work)


def test_the_breaker_hears_of_each_try_and_not_of_each_call() -> None:
    async def work() -> None:
        rig = Rig(retry={"max_attempts": 5})
        with pytest.raises(OSError):
            await rig.call(*[OSError() for _ in range(5)])
        assert (rig.calls, rig.breaker.state) == (3, State.OPEN)

    run(work)


# retry → attempt timeout → classification


def test_a_try_that_takes_too_long_is_the_callees_failure() -> None:
    async def work() -> None:
        rig = Rig(retry={"max_attempts": 1})
        with pytest.raises(AttemptTimeoutError, match="no answer within 1 s"):
            await rig.call(9.0)
        assert rig.breaker.metrics().failures == 1
        assert rig.clock() == pytest.approx(1.0)

    run(work)


def test_a_try_that_the_callers_deadline_cut_short_is_nobodys_failure_and_gives_its_probe_back() -> None:
    async def work() -> None:
        rig = Rig(breaker={"initial_state": State.HALF_OPEN})
        with Deadline.after(0.5, rig.clock).scope(), pytest.raises(CallDeadlineError):
            await rig.call(9.0)
        assert rig.clock() < 0.5, "below the deadline, so that there is time to say so"
        assert rig.breaker.state is State.HALF_OPEN
        assert (await rig.call()).breaker_state is State.CLOSED

    run(work)


def test_a_timeout_of_the_callees_own_is_its_failure_and_named_as_what_it_is() -> None:
    async def work() -> None:
        rig = Rig(retry={"max_attempts": 1})
        with pytest.raises(TimeoutError, match="the socket's"):
            await rig.call(TimeoutError("the socket's"))
        assert rig.breaker.metrics().failures == 1

    run(work)


@pytest.mark.parametrize("at", [0.0, -1.0, 5.0])
def test_a_try_longer_than_the_whole_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match="attempt_timeout"):
        ResilienceConfig(deadline=4.0, attempt_timeout=at)


# cancellation, at every await


@pytest.mark.parametrize("key", [None, "a"])
def test_cancellation_at_any_moment_is_passed_on_and_leaves_nothing_behind(key: str | None) -> None:
    """Cancelled in each turn of the event loop and at each moment between, until the call is quick enough."""

    async def cancelled_after(seconds: float, turns: int) -> bool:
        rig = Rig(
            breaker={"initial_state": State.HALF_OPEN, "failure_rate_threshold": 1.0, "permitted_calls_in_half_open": 4}
        )
        blocking = [asyncio.create_task(rig.policy.call(lambda: asyncio.sleep(0.3), idempotent=True)) for _ in range(2)]
        await asyncio.sleep(0)
        task = asyncio.create_task(rig.call(0.3, OSError(), 0.3, key=key))
        await asyncio.sleep(seconds)
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        if was_done:
            await task
        else:
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.gather(*blocking)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rig.assert_nothing_is_left()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return was_done

    async def work() -> None:
        cancelled = 0
        for moment in [0.0, 0.1, 0.3, 0.35, 0.45, 0.6, 0.62, 0.65, 0.8, 2.0]:
            for turns in range(12):
                cancelled += not await cancelled_after(moment, turns)
        assert cancelled > 30

    run(work)
