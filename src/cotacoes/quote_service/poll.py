"""The poll: retry(breaker(fetch)) → screen → record → hand on, once per interval, and never two at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Protocol

from cotacoes.adapters.source_http import Fetched
from cotacoes.errors import LogUnavailableError, SourceError, SourceUnavailableError
from cotacoes.patterns.circuit_breaker import CircuitBreaker, CircuitOpenError, Verdict
from cotacoes.patterns.retry import RetryBudget, RetryPolicy, new_retrying
from cotacoes.quote import Observation, Quote
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.screen import Screen
from cotacoes.telemetry import QuoteMetrics, get_logger

RETRY_AFTER_MAX_S = 300.0
ROUND_MARGIN_S = 0.05  # so that a hanging fetch ends by its own deadline, which is evidence, not by the round's


class Source(Protocol):
    """Where prices come from."""

    async def fetch(self) -> Fetched:
        """All coins' prices of now; SourceError where there are none."""


class Poll:
    """One source's poll loop; `live` are the coins of which the last poll brought a good price."""

    def __init__(
        self,
        source: Source,
        breaker: CircuitBreaker,
        screen: Screen,
        recorder: Recorder,
        metrics: QuoteMetrics,
        *,
        interval_s: float,
        deadline_s: float,
        retry: RetryPolicy,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        random: Random,
        on_recorded: Callable[[list[Quote]], None],
    ) -> None:
        self.live: frozenset[str] = frozenset()
        self._source = source
        self._breaker = breaker
        self._screen = screen
        self._recorder = recorder
        self._metrics = metrics
        self._interval_s = interval_s
        self._deadline_s = max(interval_s, deadline_s + ROUND_MARGIN_S)
        self._retry = retry
        self._budget = RetryBudget()
        self._now = now
        self._clock = clock
        self._random = random
        self._on_recorded = on_recorded
        self._poisoned: frozenset[tuple[str, str]] = frozenset()

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
            async with asyncio.timeout(self._deadline_s):
                fetched = await self._fetch_with_retry()
        except (SourceError, CircuitOpenError, TimeoutError):
            self.live = frozenset()
            return
        started = self._clock()
        try:
            await self._recorder.ensure_open()
            accepted, unchanged = self._judge(fetched)
            recorded = await self._recorder.record({coin: [observed] for coin, observed in accepted.items()})
        except LogUnavailableError:
            self.live = frozenset()  # counted and logged where it failed; the current quotes age
            return
        self.live = frozenset(unchanged | {quote.coin for quote in recorded})
        if recorded:
            self._metrics.record_seconds.observe(self._clock() - started)
            self._on_recorded(recorded)

    async def _fetch_with_retry(self) -> Fetched:
        retrying = new_retrying(self._retry, self._budget, _is_retryable, self._random)
        fetched: Fetched = await retrying(self._fetch)
        return fetched

    async def _fetch(self) -> Fetched:
        try:
            permit = self._breaker.acquire()
        except CircuitOpenError:
            self._metrics.fetches.labels(outcome="not_permitted").inc()
            raise
        verdict = Verdict.IGNORED
        try:
            fetched = await self._source.fetch()
            verdict = Verdict.SUCCESS
        except SourceError as error:
            verdict = Verdict.FAILURE
            self._metrics.fetches.labels(outcome=type(error).__name__).inc()
            permit.settle(verdict)
            if isinstance(error, SourceUnavailableError) and error.retry_after_s:
                self._breaker.open_for(min(error.retry_after_s, RETRY_AFTER_MAX_S))
            raise
        finally:
            permit.settle(verdict)
        self._metrics.fetches.labels(outcome="ok").inc()
        return fetched

    def _judge(self, fetched: Fetched) -> tuple[dict[str, Observation], set[str]]:
        """What is to be recorded, by coin, and the coins whose price is the one already recorded."""
        now = self._now()
        refused = Counter(fetched.rejected)
        accepted: dict[str, Observation] = {}
        unchanged = set()
        for observation in fetched.observations:
            history = self._recorder.histories.get(observation.coin)
            reason = self._screen.judge(observation, None if history is None else history.newest, now)
            if reason is None:
                accepted[observation.coin] = observation
            else:
                refused[observation.coin, reason] += 1
            if reason == "not_new":
                unchanged.add(observation.coin)
        self._count(refused)
        return accepted, unchanged

    def _count(self, refused: Counter[tuple[str, str]]) -> None:
        known = self._recorder.histories
        for (coin, reason), count in refused.items():
            self._metrics.screened.labels(coin=coin if coin in known else "other", reason=reason).inc(count)
        poison = frozenset((coin, reason) for coin, reason in refused if reason != "not_new")
        for coin, reason in sorted(poison - self._poisoned)[:10]:
            get_logger().warning("price.refused", coin=coin if coin in known else "other", reason=reason)
        self._poisoned = poison


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, SourceUnavailableError) and not error.retry_after_s
