"""Restarts: background work that fails unexpectedly is started again after a pause, and counted.

The owner of the work decides whether it may be restarted. It may if all its state is elsewhere (the log, a shard, a
clock), or is read anew at each start. If its memory may be wrong after a failure and other work depends on it, the
process must end instead, so that its supervisor starts it again. A SettingError always ends the work, since only a
person can fix it, and so does a newer writer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random, SystemRandom

from cotacoes.errors import SettingError, WriterSupersededError, error_in
from cotacoes.observability.logs import FailureLog
from cotacoes.observability.metrics import Metrics, RestartMetrics
from cotacoes.patterns.resilience.backoff import Backoff
from cotacoes.web.background import not_cancelled_by_itself

PAUSE_S = 0.2  # minimum before each restart
PAUSE_MOST_S = 30.0
STEADY_S = 60.0  # work that ran this long had recovered: the next pause is short again


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
        self._restarts = RestartMetrics(metrics).restarts
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
