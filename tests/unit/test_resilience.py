"""The companions in their order: for each rule there is a test that fails if two of them are swapped."""

import asyncio
import math
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.unit.harness_resilience import PolicyRig, run

from cotacoes.patterns.resilience import (
    AttemptTimeoutError,
    BreakerState,
    BulkheadFullError,
    CallDeadlineError,
    CallResult,
    CircuitOpenError,
    Deadline,
    FellBack,
    ResilienceConfig,
    ServedFrom,
)


class RefusedError(Exception):
    outcome = "refused"


def test_a_good_call_is_live_and_says_what_it_cost() -> None:
    async def work() -> None:
        rig = PolicyRig()
        result = await rig.call(0.5)
        assert result == CallResult(1, ServedFrom.LIVE, result.age, 1, BreakerState.CLOSED, None, "x")
        assert result.age == pytest.approx(0.5)
        rig.assert_nothing_is_left()

    run(work)


def test_a_failed_attempt_is_followed_by_another() -> None:
    async def work() -> None:
        rig = PolicyRig()
        result = await rig.call(OSError())
        assert (result.value, result.attempts, result.served_from) == (2, 2, ServedFrom.LIVE)

    run(work)


# fallback → all


@pytest.mark.parametrize(
    ("script", "reason"),
    [([OSError(), OSError()], "attempts"), ([ValueError()], "not_retryable"), ([9.0, 9.0], "attempts")],
)
def test_after_any_failure_the_last_good_answer_is_returned_with_its_age(script: list[Any], reason: str) -> None:
    async def work() -> None:
        rig = PolicyRig()
        await rig.call(0.25, key="a")
        await asyncio.sleep(10.0)
        result = await rig.call(*script, key="a")
        assert (result.value, result.served_from, result.reason, result.upstream) == (1, ServedFrom.CACHE, reason, "x")
        assert result.age == pytest.approx(rig.clock()), "since it was asked for, at 0"
        assert result.attempts == len(script)
        assert rig.events[-1] == FellBack("x", reason, result.age)

    run(work)


def test_an_open_circuit_falls_back_without_a_call() -> None:
    async def work() -> None:
        rig = PolicyRig()
        await rig.call(key="a")
        rig.breaker.force_open()
        result = await rig.call(key="a")
        assert (result.served_from, result.reason, result.breaker_state) == (
            ServedFrom.CACHE,
            "circuit",
            BreakerState.FORCED_OPEN,
        )
        assert rig.calls == 1
        with pytest.raises(CircuitOpenError):
            await rig.call(key="b")
        assert rig.events[-1] == FellBack("x", "circuit", None)

    run(work)


def test_a_refusal_is_an_answer_that_no_fallback_replaces() -> None:
    async def work() -> None:
        rig = PolicyRig()
        await rig.call(key="a")
        with pytest.raises(RefusedError):
            await rig.call(RefusedError(), key="a")
        assert rig.breaker.metrics().failures == 0

    run(work)


@pytest.mark.parametrize("key", [None, "a"])
def test_a_fallback_after_a_deadline_reports_the_attempts_made(key: str | None) -> None:
    async def work() -> None:
        rig = PolicyRig(companions={"single_flight": None})
        await rig.call(key="a")
        with Deadline.after(1.5, rig.clock).scope():
            if key is None:
                with pytest.raises(CallDeadlineError) as caught:
                    await rig.call(9.0, 9.0)
                assert caught.value.__notes__ == ["no further attempt after 2: deadline"]
            else:
                result = await rig.call(9.0, 9.0, key="a")
                assert (result.served_from, result.reason, result.attempts) == (ServedFrom.CACHE, "deadline", 2)

    run(work)


def test_each_kind_of_failure_falls_back_and_is_reported() -> None:
    async def work() -> None:
        rig = PolicyRig(places=1, deadline=2.0, attempt_timeout=1.0)
        await rig.call(key="a")

        async def reason() -> str | None:
            result = await rig.call(key="a")
            assert (result.served_from, result.value, result.attempts) == (ServedFrom.CACHE, 1, 0)
            return result.reason

        async with rig.bulkhead:
            assert await reason() == "deadline"  # the caller's has passed, and the flight's with it
            rig.bulkhead._max_wait = 0.0
            assert await reason() == "bulkhead"
        for task in [asyncio.create_task(reason())]:
            rig.script = [5.0]
            await asyncio.sleep(0.1)
            rig.flights._flights["a"].task.cancel()
            assert await task == "flight_lost"
        assert [event.reason for event in rig.events if isinstance(event, FellBack)] == [
            "deadline",
            "bulkhead",
            "flight_lost",
        ]

    run(work)


def test_an_answer_is_cached_for_others_even_if_its_caller_has_left() -> None:
    async def work() -> None:
        rig = PolicyRig()
        first = asyncio.create_task(rig.call(0.5, key="a"))
        second = asyncio.create_task(rig.call(key="a"))
        await asyncio.sleep(0.2)
        first.cancel()
        assert (await second).served_from is ServedFrom.SHARED
        rig.breaker.force_open()
        result = await rig.call(key="a")
        assert (result.value, result.served_from) == (1, ServedFrom.CACHE)
        assert result.age == pytest.approx(rig.clock())
        assert first.cancelled()

    run(work)


def test_the_answer_to_the_later_question_stays_cached() -> None:
    async def work() -> None:
        rig = PolicyRig(companions={"single_flight": None})
        slow = asyncio.create_task(rig.call(0.9, key="a"))
        await asyncio.sleep(0.1)
        assert (await rig.call(key="a")).value == 2
        assert (await slow).value == 1
        rig.breaker.force_open()
        result = await rig.call(key="a")
        assert result.value == 2
        assert result.age == pytest.approx(0.8)

    run(work)


def test_an_answer_that_is_too_old_is_not_used() -> None:
    async def work() -> None:
        rig = PolicyRig()
        await rig.call(key="a")
        rig.breaker.force_open()
        await asyncio.sleep(100.0)
        assert (await rig.call(key="a")).age == pytest.approx(100.0)
        await asyncio.sleep(0.1)
        with pytest.raises(CircuitOpenError):
            await rig.call(key="a")

    run(work)


def test_a_deadline_falls_back_too_but_nothing_does_without_a_key() -> None:
    async def work() -> None:
        rig = PolicyRig(attempt_timeout=3.9)
        await rig.call(key="a")
        with Deadline.after(1.0, rig.clock).scope():
            result = await rig.call(9.0, key="a")
        assert (result.served_from, result.reason) == (ServedFrom.CACHE, "deadline")
        with pytest.raises(OSError):
            await rig.call(OSError(), OSError())

    run(work)


# deadline → single-flight → bulkhead → retry


def test_all_attempts_and_waits_end_by_one_deadline() -> None:
    async def work() -> None:
        rig = PolicyRig(
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
        rig = PolicyRig(attempt_timeout=3.9)
        holding = [asyncio.create_task(rig.call(3.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with Deadline.after(1.0, rig.clock).scope(), pytest.raises(BulkheadFullError):
            await rig.call()
        assert rig.clock() == pytest.approx(1.0)
        await asyncio.gather(*holding)

    run(work)


def test_no_permit_is_acquired_before_there_is_a_place() -> None:
    """A probe that queues would hold the only slot of a half-open circuit, and prove nothing."""

    async def work() -> None:
        rig = PolicyRig(attempt_timeout=3.9)
        holding = [asyncio.create_task(rig.call(3.0)) for _ in range(2)]
        await asyncio.sleep(0)
        rig.breaker.open_for(1.0)
        await asyncio.sleep(1.0)
        waiting = asyncio.create_task(rig.call())
        await asyncio.sleep(0.5)
        assert rig.breaker.state is BreakerState.OPEN, "nobody has asked it"
        permit = rig.breaker.try_acquire()
        assert permit is not None
        await asyncio.gather(*holding)
        with pytest.raises(CircuitOpenError):
            await waiting

    run(work)


def test_a_call_holds_one_place_over_all_attempts_and_waits() -> None:
    """With the bulkhead inside the retries, another attempt would queue behind later calls."""

    async def work() -> None:
        rig = PolicyRig(places=1, retry={"max_attempts": 3, "wait_duration": 0.3, "max_wait_duration": 0.3})
        began: list[str] = []

        async def upstream(name: str) -> None:
            began.append(name)
            await asyncio.sleep(0.01)
            if began.count(name) < 3:
                raise OSError

        def one(name: str) -> Awaitable[Any]:
            return rig.policy.call(lambda: upstream(name), idempotent=True)

        rig.budget.saved = 10.0
        rig.breaker.disable()
        await asyncio.gather(one("a"), one("b"))
        assert began == ["a", "a", "a", "b", "b", "b"]

    run(work)


def test_callers_share_a_flight_and_keep_their_own_deadlines() -> None:
    """With the flight outside the deadline, all callers would have that of the first one."""

    async def work() -> None:
        rig = PolicyRig(attempt_timeout=3.9)

        async def asking(seconds: float) -> float:
            with Deadline.after(seconds, rig.clock).scope(), pytest.raises(TimeoutError):
                await rig.call(key="a")
            return rig.clock()

        rig.script = [100.0]
        ended = await asyncio.gather(*(asking(seconds) for seconds in (2.0, 0.5, 1.0)))
        assert ended == [pytest.approx(2.0), pytest.approx(0.5), pytest.approx(1.0)]
        assert rig.calls == 1
        await asyncio.sleep(0)
        rig.assert_nothing_is_left()

    run(work)


def test_callers_of_the_same_question_share_one_place() -> None:
    async def work() -> None:
        rig = PolicyRig()
        results = await asyncio.gather(*(rig.call(0.5 if not number else 0.0, key="a") for number in range(50)))
        assert rig.calls == 1
        assert [result.served_from for result in results] == [ServedFrom.LIVE] + [ServedFrom.SHARED] * 49
        assert {result.value for result in results} == {1}

    run(work)


def test_a_caller_out_of_time_leaves_the_flight_to_the_others() -> None:
    async def work() -> None:
        rig = PolicyRig(attempt_timeout=3.9)

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


def test_the_breaker_sees_each_attempt_and_not_each_call() -> None:
    async def work() -> None:
        rig = PolicyRig(retry={"max_attempts": 5})
        with pytest.raises(OSError):
            await rig.call(*[OSError() for _ in range(5)])
        assert (rig.calls, rig.breaker.state) == (3, BreakerState.OPEN)

    run(work)


# retry → attempt timeout → classification


def test_each_attempt_has_its_own_timeout() -> None:
    """With the timeout around the retries, there would be no second attempt after one that hangs."""

    async def work() -> None:
        rig = PolicyRig()
        result = await rig.call(9.0, 0.9)
        assert (result.value, result.attempts) == (2, 2)
        assert rig.breaker.metrics().failures == 1
        current = asyncio.current_task()
        assert current is not None
        assert not current.cancelling(), "of the timer's cancellation nothing is left on the caller's task"

    run(work)


def test_an_attempt_that_hangs_is_a_failure_even_if_the_deadline_is_hardly_longer() -> None:
    async def work() -> None:
        rig = PolicyRig(deadline=1.85, attempt_timeout=1.8, breaker={"initial_state": BreakerState.HALF_OPEN})
        with pytest.raises(AttemptTimeoutError):
            await rig.call(100.0)
        assert rig.clock() == pytest.approx(1.8)
        assert rig.breaker.state is BreakerState.OPEN

    run(work)


@pytest.mark.parametrize("key", [None, "a"])
def test_without_time_left_the_upstream_is_not_called(key: str | None) -> None:
    async def work() -> None:
        rig = PolicyRig(breaker={"initial_state": BreakerState.HALF_OPEN})
        with Deadline(rig.clock(), rig.clock).scope(), pytest.raises(CallDeadlineError):
            await rig.call(key=key)
        await asyncio.sleep(0)
        assert rig.calls == 0
        rig.assert_nothing_is_left()

    run(work)


def test_an_attempt_that_times_out_is_a_failure_of_the_upstream() -> None:
    async def work() -> None:
        rig = PolicyRig(retry={"max_attempts": 1})
        with pytest.raises(AttemptTimeoutError, match="no answer within 1 s"):
            await rig.call(9.0)
        assert rig.breaker.metrics().failures == 1
        assert rig.clock() == pytest.approx(1.0)

    run(work)


def test_an_attempt_cut_short_by_the_callers_deadline_is_no_failure_and_returns_its_probe() -> None:
    async def work() -> None:
        rig = PolicyRig(breaker={"initial_state": BreakerState.HALF_OPEN})
        with Deadline.after(0.5, rig.clock).scope(), pytest.raises(CallDeadlineError):
            await rig.call(9.0)
        assert rig.clock() < 0.5, "below the deadline, so that there is time to say so"
        assert rig.breaker.state is BreakerState.HALF_OPEN
        assert (await rig.call()).breaker_state is BreakerState.CLOSED

    run(work)


def test_a_timeout_raised_by_the_call_is_a_failure_and_keeps_its_name() -> None:
    async def work() -> None:
        rig = PolicyRig(retry={"max_attempts": 1})
        with pytest.raises(TimeoutError, match="the socket's"):
            await rig.call(TimeoutError("the socket's"))
        assert rig.breaker.metrics().failures == 1

    run(work)


def test_an_answer_at_the_last_moment_counts_and_a_later_one_does_not() -> None:
    async def work() -> None:
        rig = PolicyRig(retry={"max_attempts": 1})
        assert (await rig.call(1.0 - 1e-9)).age == pytest.approx(1.0)
        with pytest.raises(AttemptTimeoutError):
            await rig.call(1.0 + 1e-9)

    run(work)


def test_a_cancellation_inside_the_call_is_not_mistaken_for_our_timeout() -> None:
    async def work() -> None:
        rig = PolicyRig(breaker={"initial_state": BreakerState.HALF_OPEN})

        async def upstream() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await rig.policy.call(upstream, idempotent=True)
        rig.assert_nothing_is_left()
        assert rig.breaker.metrics().calls == 0

    run(work)


@pytest.mark.parametrize("deadline", [0.0, -1.0, math.inf, math.nan])
def test_a_deadline_that_makes_no_sense_is_refused(deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        ResilienceConfig(deadline=deadline)


@pytest.mark.parametrize("at", [0.0, -1.0, 4.0, 5.0, math.nan])
def test_an_attempt_longer_than_the_deadline_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match="attempt_timeout"):
        ResilienceConfig(deadline=4.0, attempt_timeout=at)
