"""A bulkhead limits the calls at once, those that wait and their time, and never loses a place."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest
from tests.unit import fake_event_loop

from cotacoes.patterns.resilience import Bulkhead, BulkheadFullError, Deadline


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()

    fake_event_loop.run(whole())


async def hold(bulkhead: Bulkhead, seconds: float) -> float:
    async with bulkhead:
        assert bulkhead.calls <= bulkhead._max_calls
        assert bulkhead.waiting <= bulkhead._max_waiting
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        return began


def test_a_bulkhead_admits_its_number_at_once_and_others_in_order() -> None:
    async def work() -> None:
        bulkhead = Bulkhead("x", max_concurrent_calls=2, max_wait_duration=10.0)
        began = await asyncio.gather(*(hold(bulkhead, 1.0) for _ in range(6)))
        assert began == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
        assert (bulkhead.calls, bulkhead.waiting) == (0, 0)

    run(work)


@pytest.mark.parametrize(
    ("wait", "waiting", "after_s"), [(0.0, 10, 0.0), (0.5, 10, 0.5), (5.0, 0, 0.0)], ids=["at once", "wait", "queue"]
)
def test_a_full_bulkhead_refuses_by_name(wait: float, waiting: int, after_s: float) -> None:
    async def work() -> None:
        bulkhead = Bulkhead("x", max_concurrent_calls=1, max_wait_duration=wait, max_waiting_calls=waiting)
        holding = asyncio.create_task(hold(bulkhead, 9.0))
        await asyncio.sleep(0)
        with pytest.raises(BulkheadFullError, match="bulkhead x is full: 1 calls are under way"):
            await hold(bulkhead, 1.0)
        assert asyncio.get_running_loop().time() == pytest.approx(after_s)
        await holding

    run(work)


def test_no_call_waits_past_the_deadline() -> None:
    async def work() -> None:
        clock = asyncio.get_running_loop().time
        bulkhead = Bulkhead("x", max_concurrent_calls=1, max_wait_duration=60.0)
        holding = asyncio.create_task(hold(bulkhead, 9.0))
        await asyncio.sleep(0)
        with pytest.raises(BulkheadFullError), Deadline.after(2.0, clock).scope():
            await hold(bulkhead, 1.0)
        assert clock() == pytest.approx(2.0)
        await holding

    run(work)


def test_a_call_that_gives_up_leaves_no_gap_in_the_queue() -> None:
    async def work() -> None:
        bulkhead = Bulkhead("x", max_concurrent_calls=1, max_wait_duration=10.0)
        tasks = [asyncio.create_task(hold(bulkhead, 1.0)) for _ in range(5)]
        await asyncio.sleep(0.5)
        tasks[2].cancel()
        began = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(began[2], asyncio.CancelledError)
        assert [began[0], began[1], began[3], began[4]] == [0.0, 1.0, 2.0, 3.0]

    run(work)


@pytest.mark.parametrize("ended_by", ["cancel", "time"])
def test_a_place_given_to_a_leaving_call_goes_to_the_next(ended_by: str) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        bulkhead = Bulkhead("x", max_concurrent_calls=1, max_wait_duration=1.0)

        def give_back() -> None:
            with contextlib.suppress(StopIteration):
                bulkhead.__aexit__().send(None)
            if ended_by == "cancel":
                leaving.cancel()

        await bulkhead.__aenter__()
        leaving = asyncio.create_task(hold(bulkhead, 9.0))
        await asyncio.sleep(0.5)
        following = asyncio.create_task(hold(bulkhead, 0.0))
        loop.call_at(1.0, give_back)  # in the turn when the wait of the first one ends
        with pytest.raises(asyncio.CancelledError if ended_by == "cancel" else BulkheadFullError):
            await leaving
        assert await following == 1.0
        assert (bulkhead.calls, bulkhead.waiting) == (0, 0)

    run(work)


def test_a_cancelled_call_and_a_failed_call_release_their_places() -> None:
    async def work() -> None:
        bulkhead = Bulkhead("x", max_concurrent_calls=1)
        never = asyncio.create_task(hold(bulkhead, 1.0))
        never.cancel()
        await asyncio.gather(never, return_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            async with bulkhead:
                raise ZeroDivisionError
        assert await hold(bulkhead, 0.0) == 0.0

    run(work)


def test_a_storm_of_cancelled_calls_leaves_every_place_free(seeded: random.Random) -> None:
    async def work() -> None:
        bulkhead = Bulkhead("x", max_concurrent_calls=3, max_wait_duration=2.0, max_waiting_calls=5)
        tasks = []
        for _ in range(300):
            task = asyncio.create_task(hold(bulkhead, seeded.uniform(0.0, 1.0)))
            asyncio.get_running_loop().call_later(seeded.choice([0.0, 0.3, 9.0]) * seeded.random(), task.cancel)
            tasks.append(task)
            await asyncio.sleep(seeded.choice([0.0, 0.01]))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (bulkhead.calls, bulkhead.waiting) == (0, 0)
        began = await asyncio.gather(*(hold(bulkhead, 1.0) for _ in range(3)))
        assert len(set(began)) == 1, "all places are there"

    run(work)


@pytest.mark.parametrize(
    ("impossible", "named"),
    [
        ({"max_concurrent_calls": 0}, "max_concurrent_calls"),
        ({"max_concurrent_calls": 1, "max_wait_duration": -1.0}, "max_wait_duration"),
        ({"max_concurrent_calls": 1, "max_wait_duration": float("nan")}, "max_wait_duration"),
        ({"max_concurrent_calls": 1, "max_wait_duration": float("inf")}, "max_wait_duration"),
        ({"max_concurrent_calls": 1, "max_waiting_calls": -1}, "max_waiting_calls"),
    ],
)
def test_an_impossible_bound_is_refused_by_name(impossible: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Bulkhead("x", **impossible)  # type: ignore[arg-type]
