"""By the deadline there is an answer, and it names exactly what is missing from it, whatever the branches do."""

import asyncio
import contextvars
import gc
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fake_event_loop import run

from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.resilience import (
    BreakerState,
    BulkheadFullError,
    CallResult,
    CircuitOpenError,
    ResilienceConfig,
    ResiliencePolicy,
    RetryBudget,
    RetryConfig,
    ServedFrom,
    current_deadline,
)
from cotacoes.patterns.scatter_gather.gather import scatter_gather, still_running
from cotacoes.patterns.scatter_gather.gather_result import BranchStatus, GatherResult, IncompleteError

Ask = Callable[[], Awaitable[Any]]
DEADLINE = 2.0
RESERVE = 0.1
GRACE = 0.02
CUT_OFF = DEADLINE - RESERVE - GRACE

ERRORS: Mapping[str, tuple[Callable[[], BaseException], BranchStatus]] = {
    "error": (lambda: ShardUnavailableError("shard1 is not reachable"), BranchStatus.FAILED),
    "bug": (lambda: ZeroDivisionError("secret"), BranchStatus.FAILED),
    "cancelled": (asyncio.CancelledError, BranchStatus.FAILED),
    "timeout": (TimeoutError, BranchStatus.TIMED_OUT),
    "open": (lambda: CircuitOpenError("shard1", BreakerState.OPEN, 1.0), BranchStatus.REJECTED),
    "full": (lambda: BulkheadFullError("shard1", 4, 0.0), BranchStatus.REJECTED),
}
ENDS = {"value": BranchStatus.OK, "stale": BranchStatus.STALE} | {name: status for name, (_, status) in ERRORS.items()}


@dataclass(frozen=True)
class Plan:
    """What a branch does: work for `takes`, then end as planned; if cancelled, go on for `clings` more."""

    takes: float
    ends: str = "value"
    clings: float = 0.0

    async def ask(self) -> Any:
        try:
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            if not self.clings:
                raise
            await asyncio.sleep(self.clings)
            return -1  # swallows the cancellation
        if self.ends in ERRORS:
            raise ERRORS[self.ends][0]()
        if self.ends == "stale":
            return CallResult(7, ServedFrom.CACHE, 3.0, 2, None, "circuit")
        return 7


def expected(
    plans: Mapping[str, Plan], places: int, enough: int, bad_max: int
) -> tuple[dict[str, BranchStatus], float]:
    """How each branch ends, and when the answer is complete, computed event by event."""
    unbegun, working, ended = list(plans), dict[str, float](), dict[str, BranchStatus]()
    now, is_settled = 0.0, False
    while len(ended) < len(plans):
        while unbegun and len(working) < places:
            name = unbegun.pop(0)
            working[name] = now + plans[name].takes
        name = min(working, key=lambda one: working[one])
        if working[name] > CUT_OFF:
            now = CUT_OFF
            break
        now = working.pop(name)
        ended[name] = ENDS[plans[name].ends]
        good = sum(status.is_good for status in ended.values())
        if len(ended) < len(plans) and (good >= enough or len(ended) - good > bad_max):
            is_settled = True
            break
    stopped = BranchStatus.SKIPPED if is_settled else BranchStatus.TIMED_OUT
    late = {name: BranchStatus.ABANDONED if plans[name].clings >= GRACE else stopped for name in working}
    return {name: (ended | late).get(name, BranchStatus.SKIPPED) for name in plans}, now


async def gather(plans: Mapping[str, Ask], **options: Any) -> tuple[GatherResult[Any], float]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        result = await scatter_gather(
            plans, deadline=DEADLINE, clock=loop.time, reserve=RESERVE, grace=GRACE, **options
        )
    except IncompleteError as error:
        result = error.result
    return result, loop.time() - started


async def settled() -> None:
    """Wait until every abandoned branch has ended."""
    while still_running():
        await asyncio.sleep(1)


times = st.sampled_from([0.001, 0.5, 0.9, 1.5, 1.85, 1.87, 1.89, 2.0, 2.5, 60.0])
plans = st.builds(Plan, times, st.sampled_from(list(ENDS)), st.sampled_from([0.0, 0.01, 5.0]))


@given(
    st.lists(plans, min_size=1, max_size=8),
    st.none() | st.integers(1, 8),
    st.none() | st.integers(1, 8),
    st.integers(0, 8),
    st.booleans(),
)
def test_for_any_outcomes_and_timings_every_branch_is_reported_by_the_deadline(
    drawn: list[Plan], places: int | None, enough: int | None, demanded: int, fail_fast: bool
) -> None:
    apart = {f"b{n}": Plan(plan.takes + n * 1e-6, plan.ends, plan.clings) for n, plan in enumerate(drawn)}
    total, demanded = len(apart), min(demanded, len(apart))
    bad_max = total if not fail_fast else total - demanded if demanded else 0

    async def scenario() -> None:
        result, elapsed = await gather(
            {name: plan.ask for name, plan in apart.items()},
            max_concurrency=places,
            enough=enough,
            min_successful=demanded,
            fail_fast=fail_fast,
        )
        statuses, settled_at = expected(apart, places or total, enough or total, bad_max)
        assert {name: branch.status for name, branch in result.branches.items()} == statuses
        assert list(result.branches) == list(apart)
        assert elapsed <= min(settled_at + GRACE, DEADLINE - RESERVE) + 1e-9
        assert result.elapsed_s == elapsed
        assert result.values == {name: 7 for name, status in statuses.items() if status.is_good}
        assert [branch.name for branch in result.missing] == [name for name in apart if name not in result.values]
        assert result.complete == (not result.missing)
        for branch in result.branches.values():
            assert (branch.reason is None) == (branch.status is BranchStatus.OK)
            assert branch.started_s >= 0
            assert branch.started_s + branch.elapsed_s <= elapsed + 1e-9
        assert still_running() == sum(status is BranchStatus.ABANDONED for status in statuses.values())
        await settled()

    run(scenario())


def test_a_gathering_ends_once_all_branches_have_ended() -> None:
    _, elapsed = run(gather({"a": Plan(0.1).ask, "b": Plan(0.3, "error").ask}))
    assert elapsed == pytest.approx(0.3)


def test_the_first_good_answer_ends_the_gathering_and_cancels_the_others() -> None:
    plans = {"bad": Plan(0.1, "error"), "first": Plan(0.2), "second": Plan(0.4), "slow": Plan(9)}
    result, elapsed = run(gather({name: plan.ask for name, plan in plans.items()}, enough=1))
    assert elapsed == pytest.approx(0.2)
    assert result.values == {"first": 7}
    assert [branch.status for branch in result.missing] == [
        BranchStatus.FAILED,
        BranchStatus.SKIPPED,
        BranchStatus.SKIPPED,
    ]
    assert result.branches["slow"].reason == "there were enough answers without it"


async def demanding(plans: Mapping[str, Plan], **options: Any) -> tuple[IncompleteError, float]:
    loop = asyncio.get_running_loop()
    with pytest.raises(IncompleteError) as caught:
        await scatter_gather(
            {name: plan.ask for name, plan in plans.items()}, deadline=DEADLINE, clock=loop.time, **options
        )
    return caught.value, loop.time()


PART = {"a": Plan(0.1), "b": Plan(0.2, "error"), "c": Plan(0.3)}


def test_a_forbidden_partial_answer_is_an_error_that_carries_what_arrived() -> None:
    error, elapsed = run(demanding(PART, partial="forbid"))
    assert error.result.values == {"a": 7, "c": 7}
    assert elapsed == pytest.approx(0.3)
    assert str(error) == "2 good answers of 3, 3 required (b: shard1 is not reachable)"


def test_fail_fast_ends_the_gathering_once_the_demand_cannot_be_met() -> None:
    error, elapsed = run(demanding(PART, partial="forbid", fail_fast=True))
    assert elapsed == pytest.approx(0.2)
    assert error.result.branches["c"].status is BranchStatus.SKIPPED
    assert error.result.branches["c"].reason == "the demand could no longer be met"


def test_a_quorum_tolerates_as_many_failures_as_it_can() -> None:
    result, elapsed = run(gather({name: plan.ask for name, plan in PART.items()}, min_successful=2, fail_fast=True))
    assert result.values == {"a": 7, "c": 7}
    assert elapsed == pytest.approx(0.3)


@pytest.mark.parametrize(
    "options", [{"min_successful": 4}, {"min_successful": -1}, {"enough": 0}, {"max_concurrency": 0}], ids=repr
)
def test_an_impossible_demand_is_refused_before_any_branch_starts(options: dict[str, Any]) -> None:
    asked: list[int] = []

    async def ask() -> None:
        asked.append(1)

    with pytest.raises(ValueError, match=r"branches|at least 1"):
        run(gather({"a": ask, "b": ask, "c": ask}, **options))
    assert not asked


def test_at_most_max_concurrency_branches_work_at_once_begun_in_order() -> None:
    working: set[str] = set()
    begun: list[str] = []

    def branch(name: str) -> Ask:
        async def ask() -> int:
            working.add(name)
            begun.append(name)
            assert len(working) <= 2
            await asyncio.sleep(0.1)
            working.remove(name)
            return 7

        return ask

    result, elapsed = run(gather({name: branch(name) for name in "abcde"}, max_concurrency=2))
    assert begun == list("abcde")
    assert result.complete
    assert elapsed == pytest.approx(0.3)
    assert result.branches["e"].started_s == pytest.approx(0.2)


def test_a_branch_that_has_not_begun_by_the_cut_off_is_skipped() -> None:
    result, _ = run(gather({"a": Plan(9).ask, "b": Plan(0).ask}, max_concurrency=1))
    assert result.branches["b"].status is BranchStatus.SKIPPED
    assert result.branches["b"].reason == "not begun within 1.9 s"


def test_a_branch_does_not_see_the_context_of_another() -> None:
    mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="nobody's")
    seen: list[str] = []

    def branch(name: str) -> Ask:
        async def ask() -> int:
            seen.append(mine.get())
            mine.set(name)
            return 7

        return ask

    run(gather({name: branch(name) for name in "abc"}, max_concurrency=1))
    assert seen == ["nobody's"] * 3


def test_a_branch_knows_the_time_for_asking_as_the_current_deadline() -> None:
    left: list[float] = []

    async def ask() -> int:
        deadline = current_deadline()
        assert deadline is not None
        left.append(deadline.remaining())
        return 7

    run(gather({"a": ask}))
    assert left == [pytest.approx(CUT_OFF)]


def test_the_calls_of_a_policy_are_counted_with_or_without_a_value() -> None:
    def policy() -> ResiliencePolicy:
        config = ResilienceConfig(retry=RetryConfig(max_attempts=3, wait_duration=0.001, max_wait_duration=0.01))
        clock = asyncio.get_running_loop().time
        return ResiliencePolicy("p", config, clock=clock, random=Random(1), budget=RetryBudget(saved=10.0))

    async def fails() -> int:
        raise ConnectionError

    async def succeeds() -> int:
        return 7

    result, _ = run(
        gather(
            {
                "bad": lambda: policy().call(fails, idempotent=True),
                "good": lambda: policy().call(succeeds, idempotent=True),
                "plain": succeeds,
            }
        )
    )
    assert {name: branch.attempts for name, branch in result.branches.items()} == {"bad": 3, "good": 1, "plain": 1}
    assert result.values == {"good": 7, "plain": 7}


def test_an_error_caused_by_that_of_a_policy_gets_its_status() -> None:
    async def ask() -> int:
        raise ShardUnavailableError("shard1 is away") from CircuitOpenError("shard1", BreakerState.OPEN, 1.0)

    result, _ = run(gather({"shard1": ask}))
    assert result.branches["shard1"].status is BranchStatus.REJECTED
    assert result.branches["shard1"].attempts == 0
    assert result.branches["shard1"].reason == "shard1 is away"


def test_a_reason_has_the_text_of_our_errors_and_only_the_class_of_others() -> None:
    result, _ = run(gather({"shard1": Plan(0, "error").ask, "bug": Plan(0, "bug").ask, "slow": Plan(9).ask}))
    assert {branch.name: branch.reason for branch in result.missing} == {
        "shard1": "shard1 is not reachable",
        "bug": "ZeroDivisionError",
        "slow": "no answer within 1.9 s",
    }
    assert isinstance(result.branches["bug"].error, ZeroDivisionError)


def test_a_branch_that_raises_before_its_first_await_has_failed_like_any_other() -> None:
    def broken() -> Awaitable[int]:
        raise ZeroDivisionError

    result, _ = run(gather({"broken": broken, "good": Plan(0.1).ask}))
    assert result.branches["broken"].status is BranchStatus.FAILED
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


@pytest.mark.parametrize("clings", [0.0, 5.0])
def test_a_cancelled_caller_cancels_every_branch_and_stays_cancelled(clings: float) -> None:
    ended: list[str] = []

    async def note(name: str) -> int:
        try:
            await Plan(60, clings=clings).ask()
        finally:
            ended.append(name)
        return 7

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        call = asyncio.create_task(gather({"a": lambda: note("a"), "b": lambda: note("b"), "c": Plan(0).ask}))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert loop.time() <= 0.5 + GRACE + 1e-9
        assert ended == ([] if clings else ["a", "b"])
        assert still_running() == (2 if clings else 0)
        await settled()

    run(scenario())


def test_a_gathering_leaves_nothing_to_the_garbage_collector() -> None:
    async def scenario() -> None:
        plans = {"good": Plan(0.1), "bad": Plan(0.2, "error"), "slow": Plan(9), "stubborn": Plan(9, clings=3)}
        for _ in range(3):  # what is made only once exists by then
            await gather({name: plan.ask for name, plan in plans.items()})
            await settled()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(20):
            await gather({name: plan.ask for name, plan in plans.items()})
            await settled()
        gc.collect()
        assert len(gc.get_objects()) - before < 40

    run(scenario())


def test_a_gathering_that_is_over_leaves_no_timer() -> None:
    async def scenario() -> None:
        await gather({"a": Plan(0.1).ask})
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    run(scenario())


def test_the_grace_of_a_short_gathering_is_a_tenth_of_it() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        result = await scatter_gather({"a": Plan(0.08).ask}, deadline=0.1, clock=clock, grace=0.05)
        assert result.complete

    run(scenario())


def test_a_gathering_without_branches_is_complete_at_once() -> None:
    result, elapsed = run(gather({}))
    assert (result.total, result.complete, elapsed) == (0, True, 0)


@pytest.mark.slow
def test_the_program_on_the_page_prints_what_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "scatter-gather.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    said = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)[0]
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == (said, "")
