"""Callers of the same question at the same time share one call, whichever of them leave."""

import asyncio
import gc
import traceback
import weakref
from collections.abc import Awaitable, Callable

import pytest
from tests.unit import fake_event_loop

from cotacoes.patterns.resilience import CallDeadlineError, Deadline, FlightLostError, SingleFlight, current_deadline


class FakeUpstream:
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


def run(work: Callable[[SingleFlight[int]], Awaitable[None]], *, collect: bool = True) -> None:
    async def whole() -> None:
        flights = SingleFlight[int](deadline=5.0, clock=asyncio.get_running_loop().time)
        await work(flights)
        await asyncio.sleep(0)
        assert not flights._flights
        assert not flights._ending
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if collect:
            gc.collect()  # an exception that was never retrieved would be reported here

    fake_event_loop.run(whole())


def test_a_hundred_callers_share_one_call_and_the_next_caller_makes_another() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        upstream = FakeUpstream()
        answers = await asyncio.gather(*(flights.do("a", upstream) for _ in range(100)))
        assert upstream.calls == 1
        assert sorted(answers) == [(1, False)] + [(1, True)] * 99
        assert await flights.do("a", upstream) == (2, False), "it is no cache"

    run(work)


def test_different_questions_are_different_calls() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        upstream = FakeUpstream()
        await asyncio.gather(flights.do("a", upstream), flights.do("b", upstream))
        assert upstream.calls == 2

    run(work)


def test_an_error_reaches_every_caller() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        upstream = FakeUpstream(error=OSError("no route"))
        ended = await asyncio.gather(*(flights.do("a", upstream) for _ in range(3)), return_exceptions=True)
        assert [str(error) for error in ended] == ["no route"] * 3
        assert upstream.calls == 1

    run(work)


@pytest.mark.parametrize("leaving", [0, 1])
def test_a_caller_that_leaves_does_not_affect_the_others(leaving: int) -> None:
    async def work(flights: SingleFlight[int]) -> None:
        upstream = FakeUpstream()
        tasks = [asyncio.create_task(flights.do("a", upstream)) for _ in range(3)]
        await asyncio.sleep(0.5)
        tasks[leaving].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ended[leaving], asyncio.CancelledError)
        assert [answer[0] for answer in ended if isinstance(answer, tuple)] == [1, 1]
        assert upstream.cancelled == 0

    run(work)


def test_a_flight_without_callers_is_cancelled_and_cannot_be_boarded() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        upstream = FakeUpstream()
        tasks = [asyncio.create_task(flights.do("a", upstream)) for _ in range(2)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        answer = await flights.do("a", upstream)
        assert answer == (2, False)
        assert upstream.cancelled == 1
        await asyncio.gather(*tasks, return_exceptions=True)

    run(work)


def test_a_flight_has_its_own_deadline_and_not_that_of_its_first_caller() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        clock = asyncio.get_running_loop().time
        left: list[float] = []

        async def upstream() -> int:
            deadline = current_deadline()
            assert deadline is not None
            left.append(deadline.remaining())
            await asyncio.sleep(2.0)
            return 1

        async def hurried() -> None:
            async with Deadline.after(1.0, clock).enforced():
                await flights.do("a", upstream)

        first = asyncio.create_task(hurried())
        await asyncio.sleep(0.1)
        assert await flights.do("a", upstream) == (1, True)
        with pytest.raises(CallDeadlineError):
            await first
        assert left == [pytest.approx(5.0)]

    run(work)


def test_a_flight_that_hangs_ends_by_its_deadline_however_many_board() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        clock = asyncio.get_running_loop().time
        upstream = FakeUpstream(seconds=1000.0)
        tasks = []
        for _ in range(4):
            tasks.append(asyncio.create_task(flights.do("a", upstream)))
            await asyncio.sleep(1.0)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in ended] == [CallDeadlineError] * 4
        assert clock() == pytest.approx(5.0)
        assert upstream.calls == 1

    run(work)


def test_a_call_cancelled_from_within_cancels_no_caller() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        upstream = FakeUpstream(error=asyncio.CancelledError())
        with pytest.raises(FlightLostError):
            await flights.do("a", upstream)

    run(work)


def test_a_caller_that_is_ending_also_learns_that_the_call_was_cancelled() -> None:
    """A task that cleans up after its own cancellation still counts as being cancelled."""

    async def work(flights: SingleFlight[int]) -> None:
        seen: list[BaseException] = []

        async def cleaning_up() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                try:
                    await flights.do("a", FakeUpstream(error=asyncio.CancelledError()))
                except BaseException as error:
                    seen.append(error)

        task = asyncio.create_task(cleaning_up())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [type(error) for error in seen] == [FlightLostError]

    run(work)


def test_a_flight_whose_time_is_up_cannot_be_boarded() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        clock = asyncio.get_running_loop().time
        calls = 0

        async def upstream() -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                try:
                    await asyncio.sleep(100.0)
                finally:
                    await asyncio.sleep(2.0)  # closes its connection
            await asyncio.sleep(2.0)
            return calls

        first = asyncio.create_task(flights.do("a", upstream))
        await asyncio.sleep(6.0)
        second = asyncio.create_task(flights.do("a", upstream))
        await asyncio.sleep(0.5)
        with pytest.raises(CallDeadlineError):
            await first
        assert clock() == pytest.approx(7.0)
        assert await flights.do("a", upstream) == (2, True), "that the first has come down is nothing to the second"
        assert await second == (2, False)
        assert clock() == pytest.approx(8.0)

    run(work)


def test_a_flight_that_has_just_ended_cannot_be_boarded() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        calls = 0
        ending = asyncio.Event()

        async def upstream() -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                await ending.wait()
                raise OSError("the first one's")
            return calls

        async def asking_at_that_moment() -> tuple[int, bool]:
            await ending.wait()  # comes after the flight in the same turn of the loop, and before what it calls back
            return await flights.do("a", upstream)

        first = asyncio.create_task(flights.do("a", upstream))
        await asyncio.sleep(0.1)
        later = asyncio.create_task(asking_at_that_moment())
        await asyncio.sleep(0.1)
        ending.set()
        assert await later == (2, False)
        with pytest.raises(OSError, match="the first one's"):
            await first

    run(work)


@pytest.mark.parametrize("error", [None, OSError("no route")])
@pytest.mark.slow
def test_a_caller_cancelled_at_the_moment_of_the_answer_is_cancelled_quietly(error: OSError | None) -> None:
    noise: list[object] = []

    async def work(flights: SingleFlight[int]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: noise.append(context))
        for turns in range(6):
            task = asyncio.create_task(flights.do(turns, FakeUpstream(error=error)))
            await asyncio.sleep(1.0 - 1e-9)
            await asyncio.sleep(1e-9)
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = task.done()
            task.cancel()
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            assert was_done or isinstance(ended, asyncio.CancelledError)
            del task, ended
            gc.collect()

    run(work)
    assert noise == []


def test_a_shared_error_does_not_grow_with_its_callers() -> None:
    async def work(flights: SingleFlight[int]) -> None:
        lengths: list[int] = []

        async def asking() -> None:
            try:
                await flights.do("a", upstream)
            except OSError as error:
                lengths.append(len(traceback.extract_tb(error.__traceback__)))

        upstream = FakeUpstream(error=OSError("no route"))
        await asyncio.gather(*(asking() for _ in range(20)))
        assert len(set(lengths)) == 1

    run(work)


@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError, CallDeadlineError])
def test_the_end_of_a_flight_keeps_no_frames_alive(kind: type[BaseException]) -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    async def work(flights: SingleFlight[int]) -> None:
        async def upstream() -> int:
            await asyncio.sleep(100.0 if kind is CallDeadlineError else 1.0)
            raise kind

        async def asking() -> None:
            mine = Held()
            held.append(weakref.ref(mine))
            await flights.do("a", upstream)

        ended = await asyncio.gather(*(asking() for _ in range(3)), return_exceptions=True)
        assert {type(error) for error in ended} == {FlightLostError if kind is asyncio.CancelledError else kind}

    gc.disable()
    try:
        run(work, collect=False)
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_a_flight_without_time_is_refused() -> None:
    for deadline in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="deadline"):
            SingleFlight[int](deadline=deadline, clock=lambda: 0.0)


def test_an_error_without_a_caller_makes_no_noise() -> None:
    noise: list[object] = []

    async def work(flights: SingleFlight[int]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))

        async def upstream() -> int:
            try:
                await asyncio.sleep(1.0)
            except asyncio.CancelledError:
                raise OSError("while ending") from None
            return 1

        task = asyncio.create_task(flights.do("a", upstream))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        gc.collect()

    run(work)
    assert noise == []
