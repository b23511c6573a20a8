"""quote_service without its sockets: its parts wired over a real log and fakes in memory, for one coin."""

import asyncio
import contextlib
import functools
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.unit.harness_directory import directory_over

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.model.quote import AgeLimits, Observation, Position, Quote
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.patterns.resilience import CircuitBreaker, CircuitBreakerConfig, ResilienceConfig, ResiliencePolicy
from cotacoes.quote_service.answers import Answers
from cotacoes.quote_service.delivery import RETRY_WAIT_MAX_S, RETRY_WAIT_S, Delivery, Pace
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.intake import Intake
from cotacoes.quote_service.poll import Poll
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recent_prices import JumpLimit
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.source_pages import TapePage
from cotacoes.quote_service.source_quote import Fetched
from cotacoes.quote_service.tape import TapeReader
from cotacoes.quote_service.validation import Validator
from cotacoes.quote_service.writer import Writer
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.background import background

COIN = "bitcoin"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTA = 2**30
IMPATIENT = functools.partial(QuoteLog, deadline_s=0.5)  # with a hanging disk


def source_policy(dice: random.Random, clock: Callable[[], float]) -> ResiliencePolicy:
    """A policy like the one by which quote_service calls its source."""
    config = CircuitBreakerConfig(
        consecutive_failures_threshold=5, wait_duration_in_open=3.0, permitted_calls_in_half_open=2
    )
    breaker = CircuitBreaker("source", config, clock=clock, random=dice)
    return ResiliencePolicy("source", ResilienceConfig(), clock=clock, random=dice, breaker=breaker)


class QuoteServiceCore:
    """The wired parts of quote_service for one coin on `shard`; the wall clock stands still until it is set.

    Each commit waits until the event `disk_goes_on` is set.
    """

    def __init__(
        self,
        folder: Path,
        shard: MemoryShard | None = None,
        *,
        log: Callable[..., QuoteLog] = QuoteLog,
        quota_bytes: int = QUOTA,
        keeps_times: bool = False,
        accepts_clock: bool = False,
        deadline_s: float = 1.0,
        wall: datetime = NOON,
        retry_s: float = RETRY_WAIT_S,
        retry_max_s: float = RETRY_WAIT_MAX_S,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.wall = wall
        self.seconds = 1000.0
        self.shard = shard or MemoryShard("shard1", [COIN])
        self.bus = MemoryBus()
        self.said: list[Observation] | Exception = []
        self.metrics = Metrics()
        metrics = QuoteMetrics(self.metrics)
        dice = random.Random(1)
        self.history = CoinHistory(COIN, "shard1", now=lambda: self.wall, clock=lambda: self.seconds)
        self.directory = directory_over({"shard1": self.shard}, {COIN: "shard1"})
        self.writer = Writer(lambda: None)
        self.disk_goes_on = threading.Event()
        self.disk_goes_on.set()
        self.recorder = Recorder(
            functools.partial(log, folder, quota_bytes=quota_bytes, now=self._when_committed),
            self.directory,
            writer=self.writer,
            metrics=metrics,
            now=lambda: self.wall,
            accepts_clock=accepts_clock,
        )
        histories = self.recorder.histories
        histories[COIN] = self.history
        self.publisher = Publisher(
            histories, self.bus, writer=self.writer, metrics=metrics, wait_s=0.05, now=lambda: self.wall
        )
        self.delivery = Delivery(
            self.history,
            directory=self.directory,
            recorder=self.recorder,
            publisher=self.publisher,
            metrics=metrics,
            pace=Pace(10**9),
            shard_deadline_s=deadline_s,
            random=dice,
            retry_s=retry_s,
            retry_max_s=retry_max_s,
        )
        self.calls = 0
        calls = source_policy(dice, clock=lambda: self.seconds)
        jump = JumpLimit()
        deliveries = {COIN: self.delivery}

        def intake(validator: Validator) -> Intake:
            return Intake(
                self.recorder,
                policy=calls,
                validator=validator,
                publisher=self.publisher,
                deliveries=deliveries,
                metrics=metrics,
                now=lambda: self.wall,
            )

        self.intake = intake(Validator(jump, currency_of=lambda coin: self.directory.homes[coin].currency))
        self.poll = Poll(self, self.intake, metrics, interval_s=1.0)
        self.reasons: dict[str, str] = {}  # why the source has no price
        self.pages: list[TapePage | Exception] = []
        self.asked: list[str | None] = []
        self.tape_intake = intake(Validator(jump, is_tape=True))
        self.tape_reader = TapeReader(self, self.tape_intake, metrics, interval_s=0.0, keeps_times=keeps_times)
        self.answers = Answers(self.recorder, self.directory, self.intake, AgeLimits(5000, 300_000))

    def _when_committed(self) -> datetime:
        self.disk_goes_on.wait(20)
        return self.wall

    @contextlib.contextmanager
    def hanging_disk(self) -> Iterator[None]:
        """Every commit hangs, until `disk_goes_on` is set or the end."""
        self.disk_goes_on.clear()
        try:
            yield
        finally:
            self.disk_goes_on.set()

    async def fetch(self) -> Fetched:
        """The answer of the source."""
        self.calls += 1
        if isinstance(self.said, Exception):
            raise self.said
        return Fetched(self.said, [], reasons=self.reasons)

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        """The next page of the tape."""
        self.asked.append(cursor)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page

    @property
    def superseded(self) -> bool:
        return self.writer.is_superseded

    async def record(self, *prices: str) -> list[Quote]:
        """Record prices, each observed a millisecond after the one before, and hand them on."""
        observed = []
        for price in prices:
            self.wall += timedelta(milliseconds=1)
            observed.append(seen(price, self.wall))
        return await self.intake.record({COIN: observed})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run delivery and publisher."""
        await self.recorder.start()
        try:
            async with background(self.delivery.run(), self.publisher.run()):
                yield
        finally:
            await self.recorder.close()

    async def page(self, after: Position | None = None) -> list[Position]:
        payload = json.loads(await self.answers.after(COIN, after, 100))
        return [Position(quote["epoch"], quote["seq"]) for quote in payload["quotes"]]


def seen(price: str, at: datetime) -> Observation:
    return Observation(COIN, "USD", Decimal(price), at, "sim")


async def until(condition: Callable[[], Any], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
