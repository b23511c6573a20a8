"""One call for all who ask the same at the same time, whoever of them goes away."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from tests.unit import virtual_time

from cotacoes.patterns import CallDeadlineError, Deadline, FlightLostError, SingleFlight, current_deadline


class Callee:
    def __init__(self, seconds: float = 1.0, error: BaseException | None = None) -> None:
        self.calls = 0
        self.cancelled = 0
        self._seconds = seconds
        self._error = error

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._error is not None:
            raise self._error
        return number


def run(work: Callable[[SingleFlight[int]], Awaitable[None]]) -> None:
    async def whole() -> None:
        flights = SingleFlight[int](deadline=5.0, clock=asyncio.get_running_loop().time)
        await work(flights)
        await asyncio.sleep(0)
        assert not flights._flights
        assert not flights._ending
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()  # an exception that nobody looked at would be told here

    virtual_time.run(whole())


def test_a_hundred_callers_are_one_call_and_the_next_one_is_another() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        callee = Callee()
        answers = await asyncio.gather(*(flights.do("a", callee) for _ in range(100)))
        assert callee.calls == 1
        assert sorted(answers) == [(1, False)] + [(1, True)] * 99
        assert await flights.do("a", callee) == (2, False), "it is no cache"

    run(work)


def test_other_questions_are_other_calls() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        callee = Callee()
        await asyncio.gather(flights.do("a", callee), flights.do("b", callee))
        assert callee.calls == 2

    run(work)


def test_an_error_is_everyones() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        callee = Callee(error=OSError("no route"))
        ended = await asyncio.gather(*(flights.do("a", callee) for _ in range(3)), return_exceptions=True)
        assert [str(error) for error in ended] == ["no route"] * 3
        assert callee.calls == 1

    run(work)


@pytest.mark.parametrize("leaving", [0, 1])
def test_one_who_goes_leaves_the_others_their_answer(leaving: int) -> None:
    async def work(flights: SingleFlight[int]) -> None:
        callee = Callee()
        tasks = [asyncio.create_task(flights.do("a", callee)) for _ in range(3)]
        await asyncio.sleep(0.5)
        tasks[leaving].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ended[leaving], asyncio.CancelledError)
        assert [answer[0] for answer in ended if isinstance(answer, tuple)] == [1, 1]
        assert callee.cancelled == 0

    run(work)


def test_when_all_have_gone_it_is_cancelled_and_nobody_boards_it_any_more() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        callee = Callee()
        tasks = [asyncio.create_task(flights.do("a", callee)) for _ in range(2)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        answer = await flights.do("a", callee)
        assert answer == (2, False)
        assert callee.cancelled == 1
        await asyncio.gather(*tasks, return_exceptions=True)

    run(work)


def test_it_has_its_own_deadline_and_not_that_of_the_first_caller() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        clock = asyncio.get_running_loop().time
        left: list[float] = []

        async def callee() -> int:
            deadline = current_deadline()
            assert deadline is not None
            left.append(deadline.remaining())
            await asyncio.sleep(2.0)
            return 1

        async def hurried() -> None:
            async with Deadline.after(1.0, clock).enforced():
                await flights.do("a", callee)

        first = asyncio.create_task(hurried())
        await asyncio.sleep(0.1)
        assert await flights.do("a", callee) == (1, True)
        with pytest.raises(CallDeadlineError):
            await first
        assert left == [pytest.approx(5.0)]

    run(work)


def test_one_that_hangs_ends_by_its_deadline_however_many_board() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        clock = asyncio.get_running_loop().time
        callee = Callee(seconds=1000.0)
        tasks = []
        for _ in range(4):
            tasks.append(asyncio.create_task(flights.do("a", callee)))
            await asyncio.sleep(1.0)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in ended] == [CallDeadlineError] * 4
        assert clock() == pytest.approx(5.0)
        assert callee.calls == 1

    run(work)


def test_a_call_that_is_cancelled_from_within_cancels_nobody() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        callee = Callee(error=asyncio.CancelledError())
        with pytest.raises(FlightLostError):
            await flights.do("a", callee)

    run(work)


def test_an_error_that_nobody_is_left_to_hear_makes_no_noise() -> None:
    noise: list[object] = []

    async def work(flights: SingleFlight[int]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))

        async def callee() -> int:
            try:
                await asyncio.sleep(1.0)
            except asyncio.CancelledError:
                raise OSError("while ending") from None
            return 1

        task = asyncio.create_task(flights.do("a", callee))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        gc.collect()

    run(work)
    assert noise == []
