"""The poll: policy(fetch) → screen → record → hand on, once per interval, and never two at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from cotacoes.errors import LogUnavailableError, SourceError
from cotacoes.model.quote import Observation, Quote
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.resilience import CircuitOpenError, ResiliencePolicy
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.source import STEP_COINS, Fetched
from cotacoes.quote_service.validation import Refusals, Validator


class Source(Protocol):
    """Where prices come from."""

    async def fetch(self) -> Fetched:
        """All coins' prices of now; SourceError where there are none."""


class Poll:
    """One source's poll loop; `live` are the coins of which the last poll brought a good price."""

    def __init__(
        self,
        source: Source,
        calls: ResiliencePolicy,
        screen: Validator,
        recorder: Recorder,
        metrics: QuoteMetrics,
        *,
        interval_s: float,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        on_recorded: Callable[[list[Quote]], None],
    ) -> None:
        self.live: frozenset[str] = frozenset()
        self._source = source
        self._calls = calls
        self._screen = screen
        self._recorder = recorder
        self._metrics = metrics
        self._interval_s = interval_s
        self._now = now
        self._clock = clock
        self._on_recorded = on_recorded
        self.refusals = Refusals(recorder.histories, metrics)

    async def run(self) -> None:
        """Poll at the interval until cancelled; a late poll is not made up for."""
        due = self._clock()
        while True:
            await self.poll_once()
            now = self._clock()
            due = max(due + self._interval_s, now)
            await asyncio.sleep(due - now)

    async def poll_once(self) -> None:
        """One round; every failure is counted, and ends with the old prices ageing."""
        try:
            fetched = (await self._calls.call(self._source.fetch, idempotent=True)).value
        except (SourceError, CircuitOpenError, TimeoutError):
            self.live = frozenset()
            return
        started = self._clock()
        try:
            await self._recorder.ensure_open()
            accepted, unchanged = await self._judge(fetched)
            recorded = await self._recorder.record({coin: [observed] for coin, observed in accepted.items()})
        except LogUnavailableError:
            self.live = frozenset()  # counted and logged where it failed; the current quotes age
            return
        self.live = frozenset(unchanged | {quote.coin for quote in recorded})
        if recorded:
            self._metrics.record_duration.observe(self._clock() - started)
            self._on_recorded(recorded)

    async def _judge(self, fetched: Fetched) -> tuple[dict[str, Observation], set[str]]:
        """What is to be recorded, by coin, and the coins whose price is the one already recorded."""
        now = self._now()
        refused = Counter(fetched.rejected)
        facts: dict[tuple[str, str], Mapping[str, str]] = {}
        accepted: dict[str, Observation] = {}
        unchanged = set()
        for number, observation in enumerate(fetched.observations):
            if number % STEP_COINS == 0:
                await asyncio.sleep(0)
            coin = observation.coin
            history = self._recorder.histories.get(coin)
            refusal = self._screen.judge(observation, None if history is None else history.recent, now)
            if refusal is None:
                accepted[coin] = observation
                continue
            refused[coin, refusal.reason] += 1
            facts[coin, refusal.reason] = refusal.facts
            if refusal.reason == "not_new":
                unchanged.add(coin)
        self.refusals.count(refused, facts, unknown=fetched.unknown)
        return accepted, unchanged
