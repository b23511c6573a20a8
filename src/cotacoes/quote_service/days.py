"""The upkeep of a shard's days: partitions made ahead, sealing, retention, packing.

Each round does all of it over a connection of its own, for which no quote ever waits:

    prepare ─▶ seal finished days ─▶ drop days beyond retention ─▶ erase dropped days ─▶ pack sealed days

Work that cannot be done now (a shard that is away, a day in use) is left to a later round. Nothing is remembered here,
since the shard itself shows what is due, so the keeper may be cancelled or killed at any moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from random import Random
from typing import Protocol

from cotacoes.adapters.postgres.days import CoinDay, Dropped, Erased, PostgresDays, Sealing
from cotacoes.errors import CoinMovedError, SettingError, ShardUnavailableError
from cotacoes.model.quote import Position, utc_now
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.resilience.backoff import Backoff
from cotacoes.patterns.sharding.shard import Home

DAYS_AHEAD = 2
ROUND_INTERVAL_S = 3600.0
RETRY_FIRST_S = 5.0
RETRY_MOST_S = 600.0  # not urgent: a batch makes a partition that is missing
PACK_AFTER = timedelta(hours=1)  # late quotes rarely come to a day that has been over for so long
ERASE_AFTER = timedelta(minutes=5)  # longer than any read that began before the day was dropped


class Days(Protocol):
    """The work on the days of a shard; see `adapters.postgres.days.PostgresDays`."""

    async def prepare(self, first: date, last: date) -> None: ...
    async def acquire(self) -> bool: ...
    async def closed(self) -> list[CoinDay]: ...
    async def seal(self, closed: CoinDay) -> Sealing | None: ...
    async def expired(self, retention_days: Mapping[str, int]) -> list[CoinDay]: ...
    async def drop(self, expired: CoinDay, retention_days: int) -> Dropped | None: ...
    async def dropped(self, before: datetime) -> list[date]: ...
    async def erase(self, day: date, before: datetime) -> Erased: ...
    async def loose(self, over_before: datetime) -> list[date]: ...
    async def pack(self, day: date) -> None: ...


OpenDays = Callable[[str, str], AbstractAsyncContextManager[Days]]


class DayKeeper:
    """One shard's keeper; `run` is its task.

    `homes` gives the present directory, `now` the wall time. `on_floor` is called with a coin's oldest position when a
    day of it has been dropped.
    """

    def __init__(
        self,
        shard: str,
        dsn: str,
        *,
        homes: Callable[[], Mapping[str, Home]],
        on_floor: Callable[[str, Position], None],
        random: Random,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        open_days: OpenDays = PostgresDays,
    ) -> None:
        self._shard = shard
        self._dsn = dsn
        self._homes = homes
        self._on_floor = on_floor
        self._now = now
        self._sleep = sleep
        self._open_days = open_days
        self._backoff = Backoff(random, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        self._failure: str | None = None
        self._is_held = False

    async def run(self) -> None:
        """Do a round every hour until cancelled; after a failed one sooner, with a back-off."""
        while True:
            try:
                await self.maintain()
            except (ShardUnavailableError, SettingError) as error:  # a DSN from the directory may be invalid
                self._note_failure(str(error))
                await self._sleep(self._backoff.next_s())
                continue
            self._note_success()
            await self._sleep(ROUND_INTERVAL_S)

    async def maintain(self) -> None:
        """Do one round; ShardUnavailableError if some of it failed, after everything else was done."""
        self._failure = None
        async with self._open_days(self._shard, self._dsn) as days:
            today = self._now().date()
            await self._attempt(days.prepare(today, today + timedelta(days=DAYS_AHEAD)))
            if await days.acquire():
                await self._maintain_finished(days)
        if self._failure is not None:
            raise ShardUnavailableError(self._failure)

    async def _maintain_finished(self, days: Days) -> None:
        for closed in await days.closed():
            await self._attempt(self._seal(days, closed))
        retention = self._retention_days()
        for expired in await days.expired(retention):
            await self._attempt(self._drop(days, expired, retention[expired.coin]))
        erased_before = self._now() - ERASE_AFTER
        for day in await days.dropped(erased_before):
            await self._attempt(self._erase(days, day, erased_before))
        for day in await days.loose(self._now() - PACK_AFTER):
            await self._attempt(self._pack(days, day))

    async def _attempt(self, task: Awaitable[None]) -> None:
        """Do one day's work; a failure must not prevent the work on other days."""
        try:
            await task
        except CoinMovedError:
            pass  # another shard does it now
        except ShardUnavailableError as error:
            self._failure = self._failure or str(error)

    async def _seal(self, days: Days, closed: CoinDay) -> None:
        sealing = await days.seal(closed)
        if sealing is None:
            return
        if sealing.is_sealed:
            get_logger().info("day.sealed", coin=closed.coin, day=str(closed.day), count=sealing.held)
        else:
            get_logger().error(
                "day.refused", coin=closed.coin, day=str(closed.day), expected=sealing.expected, held=sealing.held
            )

    async def _drop(self, days: Days, expired: CoinDay, retention_days: int) -> None:
        dropped = await days.drop(expired, retention_days)
        if dropped is not None:
            get_logger().info(
                "day.dropped", coin=expired.coin, day=str(expired.day), count=dropped.count, floor=str(dropped.floor)
            )
            self._on_floor(expired.coin, dropped.floor)

    async def _erase(self, days: Days, day: date, before: datetime) -> None:
        erased = await days.erase(day, before)
        if erased.is_gone:
            get_logger().info("partition.dropped", shard=self._shard, day=str(day))
        elif erased.count:
            get_logger().info("partition.thinned", shard=self._shard, day=str(day), count=erased.count)

    async def _pack(self, days: Days, day: date) -> None:
        await days.pack(day)
        get_logger().info("partition.compacted", shard=self._shard, day=str(day))

    def _retention_days(self) -> dict[str, int]:
        return {
            coin: home.retention_days
            for coin, home in self._homes().items()
            if home.shard == self._shard and home.retention_days is not None
        }

    def _note_failure(self, reason: str) -> None:
        if not self._is_held:
            get_logger().warning("days.held", shard=self._shard, reason=reason)
        self._is_held = True

    def _note_success(self) -> None:
        self._backoff.reset()
        if self._is_held:
            get_logger().info("days.resumed", shard=self._shard)
        self._is_held = False
