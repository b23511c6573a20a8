"""A deadline is one moment for all the work that is done until then."""

import asyncio
import contextvars
import functools
import gc
import math
import random
import types
import weakref
from collections.abc import Awaitable, Callable, Generator

import pytest
from tests.unit import fake_event_loop

from cotacoes.patterns.resilience import CallDeadlineError, Deadline, current_deadline


def run(work: Callable[[Callable[[], float]], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work(asyncio.get_running_loop().time)

    fake_event_loop.run(whole())


def test_the_time_left_runs_down_to_zero_and_not_below() -> None:
    now = 100.0
    deadline = Deadline.after(2.0, lambda: now)
    assert (deadline.remaining(), deadline.to_header()) == (2.0, "2000")
    now = 101.9994
    assert deadline.to_header() == "0", "rounded down, so that the one asked is never the later"
    now = 200.0
    assert deadline.remaining() == 0.0


def test_a_nested_deadline_never_outlives_the_outer_one() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with Deadline.after(1.0, clock).scope():
            assert Deadline.after(5.0, clock).remaining() == pytest.approx(1.0)
            with Deadline.after(0.3, clock).scope():
                assert Deadline.after(0.5, clock).remaining() == pytest.approx(0.3)
            assert Deadline.after(0.5, clock).remaining() == pytest.approx(0.5)
        assert current_deadline() is None
        assert Deadline.after(5.0, clock).remaining() == pytest.approx(5.0)

    run(work)


def test_a_nested_deadline_is_not_later_even_by_a_rounding(seeded: random.Random) -> None:
    for _ in range(500):
        now = seeded.uniform(0.0, 1.0)
        outer = Deadline(seeded.uniform(0.0, 10.0), functools.partial(float, now))
        with outer.scope():
            same = Deadline.after(seeded.uniform(5.0, 15.0), outer._clock)
            other = Deadline.after(20.0, functools.partial(float, now - 1000.0))
        assert same.at <= outer.at
        assert other.remaining() == pytest.approx(outer.remaining()), "by a clock that counts from elsewhere"


def test_a_deadline_holds_in_tasks_started_inside_its_scope_only() -> None:
    async def work(clock: Callable[[], float]) -> None:
        async def left() -> float | None:
            deadline = current_deadline()
            return None if deadline is None else deadline.remaining()

        beside = asyncio.create_task(left())
        with Deadline.after(1.0, clock).scope():
            within = asyncio.create_task(left())
            await asyncio.sleep(0.4)
        assert await within == pytest.approx(1.0)
        assert await beside is None

    run(work)


def test_an_enforced_deadline_cancels_its_body_with_an_error_of_its_own() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with pytest.raises(CallDeadlineError):
            async with Deadline.after(1.0, clock).enforced():
                await asyncio.Event().wait()
        assert clock() == pytest.approx(1.0)
        assert current_deadline() is None

    run(work)


def test_a_body_without_time_left_is_not_begun() -> None:
    async def work(clock: Callable[[], float]) -> None:
        begun = False
        with pytest.raises(CallDeadlineError):
            async with Deadline(clock(), clock).enforced():
                begun = True
        assert not begun
        assert current_deadline() is None

    run(work)


def test_a_timeout_from_inside_is_not_mistaken_for_the_deadline() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with pytest.raises(TimeoutError) as caught:
            async with Deadline.after(1.0, clock).enforced():
                raise TimeoutError("the socket's")
        assert not isinstance(caught.value, CallDeadlineError)

    run(work)


def test_a_cancellation_is_passed_on_and_is_no_timeout() -> None:
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


@pytest.mark.parametrize("is_cancelled_first", [True, False])
def test_a_cancellation_at_the_deadline_is_still_no_timeout(is_cancelled_first: bool) -> None:
    async def work(clock: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()

        async def waiting() -> None:
            if not is_cancelled_first:
                loop.call_soon(lambda: loop.call_at(1.0, task.cancel))  # after the deadline's own timer
            async with Deadline.after(1.0, clock).enforced():
                await asyncio.Event().wait()

        task = asyncio.create_task(waiting())
        if is_cancelled_first:
            loop.call_at(1.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert clock() == pytest.approx(1.0)

    run(work)


def test_of_two_deadlines_the_one_that_passed_raises() -> None:
    async def work(clock: Callable[[], float]) -> None:
        inner: list[BaseException] = []
        with pytest.raises(CallDeadlineError):
            async with Deadline.after(1.0, clock).enforced():
                try:
                    async with Deadline(5.0, clock).enforced():
                        await asyncio.Event().wait()
                except BaseException as error:
                    inner.append(error)
                    raise
        assert [type(error) for error in inner] == [asyncio.CancelledError]

    run(work)


def test_an_error_while_a_body_is_cancelled_is_that_error() -> None:
    async def work(clock: Callable[[], float]) -> None:
        with pytest.raises(TimeoutError, match="while ending") as caught:
            async with Deadline.after(1.0, clock).enforced():
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise TimeoutError("while ending") from None
        assert not isinstance(caught.value, CallDeadlineError)
        current = asyncio.current_task()
        assert current is not None
        assert not current.cancelling(), "nothing of it is left on the task"

    run(work)


def test_a_coroutine_closed_from_outside_leaves_its_scope_quietly() -> None:
    """The garbage collector does so with an abandoned coroutine, in a context of its own."""

    @types.coroutine
    def suspended() -> Generator[None, None, None]:
        yield

    async def within() -> None:
        with Deadline.after(1.0, lambda: 0.0).scope():
            await suspended()

    coroutine = within()
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert current_deadline() is None


def test_a_call_cut_short_keeps_no_frames_alive() -> None:
    class Held:
        pass

    async def work(clock: Callable[[], float]) -> None:
        held: list[weakref.ref[Held]] = []

        async def waiting() -> None:
            mine = Held()
            held.append(weakref.ref(mine))
            async with Deadline.after(1.0, clock).enforced():
                await asyncio.Event().wait()

        task = asyncio.create_task(waiting())
        await asyncio.wait([task])
        assert isinstance(task.exception(), CallDeadlineError)
        del task
        await asyncio.sleep(0)
        assert held[0]() is None

    gc.disable()
    try:
        run(work)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1.5", "1e3", "1_0", "0x1", "soon", "nan", "inf", "1" * 10, "٣", "²", " 5", "5\n", "5\x00", "1,2"],
)
def test_an_invalid_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="X-Deadline-Ms"):
        Deadline.of_header(text, lambda: 0.0)


def test_a_header_is_read_as_it_was_written() -> None:
    assert Deadline.of_header("1500", lambda: 7.0).at == 8.5
    assert Deadline.of_header("0", lambda: 7.0).remaining() == 0.0
    assert Deadline.of_header("9" * 9, lambda: 0.0).remaining() == 999_999.999
    for text in ["0", "1", "1500", "9" * 9]:
        assert Deadline.of_header(text, lambda: 0.0).to_header() == text


@pytest.mark.parametrize("seconds", [1e6, 1e300, math.inf])
def test_the_longest_header_written_can_be_read(seconds: float) -> None:
    header = Deadline.after(seconds, lambda: 0.0).to_header()
    assert Deadline.of_header(header, lambda: 0.0).remaining() == 999_999.999


@pytest.mark.parametrize("seconds", [-1.0, -math.inf, math.nan])
def test_a_deadline_in_the_past_leaves_no_time(seconds: float) -> None:
    deadline = Deadline.after(seconds, lambda: 0.0)
    assert (deadline.remaining(), deadline.to_header()) == (0.0, "0")
    with Deadline.after(1.0, lambda: 0.0).scope():
        assert Deadline.after(seconds, lambda: 0.0).remaining() <= 1.0
