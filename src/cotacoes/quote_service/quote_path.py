"""Wires the way of a quote through quote_service. Each file on it says what it hands a quote on to:

source.py        asks the source, and has its answer read (source_quote.py, source_pages.py)
poll.py, tape.py when it is asked, and after which cursor; each calls by the policy of source_policy.py
intake.py        validates each price (validation.py), has it recorded, and hands the quote on
recorder.py      gives positions (history.py) and commits to the local log
delivery.py      stores the coin's quotes on its shard, in order
publisher.py     publishes them on Redis
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import SystemRandom

from cotacoes.adapters.http_client import HttpClient
from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.trim import Retention
from cotacoes.config import Settings
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.coin_tasks import CoinTasks
from cotacoes.quote_service.delivery import Delivery, Pace
from cotacoes.quote_service.intake import Intake
from cotacoes.quote_service.poll import Poll
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recent_prices import JumpLimit
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.source import HttpSource
from cotacoes.quote_service.source_policy import source_client, source_policy
from cotacoes.quote_service.tape import TapeReader
from cotacoes.quote_service.validation import Validator
from cotacoes.quote_service.writer import Writer
from cotacoes.web.background import Restarts
from cotacoes.web.upstreams import Upstreams


class QuotePath:
    """See the head of this file. `folder` is that of the log; its `tasks` run while it is `opened`."""

    def __init__(
        self,
        settings: Settings,
        *,
        directory: ShardDirectory,
        bus: Bus,
        writer: Writer,
        metrics: QuoteMetrics,
        folder: Path,
        upstreams: Upstreams,
        restarts: Restarts,
    ) -> None:
        retention = Retention(seconds=settings.log_kept_s)
        self.recorder = Recorder(
            functools.partial(QuoteLog, folder, quota_bytes=settings.log_quota_bytes, retention=retention),
            directory,
            writer=writer,
            metrics=metrics,
            accepts_clock=settings.accept_clock,
        )
        self._publisher = Publisher(
            self.recorder.histories,
            bus,
            writer=writer,
            metrics=metrics,
            wait_s=settings.publish_wait_ms / 1000,
            prefix=settings.channel_prefix,
        )
        random = SystemRandom()
        new_delivery = functools.partial(
            Delivery,
            directory=directory,
            recorder=self.recorder,
            publisher=self._publisher,
            metrics=metrics,
            pace=Pace(settings.catch_up_quotes_per_s),
            shard_deadline_s=settings.shard_deadline_s,
            random=random,
        )
        jump = _jump_limit(settings)
        self._coin_tasks = CoinTasks(
            directory, self.recorder, restarts, new_delivery=new_delivery, jump=jump, random=random
        )
        self.deliveries = self._coin_tasks.deliveries
        self.intake = Intake(
            self.recorder,
            policy=source_policy(settings, upstreams),
            validator=Validator(
                jump,
                is_tape=settings.source_mode == "tape",
                currency_of=lambda coin: directory.homes[coin].currency,
            ),
            publisher=self._publisher,
            deliveries=self.deliveries,
            metrics=metrics,
        )
        self._client = source_client(settings)
        self._reader = _reader(settings, self._client, self.intake, metrics)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the log and the client of the source, while the directory and the bus are open."""
        async with self._client:
            self._coin_tasks.begin()
            await self.recorder.start()
            try:
                yield
            finally:
                await self.recorder.close()

    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """The background tasks, by name; each may begin again after a failure."""
        return {
            "intake": self._reader.run,  # it reads the log again before it records
            "publisher": self._publisher.run,  # quotes that it had begun to publish show as missing, by position
            "coins": self._coin_tasks.run,
        }


def _reader(settings: Settings, client: HttpClient, intake: Intake, metrics: QuoteMetrics) -> Poll | TapeReader:
    source = HttpSource(client, settings.url(settings.source_service), intake.recorder.histories)
    if settings.source_mode == "tape":
        keeps_times = settings.replay_times == "original"
        return TapeReader(
            source,
            intake,
            metrics,
            interval_s=settings.poll_interval_s,
            keeps_times=keeps_times,
            is_live=settings.is_live_source,
        )
    return Poll(source, intake, metrics, interval_s=settings.poll_interval_s)


def _jump_limit(settings: Settings) -> JumpLimit:
    return JumpLimit(
        Decimal(str(settings.jump_factor_max)),
        timedelta(seconds=settings.jump_window_s),
        settings.jump_confirm_prices,
        timedelta(seconds=settings.jump_confirm_s),
    )
