"""However a call ends, its error is unchanged and it leaves nothing behind: no place, probe, flight or frame."""

import asyncio
import contextlib
import gc
import random
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit import fake_event_loop
from tests.unit.harness_resilience import PolicyRig, run

from cotacoes.patterns.resilience import (
    BreakerState,
    CallResult,
    Deadline,
)


def test_without_an_answer_the_error_of_the_last_attempt_is_raised_unchanged() -> None:
    async def work() -> None:
        rig = PolicyRig()
        cause = ValueError("inner")
        error = OSError("no route")
        error.__cause__ = cause
        with pytest.raises(OSError, match="no route") as caught:
            await rig.call(OSError("first"), error)
        assert caught.value is error
        assert caught.value.__cause__ is cause
        assert error.__notes__ == ["no further attempt after 2: attempts"]
        rig.assert_nothing_is_left()

    run(work)


@pytest.mark.parametrize("key", [None, "a"])
def test_the_error_keeps_its_cause_and_gets_no_other(key: str | None) -> None:
    async def work() -> None:
        rig = PolicyRig(retry={"max_attempts": 1})

        async def upstream() -> None:
            try:
                raise KeyError("within")
            except KeyError:
                raise OSError("no route")  # noqa: B904

        with pytest.raises(OSError, match="no route") as caught:
            await rig.policy.call(upstream, idempotent=True, key=key)
        error = caught.value
        assert isinstance(error.__context__, KeyError)
        assert (error.__cause__, error.__suppress_context__) == (None, False)
        assert "upstream" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    run(work)


def test_an_error_shared_by_many_callers_is_the_same_for_each() -> None:
    """It has one note, and a traceback of its own for each caller, which does not grow with their number."""

    async def work() -> None:
        rig = PolicyRig()
        seen: list[tuple[BaseException, list[str], list[str]]] = []

        async def asking() -> None:
            try:
                await rig.call(key="a")
            except OSError as error:
                way = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
                seen.append((error, list(error.__notes__), way))

        rig.script = [OSError("first"), OSError("last")]
        await asyncio.gather(*(asking() for _ in range(20)))
        assert len({id(error) for error, _, _ in seen}) == 1
        assert {tuple(notes) for _, notes, _ in seen} == {("no further attempt after 2: attempts",)}
        assert len({tuple(way) for _, _, way in seen}) == 1
        assert (seen[0][2][0], seen[0][2][-1]) == ("asking", "upstream")

    run(work)


@pytest.mark.parametrize("key", [None, "a"])
@pytest.mark.parametrize("how", ["answers", "fails", "hangs", "hurried", "refused", "full"])
def test_a_call_that_has_ended_keeps_no_frames_alive(how: str, key: str | None) -> None:
    class Held:
        pass

    async def work() -> None:
        rig = PolicyRig(places=1 if how == "full" else 5)
        held: list[weakref.ref[Held]] = []
        if how == "refused":
            rig.breaker.force_open()

        async def upstream(seconds: float = 9.0 if how in {"hangs", "hurried", "full"} else 0.1) -> None:
            mine = Held()
            held.append(weakref.ref(mine))
            await asyncio.sleep(seconds)
            if how == "fails":
                raise OSError("no route")

        async def asking() -> None:
            mine = Held()
            held.append(weakref.ref(mine))
            with Deadline.after(0.5 if how == "hurried" else 9.0, rig.clock).scope():
                await rig.policy.call(upstream, idempotent=True, key=key)

        ended = await asyncio.gather(*(asking() for _ in range(3)), return_exceptions=True)
        assert how == "answers" or all(isinstance(error, Exception) for error in ended)
        del ended
        for _ in range(3):
            await asyncio.sleep(0)
        assert [ref() for ref in held] == [None] * len(held)

    gc.disable()
    try:
        run(work)
    finally:
        gc.enable()


# cancellation, at every await


async def cancelled_at(turn: int, *, key: str | None, with_timer: bool, is_joined: bool) -> bool:
    """Cancel a call before the `turn`-th turn of the event loop that is made for it; whether there was such a turn.

    The call waits for a place, fails, waits, hangs until its try's time is over, waits, and is answered.
    """
    loop: Any = asyncio.get_running_loop()
    rig = PolicyRig(
        places=1,
        deadline=9.0,
        retry={"max_attempts": 3, "wait_duration": 0.2, "max_wait_duration": 0.2},
        breaker={
            "initial_state": BreakerState.HALF_OPEN,
            "consecutive_failures_threshold": 9,
            "permitted_calls_in_half_open": 9,
            "failure_rate_threshold": 1.0,
        },
    )
    rig.budget._share = 0.0
    blocking = asyncio.create_task(rig.policy.call(lambda: asyncio.sleep(0.3), idempotent=True))
    await asyncio.sleep(0)
    victim = asyncio.create_task(rig.call(OSError(), 9.0, 0.1, key=key))
    other = asyncio.create_task(rig.call(key=key)) if is_joined else None
    turns = 0
    turn_of_the_loop: Callable[[float | None], list[Any]] = loop._jumping.select

    def select(timeout: float | None) -> list[Any]:
        nonlocal turns
        turns += 1
        if turns != turn:
            return turn_of_the_loop(timeout)
        is_cancelled.append(victim.cancel())
        return turn_of_the_loop(timeout if with_timer else 0)  # with what is due at that moment, or before it

    is_cancelled: list[bool] = []
    loop._jumping.select = select
    try:
        ended = (await asyncio.gather(victim, return_exceptions=True))[0]
    finally:
        loop._jumping.select = turn_of_the_loop
    with contextlib.suppress(TimeoutError, OSError):
        await (blocking if other is None else asyncio.gather(blocking, other))
    for _ in range(3):
        await asyncio.sleep(0)
    rig.assert_nothing_is_left()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert rig.budget.saved == pytest.approx(10.0 - max(0, rig.calls - 1)), "paid for is what was tried"
    assert other is None or other.result().value == rig.calls
    if is_cancelled == [True]:
        assert isinstance(ended, asyncio.CancelledError)
        return True
    assert isinstance(ended, CallResult)
    return False


@pytest.mark.parametrize("with_timer", [False, True])
@pytest.mark.parametrize(("key", "is_joined"), [(None, False), ("a", False), ("a", True)])
def test_cancellation_at_every_await_is_passed_on_and_leaves_nothing_behind(
    key: str | None, is_joined: bool, with_timer: bool
) -> None:
    turn = 1
    while fake_event_loop.run(cancelled_at(turn, key=key, with_timer=with_timer, is_joined=is_joined)):
        turn += 1
    assert turn > 8, "a place, two waits, a timeout, three tries"


def test_a_storm_of_calls_faults_and_cancellations_leaves_nothing_behind(seeded: random.Random) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        noise: list[Any] = []
        loop.set_exception_handler(lambda _, context: noise.append(context))
        rig = PolicyRig(places=3, breaker={"wait_duration_in_open": 0.5, "permitted_calls_in_half_open": 2})
        under_way = 0

        async def upstream() -> int:
            nonlocal under_way
            under_way += 1
            assert under_way <= 3
            try:
                await asyncio.sleep(seeded.choice([0.0, 0.01, 0.1, 9.0]))
                raise seeded.choice([OSError, ValueError, TimeoutError, asyncio.CancelledError, ZeroDivisionError])
            finally:
                under_way -= 1

        async def asking() -> None:
            with Deadline.after(seeded.choice([0.0, 0.01, 0.5, 9.0]), rig.clock).scope():
                fn = seeded.choice([upstream, rig.upstream])
                await rig.policy.call(fn, idempotent=seeded.random() < 0.8, key=seeded.choice([None, "a", "b"]))

        tasks = []
        for _ in range(300):
            tasks.append(asyncio.create_task(asking()))
            loop.call_later(seeded.choice([0.0, 0.01, 0.1, 30.0]), tasks[-1].cancel)
            await asyncio.sleep(seeded.choice([0.0, 0.0, 0.01, 0.1]))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        del tasks
        assert not [end for end in ended if isinstance(end, AssertionError)]
        await asyncio.sleep(5.0)
        rig.assert_nothing_is_left()
        assert rig.breaker.metrics().overdue == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()
        assert noise == []

    run(work)
