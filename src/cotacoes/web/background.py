"""Background tasks that live as long as a service's resources, and are restarted after an unexpected failure.

The owner of the work decides whether it may be restarted. It may if all its state is elsewhere (the log, a shard, a
clock), or is read anew at each start. If its memory may be wrong after a failure and other work depends on it, the
process must end instead, so that its supervisor starts it again. A SettingError always ends the work, since only a
person can fix it, and so does a newer writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

from cotacoes.errors import SettingError, WriterSupersededError, error_in, setting_error_in
from cotacoes.observability.logs import FailureLog
from cotacoes.patterns.resilience.backoff import Backoff

if TYPE_CHECKING:
    from cotacoes.observability.metrics import Metrics

PAUSE_S = 0.2  # minimum before each restart
PAUSE_MOST_S = 30.0
STEADY_S = 60.0  # work that ran this long had recovered: the next pause is short again


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.TaskGroup]:
    """Run coroutines beside the body; they are cancelled at its end, and one that fails ends the body.

    A SettingError of one of them is raised as it is, other errors in an ExceptionGroup.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(not_cancelled_by_itself(coroutine)) for coroutine in coroutines]
            try:
                await asyncio.sleep(0)  # let all begin: a task that is cancelled before would never be awaited
                yield group
            finally:
                for task in tasks:
                    task.cancel()
    except ExceptionGroup as several:
        raise setting_error_in(several) or several from None


async def not_cancelled_by_itself(work: Awaitable[None]) -> None:
    """Raise RuntimeError if the work is cancelled from within, which a task group would take for a normal end."""
    try:
        await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("a background task was cancelled from within") from error


class Restarts:
    """Restarts background work. `clock` returns monotonic seconds."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._restarts = metrics.background_restarts
        self._random = random or SystemRandom()
        self._clock = clock
        self._sleep = sleep
        self._failures = FailureLog()

    async def kept(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run the work until it ends by itself. `task` is its name in the log and in the metric."""
        backoff = Backoff(self._random, first_s=PAUSE_S, most_s=PAUSE_MOST_S)
        while True:
            began = self._clock()
            try:
                await not_cancelled_by_itself(work())
                return
            except Exception as error:
                if ending := error_in(error, (SettingError, WriterSupersededError)):
                    raise ending from None
                self._failures.note("task.failed", error, task=task)
            self._restarts.labels(task=task).inc()
            if self._clock() - began > STEADY_S:
                backoff.reset()
            await self._sleep(PAUSE_S + backoff.next_s())
