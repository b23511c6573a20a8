"""Scatter/gather: one question to many sources, one honest answer by the deadline.

All branches are asked at the same time, each in a task of its own. At the cut-off the answer consists of what has
arrived, and names what has not, with the reason. The plan is fixed before anything starts, so no branch can get lost:

    branch                                                       status
    returned a value in time                                     ok
    returned an earlier value, since its policy fell back        stale
    raised in time, a cancellation of its own included           failed
    raised because its own time was up                           timed_out
    raised because its policy let no call through                rejected
    was at work at the cut-off, was cancelled, and ended         timed_out
    the same, or had not begun, when the answer was complete     skipped
    was cancelled and did not stop                               abandoned

Invariants:

* The answer is there by the deadline, however stubborn a branch is. `reserve` is the part of the deadline in which the
  caller makes something of the answer, and `grace` the part in which cancelled branches can end; no branch is waited
  for beyond it (a TaskGroup would wait).
* Branches never cancel each other; if the caller is cancelled, all of them are.
* What arrives after the cut-off does not count, so a branch that turns its cancellation into half an answer is not ok.
* Nothing outlives the call unseen: `still_running()` counts abandoned branches until they end, and they are held.
* The result has the order of the plan, whichever branch ends first.

`clock` measures the time and the event loop waits for it: both in seconds, both monotonic. Inside a branch the time for
asking is the current `Deadline`, so a policy or a service that is called there knows it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from cotacoes.errors import CotacoesError
from cotacoes.patterns.resilience.breaker_events import CircuitOpenError
from cotacoes.patterns.resilience.bulkhead import BulkheadFullError
from cotacoes.patterns.resilience.classification import Outcome, classify
from cotacoes.patterns.resilience.deadline import Deadline
from cotacoes.patterns.resilience.policy import CallResult, ServedFrom
from cotacoes.patterns.resilience.retry import count_attempts
from cotacoes.patterns.scatter_gather.gather_result import Branch, BranchStatus, GatherResult, IncompleteError

T = TypeVar("T")

GRACE_S = 0.02  # a branch needs a few turns of the event loop to end
GRACE_SHARE_MAX = 0.1

_NOT_LET_THROUGH = (CircuitOpenError, BulkheadFullError)
_OUT_OF_TIME = frozenset({Outcome.TIMED_OUT, Outcome.CALLER_DEADLINE})
_abandoned: set[asyncio.Task[Any]] = set()


def still_running() -> int:
    """The number of cancelled branches, of all calls in this process, that have not ended yet."""
    return len(_abandoned)


async def scatter_gather(
    branches: Mapping[str, Callable[[], Awaitable[T | CallResult[T]]]],
    *,
    deadline: float,
    clock: Callable[[], float],
    reserve: float = 0.0,
    grace: float = GRACE_S,
    min_successful: int = 0,
    partial: Literal["allow", "forbid"] = "allow",
    fail_fast: bool = False,
    enough: int | None = None,
    max_concurrency: int | None = None,
) -> GatherResult[T]:
    """Ask all `branches`; return how each ended, once all have or after `deadline` less `reserve` seconds.

    min_successful     the number of good answers that is demanded; `partial="forbid"` demands all
    fail_fast          end as soon as the demand cannot be met; without a demand, at the first that is not good
    enough             end as soon as so many answers are good; 1 is "the first good answer"
    max_concurrency    the number of branches at work at the same time, begun in the order of the plan

    `grace`, at most a tenth of the time, is the part of it in which cancelled branches can end. If a branch returns a
    `CallResult`, its status follows from that. Raises IncompleteError if the demand is not met, and ValueError if it
    never could be.
    """
    plan = dict(branches)
    demanded = len(plan) if partial == "forbid" else min_successful
    if not 0 <= demanded <= len(plan):
        raise ValueError(f"min_successful must be from 0 to the number of branches ({len(plan)}), not {demanded}")
    for name, given in (("enough", enough), ("max_concurrency", max_concurrency)):
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1, not {given}")
    available = max(0.0, deadline - reserve)
    bad_max = len(plan)
    if fail_fast:
        bad_max = len(plan) - demanded if demanded else 0
    gathering = _Gathering(
        plan,
        available,
        clock,
        grace=min(grace, available * GRACE_SHARE_MAX),
        enough=len(plan) if enough is None else enough,
        bad_max=bad_max,
        places=max_concurrency or len(plan),
    )
    result = await gathering.run()
    if len(result.values) < demanded:
        raise IncompleteError(result, demanded)
    return result


@dataclass
class _Gathering(Generic[T]):
    """One gathering. It is over with its last branch, with enough good or too many other ones, or at the cut-off."""

    plan: Mapping[str, Callable[[], Awaitable[T | CallResult[T]]]]
    available: float
    clock: Callable[[], float]
    grace: float
    enough: int
    bad_max: int
    places: int

    def __post_init__(self) -> None:
        self._unbegun: Iterator[str] = iter(self.plan)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, float] = {}
        self._ended: dict[str, Branch[T]] = {}
        self._good = 0
        self._why: str | None = None  # it was complete before all branches had ended

    async def run(self) -> GatherResult[T]:
        loop = asyncio.get_running_loop()
        self._started = self.clock()
        self._over: asyncio.Future[None] = loop.create_future()
        asking_s = self.available - self.grace
        with Deadline.after(asking_s, self.clock).scope():
            self._context = contextvars.copy_context()
        self._fill_places()
        self._finish_if_settled()
        cut_off = loop.call_later(asking_s, self._finish, None)
        try:
            await self._over
        finally:
            cut_off.cancel()
            self._finish(None)
            late = [task for name, task in self._tasks.items() if name not in self._ended]
            if late:
                await self._end_late(late)
        elapsed_s = self.clock() - self._started
        branches = {name: self._ended.get(name) or self._late(name) for name in self.plan}
        return GatherResult(branches, elapsed_s)

    def _fill_places(self) -> None:
        while self.places and (name := next(self._unbegun, None)) is not None:
            self.places -= 1
            ask = self._ask(name, self.plan[name])
            self._tasks[name] = asyncio.create_task(ask, context=self._context.copy())

    async def _ask(self, name: str, ask: Callable[[], Awaitable[T | CallResult[T]]]) -> None:
        started = self._begun[name] = self.clock()
        counter = count_attempts()
        status, value, error, reason = BranchStatus.OK, None, None, None
        try:
            value = await ask()
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            status, reason = BranchStatus.FAILED, _reason(cancelled)  # something cancelled itself
        except Exception as raised:  # whatever it is, it is the end of this branch
            status, error, reason = _status_of(raised), raised, _reason(raised)
        if self._over.done():
            return  # too late
        attempts = counter.attempts or int(status is not BranchStatus.REJECTED)
        if isinstance(value, CallResult):
            status = BranchStatus.STALE if value.served_from is ServedFrom.CACHE else BranchStatus.OK
            value, attempts, reason = value.value, value.attempts, value.reason
        now = self.clock()
        self._ended[name] = Branch(name, status, started - self._started, now - started, attempts, value, error, reason)
        self._good += status.is_good
        self.places += 1
        self._finish_if_settled()
        if not self._over.done():
            self._fill_places()

    def _finish_if_settled(self) -> None:
        """End the gathering if no further branch can change the answer."""
        if len(self._ended) == len(self.plan):
            self._finish(None)
        elif self._good >= self.enough:
            self._finish("there were enough answers without it")
        elif len(self._ended) - self._good > self.bad_max:
            self._finish("the demand could no longer be met")

    def _finish(self, why: str | None) -> None:
        if not self._over.done():
            self._why = why
            self._over.set_result(None)

    async def _end_late(self, late: list[asyncio.Task[None]]) -> None:
        for task in late:
            _abandoned.add(task)
            task.add_done_callback(_abandoned.discard)
            task.cancel()
        await asyncio.wait(late, timeout=self.grace)

    def _late(self, name: str) -> Branch[T]:
        now, begun = self.clock(), self._begun.get(name)
        if begun is None:
            why = self._why or f"not begun within {self.available:g} s"
            return Branch(name, BranchStatus.SKIPPED, now - self._started, 0.0, 0, reason=why)
        why = self._why or f"no answer within {self.available:g} s"
        if not self._tasks[name].done():
            status, why = BranchStatus.ABANDONED, f"{why}, and it does not stop"
        else:
            status = BranchStatus.TIMED_OUT if self._why is None else BranchStatus.SKIPPED
        return Branch(name, status, begun - self._started, now - begun, 1, reason=why)


def _status_of(error: Exception) -> BranchStatus:
    """The status by the error itself, or by the error of a policy that caused it."""
    for one in (error, error.__cause__):
        if isinstance(one, _NOT_LET_THROUGH):
            return BranchStatus.REJECTED
        if one is not None and classify(one).outcome in _OUT_OF_TIME:
            return BranchStatus.TIMED_OUT
    return BranchStatus.FAILED


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, CotacoesError) else type(error).__name__
