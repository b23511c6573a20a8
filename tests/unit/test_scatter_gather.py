"""By the deadline there is an answer, and it names exactly what is missing from it, whatever the branches do."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.virtual_time import run

from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.scatter_gather import GatherResult, Status, scatter_gather, still_running

Ask = Callable[[], Awaitable[int]]
DEADLINE = 2.0
GRACE = 0.02


@dataclass(frozen=True)
class Plan:
    """What a branch does: work for `takes`, then end as told; when cancelled, cling on for `clings` more."""

    takes: float
    ends: str = "value"
    clings: float = 0.0

    async def ask(self) -> int:
        try:
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            if not self.clings:
                raise
            await asyncio.sleep(self.clings)
            return -1  # swallows the cancellation
        if self.ends == "error":
            raise ShardUnavailableError("shard1 is not reachable")
        if self.ends == "bug":
            raise ZeroDivisionError("secret")
        if self.ends == "cancelled":
            raise asyncio.CancelledError
        return 7

    def status(self) -> Status:
        if self.takes < DEADLINE - GRACE:
            return Status.OK if self.ends == "value" else Status.FAILED
        return Status.TIMED_OUT if self.clings < GRACE else Status.ABANDONED


async def gather(plans: dict[str, Ask], deadline: float = DEADLINE) -> tuple[GatherResult[int], float]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    result = await scatter_gather(plans, deadline=deadline, clock=loop.time, grace=GRACE)
    return result, loop.time() - started


async def settled() -> None:
    """Until every abandoned branch has ended."""
    while still_running():
        await asyncio.sleep(1)


times = st.sampled_from([0.0, 0.001, 0.5, 1.9, 1.97, 1.99, 2.0, 2.5, 60.0])
plans = st.builds(
    Plan, times, st.sampled_from(["value", "error", "bug", "cancelled"]), st.sampled_from([0.0, 0.01, 5.0])
)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), plans, max_size=8))
def test_any_set_of_outcomes_and_timings_is_told_by_the_deadline_branch_by_branch(plans: dict[str, Plan]) -> None:
    async def scenario() -> None:
        result, elapsed = await gather({name: plan.ask for name, plan in plans.items()})
        assert elapsed <= DEADLINE + 1e-9
        assert result.elapsed_s == elapsed
        assert list(result.branches) == list(plans)
        assert {name: branch.status for name, branch in result.branches.items()} == {
            name: plan.status() for name, plan in plans.items()
        }
        assert result.values == {name: 7 for name, plan in plans.items() if plan.status() is Status.OK}
        assert [branch.name for branch in result.missing] == [name for name in plans if name not in result.values]
        assert result.complete == (not result.missing)
        assert all(branch.reason for branch in result.missing)
        assert still_running() == sum(plan.status() is Status.ABANDONED for plan in plans.values())
        await settled()

    run(scenario())


def test_it_does_not_wait_for_the_deadline_when_all_have_ended() -> None:
    _, elapsed = run(gather({"a": Plan(0.1).ask, "b": Plan(0.3, "error").ask}))
    assert elapsed == pytest.approx(0.3)


def test_a_reason_tells_our_own_words_and_of_other_errors_only_the_name() -> None:
    result, _ = run(gather({"shard1": Plan(0, "error").ask, "bug": Plan(0, "bug").ask, "slow": Plan(9).ask}))
    assert {branch.name: branch.reason for branch in result.missing} == {
        "shard1": "shard1 is not reachable",
        "bug": "ZeroDivisionError",
        "slow": "no answer within 2 s",
    }
    assert isinstance(result.branches["bug"].error, ZeroDivisionError)


def test_a_branch_that_raises_before_it_waits_is_failed_like_any_other() -> None:
    def broken() -> Awaitable[int]:
        raise ZeroDivisionError

    result, _ = run(gather({"broken": broken, "good": Plan(0.1).ask}))
    assert result.branches["broken"].status is Status.FAILED
    assert result.values == {"good": 7}


def test_the_plan_is_fixed_before_anything_starts() -> None:
    plans: dict[str, Ask] = {}

    async def meddle() -> int:
        plans.clear()
        return 7

    plans.update({"a": meddle, "b": meddle})
    result, _ = run(gather(plans))
    assert result.total == 2
    assert result.complete


def test_a_cancelled_caller_cancels_every_branch_and_stays_cancelled() -> None:
    ended: list[str] = []

    async def note(name: str) -> int:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)
        return 7

    async def scenario() -> None:
        call = asyncio.create_task(gather({"a": lambda: note("a"), "b": lambda: note("b")}))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ended == ["a", "b"]
        assert not still_running()

    run(scenario())


def test_nobody_to_ask_is_a_complete_answer_at_once() -> None:
    result, elapsed = run(gather({}))
    assert (result.total, result.complete, elapsed) == (0, True, 0)
