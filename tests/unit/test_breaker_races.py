"""The breaker among real coroutines: crowds at half-open, cancellation at every await, answers in any order."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit import fake_event_loop

from cotacoes.patterns.resilience import (
    BreakerState,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    Permit,
)

CROWD = 50
WAIT_S = 5.0


class FakeUpstream:
    """An upstream that counts how many calls reach it, and how many at the same time."""

    def __init__(self, answer: Callable[[], Awaitable[None]]) -> None:
        self.answer = answer
        self.reached = self.inside = self.most_inside = 0

    async def __call__(self) -> None:
        self.reached += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.answer()
        finally:
            self.inside -= 1


async def after_a_second() -> None:
    await asyncio.sleep(1.0)


async def fail_after_a_second() -> None:
    await asyncio.sleep(1.0)
    raise OSError("no route")


async def never() -> None:
    await asyncio.Event().wait()


def make_breaker(**config: Any) -> CircuitBreaker:
    """A breaker on the loop's clock that opens at the first failure, and closes only if all probes succeed."""
    given = {
        "failure_rate_threshold": None,
        "consecutive_failures_threshold": 1,
        "wait_duration_in_open": WAIT_S,
        "wait_duration_jitter": 0.0,
        "max_wait_duration_in_half_open": None,
    }
    clock = asyncio.get_running_loop().time
    return CircuitBreaker("upstream", CircuitBreakerConfig(**{**given, **config}), clock=clock, random=random.Random(1))


async def call(breaker: CircuitBreaker, upstream: FakeUpstream) -> bool:
    """Make a call as the docstring of the breaker's module shows it; False if it was refused."""
    try:
        permit = breaker.acquire()
    except CircuitOpenError:
        return False
    verdict = CallVerdict.IGNORED
    try:
        await upstream()
        verdict = CallVerdict.SUCCESS
    except OSError:
        verdict = CallVerdict.FAILURE
    finally:
        permit.settle(verdict)
    return True


async def open_and_wait(breaker: CircuitBreaker) -> None:
    breaker.acquire().settle(CallVerdict.FAILURE)
    assert breaker.state is BreakerState.OPEN
    await asyncio.sleep(WAIT_S)


@pytest.mark.parametrize(("permitted", "at_once"), [(1, None), (3, None), (3, 1), (10, 4), (50, 1)])
def test_half_open_lets_only_the_permitted_number_of_a_crowd_reach_the_upstream(
    permitted: int, at_once: int | None
) -> None:
    async def work() -> None:
        breaker = make_breaker(permitted_calls_in_half_open=permitted, max_concurrent_calls_in_half_open=at_once)
        upstream = FakeUpstream(after_a_second)
        await open_and_wait(breaker)
        allowed = await asyncio.gather(*(call(breaker, upstream) for _ in range(CROWD)))
        assert sum(allowed) == upstream.reached == upstream.most_inside == (at_once or permitted)

    fake_event_loop.run(work())


def test_a_crowd_that_keeps_coming_is_let_through_one_by_one() -> None:
    async def work() -> None:
        breaker = make_breaker(permitted_calls_in_half_open=3, max_concurrent_calls_in_half_open=1)
        upstream = FakeUpstream(after_a_second)
        reached_half_open = []

        async def insist() -> None:
            while not await call(breaker, upstream):
                await asyncio.sleep(0.1)

        await open_and_wait(breaker)
        async with asyncio.TaskGroup() as group:
            for _ in range(CROWD):
                group.create_task(insist())
            while breaker.state is not BreakerState.CLOSED:
                assert upstream.inside <= 1
                reached_half_open.append(upstream.reached)
                await asyncio.sleep(0.05)
        assert max(reached_half_open) == 3
        assert upstream.reached == CROWD

    fake_event_loop.run(work())


def test_a_dead_upstream_gets_one_call_after_each_wait() -> None:
    async def work() -> None:
        breaker = make_breaker(permitted_calls_in_half_open=1)
        upstream = FakeUpstream(fail_after_a_second)

        async def insist() -> None:
            while True:
                await call(breaker, upstream)
                await asyncio.sleep(breaker.retry_after() or 0.01)  # all wake at the moment when the wait ends

        await open_and_wait(breaker)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600.0), asyncio.TaskGroup() as group:
                for _ in range(CROWD):
                    group.create_task(insist())
        assert upstream.most_inside == 1
        assert upstream.reached == pytest.approx(600 / (WAIT_S + 1), abs=1)

    fake_event_loop.run(work())


def test_an_upstream_that_hangs_gets_one_call_after_each_wait_until_it_answers() -> None:
    async def work() -> None:
        breaker = make_breaker(
            permitted_calls_in_half_open=1,
            max_wait_duration_in_half_open=10.0,
            wait_duration_multiplier=2.0,
            max_wait_duration_in_open=20.0,
        )
        upstream = FakeUpstream(never)
        await open_and_wait(breaker)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            hanging = []
            until = loop.time() + 300.0
            while loop.time() < until:
                hanging.append(group.create_task(call(breaker, upstream)))
                await asyncio.sleep(0.5)
            assert upstream.reached == 11  # after 10 s of hanging and 10, then 20 s of rest, in 300 s
            upstream.answer = after_a_second
            began = loop.time()
            while breaker.state is not BreakerState.CLOSED:
                await call(breaker, upstream)
                await asyncio.sleep(0.5)
            assert loop.time() - began <= 10.0 + 20.0 + 2.0
            for task in hanging:
                task.cancel()
            await asyncio.sleep(0)
        assert breaker.state is BreakerState.CLOSED
        assert breaker.metrics().failures == 0

    fake_event_loop.run(work())


@pytest.mark.parametrize("awaits", range(5))
def test_a_probe_cancelled_at_any_await_gives_its_slot_back(awaits: int) -> None:
    """0 is before it has begun, 4 after its last await: it has its result, though nobody took it."""
    passed = 0

    async def three_awaits() -> None:
        nonlocal passed
        try:
            for _ in range(2):
                passed += 1
                await asyncio.sleep(0)
        finally:
            passed += 1
            await asyncio.sleep(0)

    async def work() -> None:
        nonlocal passed
        breaker = make_breaker(permitted_calls_in_half_open=2)
        upstream = FakeUpstream(three_awaits)
        for turn in range(1, 11):
            await open_and_wait(breaker)
            passed = 0
            probe = asyncio.ensure_future(call(breaker, upstream))
            for _ in range(awaits):
                await asyncio.sleep(0)
            assert passed == min(awaits, 3)
            is_under_way = probe.cancel()
            ended = (await asyncio.gather(probe, return_exceptions=True))[0]
            assert isinstance(ended, asyncio.CancelledError) is is_under_way is (awaits < 4)
            assert breaker.metrics().ignored == (0 if awaits in {0, 4} else turn)
            both = [breaker.try_acquire(), breaker.try_acquire()]
            assert (both[0] is not None, both[1] is not None) == (True, awaits < 4)
            breaker.reset()

    fake_event_loop.run(work())


def test_a_cancelled_probe_lets_the_next_one_in_at_once() -> None:
    async def work() -> None:
        breaker = make_breaker(permitted_calls_in_half_open=1)
        upstream = FakeUpstream(never)
        await open_and_wait(breaker)
        probe = asyncio.ensure_future(call(breaker, upstream))
        await asyncio.sleep(1.0)
        assert not await call(breaker, upstream)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        upstream.answer = after_a_second
        assert await call(breaker, upstream)
        assert breaker.state is BreakerState.CLOSED

    fake_event_loop.run(work())


def test_late_answers_from_before_the_fault_change_nothing_in_any_order(seeded: random.Random) -> None:
    async def work() -> None:
        breaker = make_breaker(permitted_calls_in_half_open=2)
        answers: list[asyncio.Future[CallVerdict]] = [asyncio.Future() for _ in range(CROWD)]

        async def hold(permit: Permit, answer: asyncio.Future[CallVerdict]) -> bool:
            return permit.settle(await answer)

        old = [asyncio.ensure_future(hold(breaker.acquire(), answer)) for answer in answers]
        await open_and_wait(breaker)
        probes = [breaker.acquire(), breaker.acquire()]
        seeded.shuffle(answers)
        for answer in answers:
            answer.set_result(seeded.choice(list(CallVerdict)))
        assert await asyncio.gather(*old) == [False] * CROWD
        assert (breaker.state, breaker.metrics().calls, breaker.metrics().late) == (BreakerState.HALF_OPEN, 0, CROWD)
        assert breaker.try_acquire() is None
        assert [probe.settle(CallVerdict.SUCCESS) for probe in probes] == [True, True]
        assert breaker.state is BreakerState.CLOSED

    fake_event_loop.run(work())


def test_a_probe_cancelled_after_another_one_decided_changes_nothing() -> None:
    async def work() -> None:
        breaker = make_breaker(permitted_calls_in_half_open=2)
        hangs, fails = FakeUpstream(never), FakeUpstream(fail_after_a_second)
        await open_and_wait(breaker)
        probe = asyncio.ensure_future(call(breaker, hangs))
        await asyncio.sleep(0)
        assert await call(breaker, fails)
        assert breaker.state is BreakerState.OPEN
        await asyncio.sleep(WAIT_S)
        present = [breaker.acquire(), breaker.acquire()]
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert breaker.try_acquire() is None  # its slot is not one of these
        assert [permit.settle(CallVerdict.SUCCESS) for permit in present] == [True, True]

    fake_event_loop.run(work())
