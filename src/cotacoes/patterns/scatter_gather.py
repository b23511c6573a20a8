"""Scatter/gather: one question to everyone, one honest answer by the deadline.

Everyone is asked at once, each in a task of its own. At the deadline the answer is made of what came, and it names what
did not, and why. The plan is fixed before anything starts, so that nobody can go missing from it:

    branch                                                    status
    brought a value in time                                   ok
    raised in time, a cancellation of its own included        failed
    was still at work, was cancelled, and ended               timed_out
    was cancelled and went on all the same                    abandoned

Invariants:

* the answer is there by the deadline, however stubborn a branch: the last `grace` of it is for those that are cancelled
  to end in, and nobody is waited for beyond it (a TaskGroup would wait);
* siblings never cancel each other; a caller that is cancelled cancels all of them;
* what came after the cut-off does not count, so a branch that turns its cancellation into half an answer is not `ok`;
* nothing outlives the call unseen: `still_running()` counts the abandoned until they end, and holds them till then;
* the result is in the order of the plan, whatever came first.

Time is counted by `clock` and waited for by the event loop: both in seconds, both monotonic.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from cotacoes.errors import CotacoesError

T = TypeVar("T")

GRACE_S = 0.02  # ending takes a few turns of the event loop
GRACE_SHARE_MAX = 0.1

_abandoned: set[asyncio.Task[Any]] = set()


class Status(enum.StrEnum):
    """How a branch ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Branch(Generic[T]):
    """One branch's end. `value` where it is ok, `error` where it failed, `reason` in words where it is not ok.

    `reason` is fit for a caller's eyes: the words of our own errors, of others only the name of their class.
    """

    name: str
    status: Status
    elapsed_s: float
    value: T | None = None
    error: Exception | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class GatherResult(Generic[T]):
    """How every branch of the plan ended, in its order."""

    branches: Mapping[str, Branch[T]]
    elapsed_s: float

    @property
    def total(self) -> int:
        """How many were asked."""
        return len(self.branches)

    @property
    def values(self) -> dict[str, T]:
        """What those that are ok brought."""
        ok = (branch for branch in self.branches.values() if branch.status is Status.OK)
        return {branch.name: cast(T, branch.value) for branch in ok}

    @property
    def missing(self) -> list[Branch[T]]:
        """Those that are not ok."""
        return [branch for branch in self.branches.values() if branch.status is not Status.OK]

    @property
    def complete(self) -> bool:
        """Whether all are ok."""
        return not self.missing


def still_running() -> int:
    """How many cancelled branches, of all calls in this process, have not ended yet."""
    return len(_abandoned)


async def scatter_gather(
    branches: Mapping[str, Callable[[], Awaitable[T]]],
    *,
    deadline: float,
    clock: Callable[[], float],
    grace: float = GRACE_S,
) -> GatherResult[T]:
    """Ask all `branches` at once; `deadline` seconds later, or when all have ended, say how each of them did.

    `grace`, at most a tenth of the deadline, is the part of it that cancelled branches have to end in.
    """
    started = clock()
    grace = min(grace, deadline * GRACE_SHARE_MAX)
    tasks = {
        name: asyncio.create_task(_ask(name, ask, clock), name=f"scatter {name}") for name, ask in branches.items()
    }
    in_time: set[asyncio.Task[Branch[T]]] = set()
    try:
        if tasks:
            in_time, _ = await asyncio.wait(tasks.values(), timeout=max(0.0, deadline - grace))
    finally:
        late = [task for task in tasks.values() if task not in in_time and not task.done()]
        _cancel(late)
        if late:
            await asyncio.wait(late, timeout=grace)
    elapsed_s = clock() - started
    ended = {
        name: task.result() if task in in_time else _late(name, task, elapsed_s, deadline)
        for name, task in tasks.items()
    }
    return GatherResult(ended, elapsed_s)


async def _ask(name: str, ask: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> Branch[T]:
    started = clock()
    try:
        value = await ask()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Branch(name, Status.FAILED, clock() - started, reason=_reason(error))  # something cancelled itself
    except Exception as error:  # told to the caller as this branch's end, whatever it is
        return Branch(name, Status.FAILED, clock() - started, error=error, reason=_reason(error))
    return Branch(name, Status.OK, clock() - started, value=value)


def _late(name: str, task: asyncio.Task[Any], elapsed_s: float, deadline: float) -> Branch[Any]:
    if task.done():
        return Branch(name, Status.TIMED_OUT, elapsed_s, reason=f"no answer within {deadline:g} s")
    return Branch(name, Status.ABANDONED, elapsed_s, reason=f"no answer within {deadline:g} s, and it does not stop")


def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        _abandoned.add(task)
        task.add_done_callback(_abandoned.discard)
        task.cancel()


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, CotacoesError) else type(error).__name__
