"""The intake: how the prices of one answer of the source become quotes. `poll.py` and `tape.py` fetch the answers.

    poll, tape ──▶ call (policy) ──▶ validate ──▶ record ──▶ on_recorded ──▶ delivery of each coin
                                                                      └────▶ publisher

Recording ends with the commit in the log; what happens to a quote from there on is decided by its coin's `Delivery`
(delivery.py) and by the `Publisher` (publisher.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from cotacoes.model.payloads import BreakerStateText
from cotacoes.model.quote import Observation, Quote, utc_now
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.resilience import ResiliencePolicy
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recent_prices import RecentPrices
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.source_quote import STEP_PRICES
from cotacoes.quote_service.validation import Rejections, Validator

T = TypeVar("T")


class Intake:
    """See the head of this file. `policy` is that of the source; `deliveries` may become more."""

    def __init__(
        self,
        recorder: Recorder,
        *,
        policy: ResiliencePolicy,
        validator: Validator,
        publisher: Publisher,
        deliveries: Mapping[str, Delivery],
        metrics: QuoteMetrics,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recorder = recorder
        self._policy = policy
        self._validator = validator
        self._publisher = publisher
        self._deliveries = deliveries
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._live: frozenset[str] = frozenset()
        self._reasons: Mapping[str, str] = {}
        self._rejections = Rejections(recorder.histories, metrics)

    @property
    def breaker_state(self) -> BreakerStateText:
        """The state of the circuit breaker in front of the source."""
        assert self._policy.breaker is not None
        return self._policy.breaker.state.value

    def is_live(self, coin: str) -> bool:
        """Whether the source's last answer had a good price of the coin."""
        return coin in self._live

    def why_no_price(self, coin: str) -> str | None:
        """Why the source has no price of the coin, or why its last one was rejected, in words, if so."""
        if coin in self._reasons:
            return f"the source has no price of it now ({self._reasons[coin]})"
        return self._rejections.reason_of(coin)

    def note_live(self, coins: Iterable[str], reasons: Mapping[str, str]) -> None:  # only read
        """The source has good prices of these coins; of none if it failed. `reasons` says why it has none of others."""
        self._live = frozenset(coins)
        self._reasons = reasons

    async def call(self, fetch: Callable[[], Awaitable[T]]) -> T:
        """Ask the source, by its policy; SourceError, CircuitOpenError or TimeoutError if no answer comes."""
        return (await self._policy.call(fetch, idempotent=True)).value

    async def validate(
        self, observations: Iterable[Observation], unreadable: Iterable[tuple[str, str]], unknown: int
    ) -> tuple[dict[str, list[Observation]], set[str]]:
        """What is to be recorded, by coin; and the coins whose price is the one already recorded.

        Each price is judged after those before it in the same answer. The rest is counted by reason: the prices
        rejected here, the `unreadable` ones (coin and reason), and how many are of `unknown` coins.
        """
        now = self._now()
        rejected = Counter(unreadable)
        facts: dict[tuple[str, str], Mapping[str, str]] = {}
        recents: dict[str, RecentPrices] = {}  # with what this answer adds
        accepted: dict[str, list[Observation]] = {}
        unchanged = set()
        for number, observation in enumerate(observations):
            if number % STEP_PRICES == 0:
                await asyncio.sleep(0)
            coin = observation.coin
            recent = recents.get(coin) or self._recent(coin)
            rejection = self._validator.judge(observation, recent, now)
            if recent is not None and rejection is None:
                accepted.setdefault(coin, []).append(observation)
                recent = recents[coin] = recents.get(coin) or recent.copy()
                recent.add(observation, recent.recorded_at(observation.observed_at, now))
            elif rejection is not None:
                rejected[coin, rejection.reason] += 1
                facts[coin, rejection.reason] = rejection.facts
                if rejection.reason == "not_new":
                    unchanged.add(coin)
        self._rejections.count(rejected, facts, unknown=unknown)
        return accepted, unchanged

    async def record(
        self, accepted: Mapping[str, Sequence[Observation]], cursors: Mapping[str, str] | None = None
    ) -> list[Quote]:
        """Commit these to the log, see `Recorder.record`, and hand on the quotes that they became."""
        recorded = await self.recorder.record(accepted, cursors)
        if recorded:
            self.on_recorded(recorded)
        return recorded

    def on_recorded(self, quotes: Sequence[Quote]) -> None:
        """The log has committed these: they are published, and delivered each by its coin's delivery."""
        self._publisher.on_recorded(quotes)
        for coin, count in Counter(quote.coin for quote in quotes).items():
            self._metrics.quotes_recorded.labels(coin=coin).inc(count)
            self._deliveries[coin].wake()

    async def wait_room(self, quotes: int) -> None:
        """Return when so many more quotes fit into the publisher's queues."""
        await self._publisher.wait_room(quotes)

    def _recent(self, coin: str) -> RecentPrices | None:
        history = self.recorder.histories.get(coin)
        return None if history is None else history.recent
