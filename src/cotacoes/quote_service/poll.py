"""The poll: asks the source for the newest price of every coin, once per interval, and never twice at a time.

Hands on each answer to `Intake` (intake.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from cotacoes.errors import LogUnavailableError, SourceError
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.resilience import CircuitOpenError
from cotacoes.quote_service.intake import Intake
from cotacoes.quote_service.source_quote import Fetched


class QuoteSource(Protocol):
    """A source of the newest prices."""

    async def fetch(self) -> Fetched:
        """The newest price of every coin; SourceError if there is no answer."""


class Poll:
    """The poll of one source; `run` is its task. `clock` gives monotonic seconds."""

    def __init__(
        self,
        source: QuoteSource,
        intake: Intake,
        metrics: QuoteMetrics,
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._intake = intake
        self._metrics = metrics
        self._interval_s = interval_s
        self._clock = clock

    async def run(self) -> None:
        """Poll at the interval until cancelled; a late poll is not made up for."""
        due = self._clock()
        while True:
            await self.poll_once()
            now = self._clock()
            due = max(due + self._interval_s, now)
            await asyncio.sleep(due - now)

    async def poll_once(self) -> None:
        """Do one round. If it fails, the current quotes age; the failure is counted and logged already."""
        try:
            fetched = await self._intake.call(self._source.fetch)
            await self._record(fetched)
        except (SourceError, CircuitOpenError, TimeoutError, LogUnavailableError):
            self._intake.note_live((), {})

    async def _record(self, fetched: Fetched) -> None:
        began = self._clock()
        await self._intake.recorder.ensure_open()
        accepted, unchanged = await self._intake.validate(fetched.observations, fetched.unreadable, fetched.unknown)
        recorded = await self._intake.record(accepted)
        live = unchanged | {quote.coin for quote in recorded}
        self._intake.note_live(live - fetched.reasons.keys(), fetched.reasons)
        if recorded:
            self._metrics.record_duration.observe(self._clock() - began)
