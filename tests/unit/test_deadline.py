"""A deadline is one moment for all that is done on the way to it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit import virtual_time

from cotacoes.patterns import CallDeadlineError, Deadline, current_deadline


def run(work: Callable[[Callable[[], float]], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work(asyncio.get_running_loop().time)

    virtual_time.run(whole())


def test_what_is_left_runs_down_to_nothing_and_not_below() -> None:
    now = 100.0
    deadline = Deadline.after(2.0, lambda: now)
    assert (deadline.remaining(), deadline.to_header()) == (2.0, "2000")
    now = 101.9994
    assert deadline.to_header() == "0", "rounded down, so that the one asked is never the later"
    now = 200.0
    assert deadline.remaining() == 0.0


def test_a_nested_one_never_outlives_the_outer_one() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with Deadline.after(1.0, clock).scope():
            assert Deadline.after(5.0, clock).remaining() == pytest.approx(1.0)
            with Deadline.after(0.3, clock).scope():
                assert Deadline.after(0.5, clock).remaining() == pytest.approx(0.3)
            assert Deadline.after(0.5, clock).remaining() == pytest.approx(0.5)
        assert current_deadline() is None
        assert Deadline.after(5.0, clock).remaining() == pytest.approx(5.0)

    run(work)


def test_it_holds_in_tasks_that_are_started_within_and_not_beside() -> None:
    async def work(clock: Callable[[], float]) -> None:
        async def left() -> float | None:
            deadline = current_deadline()
            return None if deadline is None else deadline.remaining()

        beside = asyncio.create_task(left())
        with Deadline.after(1.0, clock).scope():
            within = asyncio.create_task(left())
            await asyncio.sleep(0.4)
        assert (await within, await beside) == (pytest.approx(1.0), None)

    run(work)


def test_when_it_is_over_what_is_within_is_cancelled_and_that_has_a_name_of_its_own() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with pytest.raises(CallDeadlineError):
            async with Deadline.after(1.0, clock).enforced():
                await asyncio.Event().wait()
        assert clock() == pytest.approx(1.0)
        assert current_deadline() is None

    run(work)


def test_a_timeout_from_within_is_not_taken_for_it() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with pytest.raises(TimeoutError) as caught:
            async with Deadline.after(1.0, clock).enforced():
                raise TimeoutError("the socket's")
        assert not isinstance(caught.value, CallDeadlineError)

    run(work)


def test_cancellation_is_passed_on_and_is_no_timeout() -> None:
    async def work(clock: Callable[[], float]) -> None:
        async def waiting() -> None:
            async with Deadline.after(9.0, clock).enforced():
                await asyncio.Event().wait()

        task = asyncio.create_task(waiting())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(work)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "soon", "1" * 10, "٣", " 5"])
def test_a_header_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="X-Deadline-Ms"):
        Deadline.of_header(text, lambda: 0.0)


def test_a_header_comes_back_as_what_it_was() -> None:
    assert Deadline.of_header("1500", lambda: 7.0).at == 8.5
    assert Deadline.of_header("0", lambda: 7.0).remaining() == 0.0
    assert Deadline.of_header("9" * 9, lambda: 0.0).remaining() == 999_999.999
