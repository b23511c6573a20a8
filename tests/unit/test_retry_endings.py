"""However a call ends, even cancelled, dropped or by a bug: no permit stays out, and no frame stays alive."""

import asyncio
import contextlib
import gc
import weakref
from typing import Any

import pytest
import tenacity
from tests.unit.harness_retry import ONE_PROBE, Late, RetrierRig, ignore_all, in_virtual_time

from cotacoes.patterns.resilience import (
    AttemptEnded,
    CallDeadlineError,
    CallVerdict,
    Classification,
    RetryBudget,
    StopReason,
)


@pytest.mark.parametrize(
    ("when_s", "calls"), [(0.0, 0), (0.5, 1), (1.2, 1), (6.5, 2)], ids=["before", "first try", "wait", "second try"]
)
def test_cancellation_is_passed_on_at_once_and_returns_the_permit(when_s: float, calls: int) -> None:
    async def work() -> None:
        budget = RetryBudget(saved=10.0)
        rig = RetrierRig(
            budget, breaker=ONE_PROBE, classify=ignore_all, wait_duration=5.0, max_wait_duration=5.0, random_=Late()
        )

        async def upstream() -> None:
            rig.calls += 1
            await asyncio.sleep(1.0)
            raise OSError

        task = asyncio.create_task(rig.retrier.new_call(idempotent=True).run(upstream))
        if when_s:
            await asyncio.sleep(when_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.clock() == pytest.approx(when_s)
        assert rig.calls == calls
        assert rig.breaker.metrics().calls == 0, "no evidence"
        assert rig.stopped == []
        assert budget.saved == 10.0 - max(0, calls - 1), "paid for is what was tried"
        rig.assert_no_permit_is_out()

    in_virtual_time(work)


def test_no_classification_can_swallow_a_cancellation() -> None:
    async def work() -> None:
        rig = RetrierRig(classify=lambda _: Classification(CallVerdict.FAILURE, retryable=True))
        with pytest.raises(asyncio.CancelledError):
            await rig.call([asyncio.CancelledError()])
        assert (rig.calls, rig.breaker.metrics().failures) == (1, 0)
        assert rig.events == [AttemptEnded("x", "cancelled", 1)]

    in_virtual_time(work)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exit_of_the_program_passes_and_returns_the_permit(kind: type[BaseException]) -> None:
    rig = RetrierRig.__new__(RetrierRig)

    async def work() -> None:
        rig.__init__(breaker=ONE_PROBE)  # type: ignore[misc]

    in_virtual_time(work)

    async def upstream() -> None:
        raise kind

    calling = rig.retrier.new_call(idempotent=True).run(upstream)
    with pytest.raises(kind):
        calling.send(None)
    rig.assert_no_permit_is_out()


def test_a_call_that_is_dropped_halfway_returns_the_permit() -> None:
    async def work() -> None:
        rig = RetrierRig(breaker=ONE_PROBE)
        calling = rig.retrier.new_call(idempotent=True).run(asyncio.Event().wait)
        calling.send(None)
        assert rig.breaker._probes_out == 1
        calling.close()
        rig.assert_no_permit_is_out()

    in_virtual_time(work)


def test_tenacitys_try_again_is_an_error_like_any_other() -> None:
    """tenacity takes it for an order, and would ask neither the breaker nor whether the call is idempotent."""

    async def work() -> None:
        rig = RetrierRig(breaker=ONE_PROBE, max_attempts=5)
        with pytest.raises(RuntimeError) as caught:
            await rig.call([tenacity.TryAgain()], idempotent=False)
        assert isinstance(caught.value.__cause__, tenacity.TryAgain)
        assert (rig.calls, rig.stopped) == (1, [(StopReason.NOT_RETRYABLE, 1)])
        rig.assert_no_permit_is_out()

    in_virtual_time(work)


@pytest.mark.parametrize("errors", [[], [ValueError()], [OSError(), OSError()], [asyncio.CancelledError()]])
@pytest.mark.parametrize("broken_at", [0, 1, 2, 3])
def test_a_broken_listener_leaves_no_permit_out(errors: list[BaseException], broken_at: int) -> None:
    async def work() -> None:
        heard = 0

        def listen(_: Any) -> None:
            nonlocal heard
            heard += 1
            if heard > broken_at:
                raise RuntimeError("a bug")

        rig = RetrierRig(breaker={**ONE_PROBE, "permitted_calls_in_half_open": 5}, on_event=listen)
        with contextlib.suppress(RuntimeError, OSError, ValueError, asyncio.CancelledError):
            await rig.call(list(errors))
        rig.breaker._on_event = listen
        with contextlib.suppress(RuntimeError, OSError, ValueError, asyncio.CancelledError):
            await rig.call(list(errors))
        rig.assert_no_permit_is_out()

    in_virtual_time(work)


def test_a_broken_classification_leaves_no_permit_out() -> None:
    def fail(_: BaseException) -> Classification:
        raise RuntimeError("a bug")

    async def work() -> None:
        rig = RetrierRig(breaker=ONE_PROBE, classify=fail)
        with pytest.raises(RuntimeError, match="a bug"):
            await rig.call([ValueError()])
        assert rig.breaker.metrics().calls == 0, "nobody knows what it showed"
        rig.assert_no_permit_is_out()

    in_virtual_time(work)


@pytest.mark.parametrize("kind", [OSError, ValueError, CallDeadlineError, asyncio.CancelledError, None])
@pytest.mark.slow
def test_a_call_that_has_ended_keeps_nothing_alive(kind: type[BaseException] | None) -> None:
    """Neither its error, which would keep the frames of the call, nor the cycles of tenacity after a success."""

    class Held:
        pass

    async def work() -> None:
        rig = RetrierRig()
        held: list[weakref.ref[Held]] = []

        async def calling() -> None:
            mine = Held()
            held.append(weakref.ref(mine))
            call = rig.retrier.new_call(idempotent=True)

            async def upstream(mine: Held = mine) -> None:
                if kind is not None:
                    raise kind

            await call.run(upstream)

        for _ in range(30):
            await asyncio.gather(calling(), return_exceptions=True)
            await asyncio.sleep(0)
        assert [ref() for ref in held] == [None] * 30
        assert gc.collect() < 30, "not one object for each call"

    gc.collect()
    gc.disable()
    try:
        in_virtual_time(work)
    finally:
        gc.enable()
