"""Retries are few, paid from a budget and driven by tenacity; the breaker permits and settles every attempt."""

import asyncio
import contextlib
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.harness_retry import ONE_PROBE, AskedToWaitError, Late, RetrierRig, ignore_all, in_virtual_time

from cotacoes.patterns.resilience import (
    AttemptEnded,
    BreakerState,
    CallDeadlineError,
    CircuitOpenError,
    Deadline,
    RetriesStopped,
    RetryBudget,
    RetryConfig,
    StopReason,
    classify,
)
from cotacoes.patterns.resilience.retry import Retrier


def test_a_call_that_fails_once_is_retried_and_both_attempts_are_settled() -> None:
    async def work() -> None:
        rig = RetrierRig()
        assert await rig.call([OSError("no route")]) == 2
        seen = rig.breaker.metrics()
        assert (seen.calls, seen.failures) == (2, 1)
        assert rig.events == [AttemptEnded("x", "unreachable", 1), AttemptEnded("x", "ok", 2)]
        assert rig.stopped == []

    in_virtual_time(work)


@pytest.mark.parametrize(
    ("reason", "calls", "given"),
    [
        (StopReason.ATTEMPTS, 3, {}),
        (StopReason.ATTEMPTS, 1, {"max_attempts": 1}),
        (StopReason.NOT_RETRYABLE, 1, {"error": ValueError}),
        (StopReason.NOT_IDEMPOTENT, 1, {"idempotent": False}),
        (StopReason.BUDGET, 2, {"saved": 1.0}),
        (StopReason.CIRCUIT, 2, {"breaker": {"consecutive_failures_threshold": 2}}),
        (StopReason.DEADLINE, 1, {"wait_duration": 5.0, "max_wait_duration": 5.0, "random_": "late", "left": 5.0}),
    ],
)
def test_the_error_says_why_there_was_no_further_attempt(reason: StopReason, calls: int, given: dict[str, Any]) -> None:
    async def work() -> None:
        kind = given.pop("error", OSError)
        idempotent = given.pop("idempotent", True)
        left = given.pop("left", None)
        if given.pop("random_", None):
            given["random_"] = Late()
        rig = RetrierRig(RetryBudget(saved=given.pop("saved", 10.0)), **{"max_attempts": 3, **given})
        deadline = None if left is None else Deadline.after(left, rig.clock)
        with pytest.raises(kind) as caught:
            await rig.call([kind(str(number)) for number in range(9)], idempotent=idempotent, deadline=deadline)
        assert rig.calls == calls
        assert str(caught.value) == str(calls - 1), "the last error, as it is"
        assert caught.value.__notes__ == [f"no further attempt after {calls}: {reason.value}"]
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert rig.stopped == [(reason, calls)]
        assert rig.clock() < 5.0, "not waited for nothing"

    given = dict(given)
    in_virtual_time(work)


def test_the_last_error_keeps_its_cause() -> None:
    async def work() -> None:
        rig = RetrierRig(max_attempts=2)

        async def upstream() -> None:
            try:
                raise KeyError("within")
            except KeyError as error:
                raise OSError("no route") from (error if rig.calls else None)

        for rig.calls in (0, 1):
            with pytest.raises(OSError, match="no route") as caught:
                await rig.retrier.new_call(idempotent=True).run(upstream)
            assert isinstance(caught.value.__context__, KeyError)
            assert (caught.value.__cause__ is None) is (rig.calls == 0)

    in_virtual_time(work)


def test_an_error_object_that_is_raised_again_gets_its_note_once() -> None:
    async def work() -> None:
        always = OSError("the same one")
        for _ in range(5):
            with pytest.raises(OSError, match="the same one"):
                await RetrierRig().call([always] * 9)
        assert always.__notes__ == ["no further attempt after 2: attempts"]

    in_virtual_time(work)


def test_a_call_that_is_not_idempotent_is_retried_if_the_config_says_so() -> None:
    async def work() -> None:
        assert await RetrierRig(retry_non_idempotent=True).call([OSError()], idempotent=False) == 2

    in_virtual_time(work)


def test_retries_cost_at_most_a_tenth_of_the_successes_and_the_reserve() -> None:
    async def work() -> None:
        rig = RetrierRig(RetryBudget(0.1, 10.0), max_attempts=5)
        rig.breaker.disable()
        for number in range(1000):
            with contextlib.suppress(OSError):
                await rig.call([] if number % 2 else [OSError() for _ in range(9)])
        assert 1040 <= rig.calls <= 1050  # a tenth of 500 successes
        before = rig.calls
        for _ in range(100):
            with pytest.raises(OSError):
                await rig.call([OSError() for _ in range(9)])
        assert rig.calls - before <= 100 + 10  # nothing but the reserve if nothing succeeds

    in_virtual_time(work)


def test_a_circuit_that_opens_ends_the_retries_at_once() -> None:
    async def work() -> None:
        rig = RetrierRig(max_attempts=5, breaker={"consecutive_failures_threshold": 2})
        with pytest.raises(OSError) as caught:
            await rig.call([OSError() for _ in range(9)])
        assert (rig.calls, rig.stopped) == (2, [(StopReason.CIRCUIT, 2)])
        assert caught.value.__notes__ == ["no further attempt after 2: circuit"]
        with pytest.raises(CircuitOpenError) as refused:
            await rig.call([])
        assert refused.value.__notes__ == ["no further attempt after 0: circuit"]
        assert rig.events[-2:] == [AttemptEnded("x", "not_permitted", 1), RetriesStopped("x", StopReason.CIRCUIT, 0)]

    in_virtual_time(work)


def test_a_circuit_that_opens_during_the_wait_raises_the_error_from_before() -> None:
    async def work() -> None:
        rig = RetrierRig(max_attempts=5, wait_duration=10.0, max_wait_duration=10.0)
        task = asyncio.ensure_future(rig.call([OSError("seen")]))
        await asyncio.sleep(0.001)
        rig.breaker.force_open()
        with pytest.raises(OSError, match="seen") as caught:
            await task
        assert caught.value.__notes__ == ["no further attempt after 1: circuit"]
        assert caught.value.__context__ is None
        assert (rig.calls, rig.stopped) == (1, [(StopReason.CIRCUIT, 1)])
        assert rig.events[-2] == AttemptEnded("x", "not_permitted", 2)
        assert rig.budget.saved == 10.0, "paid for a try that was not made"

    in_virtual_time(work)


def test_a_wait_longer_than_the_deadline_is_not_begun() -> None:
    async def work() -> None:
        rig = RetrierRig()
        with pytest.raises(AskedToWaitError):
            rig.breaker.disable()  # so that Retry-After is waited for
            await rig.call([AskedToWaitError(5.0)], deadline=Deadline.after(3.0, rig.clock))
        assert rig.stopped == [(StopReason.DEADLINE, 1)]
        assert rig.clock() == 0.0

    in_virtual_time(work)


@pytest.mark.parametrize("made", [0, 1])
def test_without_time_left_no_call_is_made(made: int) -> None:
    async def work() -> None:
        rig = RetrierRig(
            breaker=ONE_PROBE, classify=ignore_all, wait_duration=0.5, max_wait_duration=0.5, random_=Late()
        )
        deadline = Deadline.after(0.6 * made, rig.clock)
        task = asyncio.create_task(rig.call([OSError("seen")] * made, deadline=deadline))
        await asyncio.sleep(0.1)
        deadline.at -= 0.2 * made  # as if the loop was busy elsewhere: the wait ends late
        with pytest.raises(OSError if made else CallDeadlineError) as caught:
            await task
        assert len(rig.sent) == made
        assert caught.value.__notes__ == [f"no further attempt after {made}: deadline"]
        assert rig.stopped == [(StopReason.DEADLINE, made)]
        rig.assert_no_permit_is_out()

    in_virtual_time(work)


def test_an_attempt_cut_short_by_the_deadline_says_so() -> None:
    async def work() -> None:
        rig = RetrierRig()
        with pytest.raises(CallDeadlineError) as caught:
            await rig.call([CallDeadlineError("over")])
        assert caught.value.__notes__ == ["no further attempt after 1: deadline"]
        assert rig.stopped == [(StopReason.DEADLINE, 1)]
        assert rig.breaker.metrics().failures == 0

    in_virtual_time(work)


def test_waits_are_spread_under_a_bound_that_doubles_up_to_its_maximum() -> None:
    async def work() -> None:
        gaps: list[list[float]] = [[], [], [], []]
        for seed in range(200):
            rig = RetrierRig(max_attempts=5, wait_duration=0.1, max_wait_duration=0.4)
            rig.retrier = Retrier("x", rig.retrier.config, rig.budget, classify, random.Random(seed))
            await rig.call([OSError() for _ in range(4)])
            for number, gap in enumerate(gaps):
                gap.append(rig.sent[number + 1] - rig.sent[number])
        for gap, bound in zip(gaps, [0.1, 0.2, 0.4, 0.4], strict=True):
            assert 0.9 * bound < max(gap) <= bound + 1e-9
            assert min(gap) < 0.1 * bound

    in_virtual_time(work)


def test_a_wait_that_the_upstream_asks_for_opens_the_circuit_for_all() -> None:
    async def work() -> None:
        rig = RetrierRig(max_retry_after=60.0)
        with pytest.raises(AskedToWaitError):
            await rig.call([AskedToWaitError(20.0)])
        assert rig.breaker.state is BreakerState.OPEN
        assert rig.breaker.retry_after() == pytest.approx(20.0)
        await asyncio.sleep(20.0)
        rig.breaker.reset()
        with pytest.raises(AskedToWaitError):
            await rig.call([AskedToWaitError(100_000.0)])
        assert rig.breaker.retry_after() == pytest.approx(60.0), "capped"

    in_virtual_time(work)


@pytest.mark.parametrize("circuit", ["none", "disabled", "metrics only"])
def test_without_a_circuit_the_wait_that_the_upstream_asks_for_is_obeyed(circuit: str) -> None:
    async def work() -> None:
        rig = RetrierRig(max_retry_after=60.0)
        {"none": rig.without_breaker, "disabled": rig.breaker.disable, "metrics only": rig.breaker.metrics_only}[
            circuit
        ]()
        assert await rig.call([AskedToWaitError(20.0)]) == 2
        assert rig.sent[1] - rig.sent[0] == pytest.approx(20.0)
        assert await rig.call([AskedToWaitError(1000.0)]) == 4
        assert rig.sent[3] - rig.sent[2] == pytest.approx(60.0)

    in_virtual_time(work)


@pytest.mark.parametrize("hostile", [math.nan, -1.0, -math.inf, 0.0, math.inf, 1e300])
@pytest.mark.parametrize("has_breaker", [True, False])
def test_a_requested_wait_that_makes_no_sense_is_ignored_and_an_endless_one_capped(
    hostile: float, has_breaker: bool
) -> None:
    async def work() -> None:
        rig = RetrierRig(max_retry_after=60.0)
        if not has_breaker:
            rig.without_breaker()
        if hostile > 0 and has_breaker:
            with pytest.raises(AskedToWaitError):
                await rig.call([AskedToWaitError(hostile)])
            assert rig.breaker.retry_after() == pytest.approx(60.0)
        else:
            assert await rig.call([AskedToWaitError(hostile)]) == 2
            assert rig.clock() <= (60.0 if hostile > 0 else 0.05)
            assert rig.breaker.state is BreakerState.CLOSED

    in_virtual_time(work)


def test_twenty_calls_at_once_do_not_mix_up_attempts_or_errors() -> None:
    async def work() -> None:
        rig = RetrierRig(RetryBudget(1.0, 1000.0, saved=1000.0), max_attempts=4)

        async def one(number: int) -> tuple[str, int]:
            call = rig.retrier.new_call(idempotent=True)
            failures = number % 5

            async def upstream() -> str:
                nonlocal failures
                await asyncio.sleep(0.001 * number)
                if failures:
                    failures -= 1
                    raise OSError(str(number))
                return str(number)

            try:
                said = await call.run(upstream)
            except OSError as error:
                said = str(error)
            return said, call.attempts

        ended = await asyncio.gather(*(one(number) for number in range(20)))
        assert ended == [(str(number), min(number % 5 + 1, 4)) for number in range(20)]

    in_virtual_time(work)


@given(st.lists(st.sampled_from(["ok", "fails", "once", "cancelled"]), max_size=80), st.integers(1, 5))
def test_retries_never_exceed_the_share_of_the_successes_and_the_reserve(calls: list[str], attempts: int) -> None:
    async def work() -> None:
        rig = RetrierRig(RetryBudget(0.1, 10.0, saved=3.0), max_attempts=attempts)
        rig.breaker.disable()
        good = 0
        for what in calls:
            errors: dict[str, list[BaseException]] = {
                "ok": [],
                "fails": [OSError() for _ in range(9)],
                "once": [OSError()],
                "cancelled": [OSError(), asyncio.CancelledError()],
            }
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await rig.call(errors[what])
                good += 1
        retries = rig.calls - len(calls)
        assert retries <= 3.0 + 0.1 * good + 1e-6
        assert rig.budget.saved == pytest.approx(3.0 + 0.1 * good - retries)
        assert rig.budget.saved >= -1e-6

    in_virtual_time(work)


@pytest.mark.parametrize(
    ("impossible", "named"),
    [
        ({"share": -0.1}, "share"),
        ({"share": 1.1}, "share"),
        ({"share": math.nan}, "share"),
        ({"saved": 11.0}, "saved"),
        ({"saved": -1.0}, "saved"),
        ({"saved_max": math.inf}, "saved_max"),
    ],
)
def test_an_impossible_budget_is_refused_by_name(impossible: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryBudget(**impossible)


@pytest.mark.parametrize(
    ("impossible", "named"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"wait_duration": -1.0}, "wait_duration"),
        ({"wait_duration": 0.5, "max_wait_duration": 0.4}, "wait_duration"),
        ({"wait_duration": math.nan}, "wait_duration"),
        ({"wait_duration": math.inf, "max_wait_duration": math.inf}, "max_wait_duration"),
        ({"max_retry_after": math.nan}, "max_retry_after"),
        ({"max_retry_after": math.inf}, "max_retry_after"),
    ],
)
def test_an_impossible_configuration_is_refused_by_name(impossible: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryConfig(**impossible)
