"""Retries are few, paid from a budget, driven by tenacity, and every try is admitted and settled by the breaker."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit import virtual_time

from cotacoes.patterns import (
    AttemptEnded,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    Classification,
    Deadline,
    RetriesStopped,
    RetryBudget,
    RetryConfig,
    State,
    StopReason,
    Verdict,
    classify,
)
from cotacoes.patterns.retry import Retrier


class AskedToWaitError(Exception):
    outcome = "unavailable"

    def __init__(self, retry_after_s: float | None = None) -> None:
        super().__init__("later")
        self.retry_after_s = retry_after_s


class Rig:
    """A retrier, its breaker, and what it reported; in virtual time."""

    def __init__(
        self, budget: RetryBudget | None = None, *, breaker: dict[str, Any] | None = None, **config: Any
    ) -> None:
        self.clock = asyncio.get_running_loop().time
        self.events: list[Any] = []
        self.calls = 0
        self.sent: list[float] = []
        self.budget = budget or RetryBudget(saved=10.0)
        given = {"consecutive_failures_threshold": 100, "failure_rate_threshold": None, **(breaker or {})}
        self.breaker = CircuitBreaker("x", CircuitBreakerConfig(**given), clock=self.clock, random=random.Random(1))
        self.retrier = Retrier(
            "x", RetryConfig(**config), self.budget, classify, random.Random(2), self.breaker, self.events.append
        )

    async def call(
        self, errors: list[BaseException], *, idempotent: bool = True, deadline: Deadline | None = None
    ) -> int:
        """Each call raises the next error; the one after the last answers with its number."""

        async def callee() -> int:
            self.calls += 1
            self.sent.append(self.clock())
            if errors:
                raise errors.pop(0)
            return self.calls

        return await self.retrier.new_call(idempotent=idempotent, deadline=deadline).run(callee)

    @property
    def stopped(self) -> list[tuple[StopReason, int]]:
        return [(event.reason, event.attempts) for event in self.events if isinstance(event, RetriesStopped)]


def in_virtual_time(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()

    virtual_time.run(whole())


def test_a_call_that_fails_once_is_tried_again_and_both_ends_are_settled() -> None:
    async def work() -> None:
        rig = Rig()
        assert await rig.call([OSError("no route")]) == 2
        seen = rig.breaker.metrics()
        assert (seen.calls, seen.failures) == (2, 1)
        assert rig.events == [AttemptEnded("x", "unreachable", 1), AttemptEnded("x", "ok", 2)]
        assert rig.stopped == []

    in_virtual_time(work)


@pytest.mark.parametrize(
    ("config", "error", "reason", "calls"),
    [
        ({"max_attempts": 3}, OSError, StopReason.ATTEMPTS, 3),
        ({"max_attempts": 1}, OSError, StopReason.ATTEMPTS, 1),
        ({"max_attempts": 3}, ValueError, StopReason.NOT_RETRYABLE, 1),
    ],
)
def test_why_there_was_no_further_try_is_named(
    config: dict[str, Any], error: type[Exception], reason: StopReason, calls: int
) -> None:
    async def work() -> None:
        rig = Rig(**config)
        with pytest.raises(error) as caught:
            await rig.call([error(str(number)) for number in range(9)])
        assert rig.calls == calls
        assert str(caught.value) == str(calls - 1), "the last error, as it is"
        assert rig.stopped == [(reason, calls)]
        if reason is StopReason.ATTEMPTS:
            assert caught.value.__notes__ == [f"no further try after {calls}: attempts"]

    in_virtual_time(work)


def test_what_may_have_been_done_is_not_done_again_unless_asked() -> None:
    async def work() -> None:
        rig = Rig(max_attempts=3)
        with pytest.raises(OSError):
            await rig.call([OSError()], idempotent=False)
        assert rig.stopped == [(StopReason.NOT_IDEMPOTENT, 1)]
        assert await Rig(max_attempts=3, retry_non_idempotent=True).call([OSError()], idempotent=False) == 2

    in_virtual_time(work)


def test_an_empty_budget_ends_it() -> None:
    async def work() -> None:
        rig = Rig(RetryBudget())
        with pytest.raises(OSError) as caught:
            await rig.call([OSError()])
        assert rig.stopped == [(StopReason.BUDGET, 1)]
        assert caught.value.__notes__ == ["no further try after 1: budget"]

    in_virtual_time(work)


def test_retries_cost_at_most_a_tenth_of_the_successes_and_the_reserve() -> None:
    async def work() -> None:
        rig = Rig(RetryBudget(0.1, 10.0), max_attempts=5)
        rig.breaker.disable()
        for number in range(1000):
            with contextlib.suppress(OSError):
                await rig.call([] if number % 2 else [OSError() for _ in range(9)])
        assert 1040 <= rig.calls <= 1050  # a tenth of 500 successes
        before = rig.calls
        for _ in range(100):
            with pytest.raises(OSError):
                await rig.call([OSError() for _ in range(9)])
        assert rig.calls - before <= 100 + 10  # and nothing but the reserve where nothing succeeds

    in_virtual_time(work)


def test_a_circuit_that_opens_ends_it_at_once() -> None:
    async def work() -> None:
        rig = Rig(max_attempts=5, breaker={"consecutive_failures_threshold": 2})
        with pytest.raises(OSError) as caught:
            await rig.call([OSError() for _ in range(9)])
        assert (rig.calls, rig.stopped) == (2, [(StopReason.CIRCUIT, 2)])
        assert caught.value.__notes__ == ["no further try after 2: circuit"]
        with pytest.raises(CircuitOpenError):
            await rig.call([])
        assert rig.events[-2:] == [AttemptEnded("x", "not_permitted", 1), RetriesStopped("x", StopReason.CIRCUIT, 0)]

    in_virtual_time(work)


def test_a_circuit_that_opens_during_the_wait_gives_the_error_that_was_seen() -> None:
    async def work() -> None:
        rig = Rig(max_attempts=5, wait_duration=10.0, max_wait_duration=10.0)
        task = asyncio.ensure_future(rig.call([OSError("seen")]))
        await asyncio.sleep(0.001)
        rig.breaker.force_open()
        with pytest.raises(OSError, match="seen") as caught:
            await task
        assert caught.value.__notes__ == ["no further try after 1: circuit"]

    in_virtual_time(work)


def test_a_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    async def work() -> None:
        rig = Rig()
        with pytest.raises(AskedToWaitError):
            rig.breaker.disable()  # which lets Retry-After be waited for
            await rig.call([AskedToWaitError(5.0)], deadline=Deadline.after(3.0, rig.clock))
        assert rig.stopped == [(StopReason.DEADLINE, 1)]
        assert rig.clock() == 0.0

    in_virtual_time(work)


def test_waits_are_spread_under_a_bound_that_doubles_up_to_the_most() -> None:
    async def work() -> None:
        gaps: list[list[float]] = [[], [], [], []]
        for seed in range(200):
            rig = Rig(max_attempts=5, wait_duration=0.1, max_wait_duration=0.4)
            rig.retrier = Retrier("x", rig.retrier.config, rig.budget, classify, random.Random(seed))
            await rig.call([OSError() for _ in range(4)])
            for number, gap in enumerate(gaps):
                gap.append(rig.sent[number + 1] - rig.sent[number])
        for gap, bound in zip(gaps, [0.1, 0.2, 0.4, 0.4], strict=True):
            assert 0.9 * bound < max(gap) <= bound + 1e-9
            assert min(gap) < 0.1 * bound

    in_virtual_time(work)


def test_a_wait_that_the_callee_asks_for_opens_the_circuit_for_all() -> None:
    async def work() -> None:
        rig = Rig(max_retry_after=60.0)
        with pytest.raises(AskedToWaitError):
            await rig.call([AskedToWaitError(20.0)])
        assert rig.breaker.state is State.OPEN
        assert rig.breaker.retry_after() == pytest.approx(20.0)
        await asyncio.sleep(20.0)
        rig.breaker.reset()
        with pytest.raises(AskedToWaitError):
            await rig.call([AskedToWaitError(100_000.0)])
        assert rig.breaker.retry_after() == pytest.approx(60.0), "capped"

    in_virtual_time(work)


def test_without_a_circuit_the_callee_is_waited_for() -> None:
    async def work() -> None:
        rig = Rig()
        rig.retrier = Retrier("x", RetryConfig(max_retry_after=60.0), rig.budget, classify, random.Random(1))
        assert await rig.call([AskedToWaitError(20.0)]) == 2
        assert rig.sent[1] - rig.sent[0] == pytest.approx(20.0)
        assert await rig.call([AskedToWaitError(1000.0)]) == 4
        assert rig.sent[3] - rig.sent[2] == pytest.approx(60.0)

    in_virtual_time(work)


def test_twenty_calls_at_once_do_not_mix_up_their_tries_or_errors() -> None:
    async def work() -> None:
        rig = Rig(RetryBudget(1.0, 1000.0, saved=1000.0), max_attempts=4)

        async def one(number: int) -> tuple[str, int]:
            call = rig.retrier.new_call(idempotent=True)
            failures = number % 5

            async def callee() -> str:
                nonlocal failures
                await asyncio.sleep(0.001 * number)
                if failures:
                    failures -= 1
                    raise OSError(str(number))
                return str(number)

            try:
                said = await call.run(callee)
            except OSError as error:
                said = str(error)
            return said, call.attempts

        ended = await asyncio.gather(*(one(number) for number in range(20)))
        assert ended == [(str(number), min(number % 5 + 1, 4)) for number in range(20)]

    in_virtual_time(work)


@pytest.mark.parametrize("when_s", [0.5, 1.2], ids=["during a try", "during the wait"])
def test_cancellation_is_passed_on_at_once_and_the_permit_comes_back(when_s: float) -> None:
    async def work() -> None:
        rig = Rig(
            breaker={"initial_state": State.HALF_OPEN, "permitted_calls_in_half_open": 1},
            wait_duration=5.0,
            max_wait_duration=5.0,
        )
        rig.retrier = Retrier("x", rig.retrier.config, rig.budget, ignore_all, _Late(), rig.breaker)

        async def callee() -> None:
            await asyncio.sleep(1.0)
            raise OSError

        task = asyncio.ensure_future(rig.retrier.new_call(idempotent=True).run(callee))
        await asyncio.sleep(when_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.clock() == pytest.approx(when_s)
        assert rig.breaker.try_acquire() is not None, "the probe's place is free"

    in_virtual_time(work)


def ignore_all(error: BaseException) -> Classification:
    return Classification(Verdict.IGNORED, retryable=isinstance(error, Exception))


class _Late(random.Random):
    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.mark.parametrize("broken", ["classify", "on_event"])
def test_no_permit_stays_out_whatever_is_broken(broken: str) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("a bug")

    async def work() -> None:
        rig = Rig(breaker={"initial_state": State.HALF_OPEN, "permitted_calls_in_half_open": 1})
        rig.retrier = Retrier(
            "x",
            RetryConfig(),
            rig.budget,
            fail if broken == "classify" else classify,
            random.Random(1),
            rig.breaker,
            fail if broken == "on_event" else None,
        )
        with pytest.raises(RuntimeError):
            await rig.call([ValueError()])
        assert rig.breaker.metrics().calls + (rig.breaker.try_acquire() is not None) == 1

    in_virtual_time(work)


@pytest.mark.parametrize(
    ("impossible", "named"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"wait_duration": -1.0}, "wait_duration"),
        ({"wait_duration": 0.5, "max_wait_duration": 0.4}, "wait_duration"),
        ({"max_retry_after": float("nan")}, "max_retry_after"),
    ],
)
def test_an_impossible_configuration_is_refused_by_name(impossible: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryConfig(**impossible)
