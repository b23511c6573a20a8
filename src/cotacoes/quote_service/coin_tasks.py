"""The background tasks of each coin and of each shard that the directory names.

A coin that is new in the directory gets a history and a delivery, is looked up in the log, and from then on is recorded
like any other. No coin ever leaves: one that nobody quotes any more costs a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from datetime import datetime
from random import Random

from cotacoes.adapters.postgres.days import PostgresDays
from cotacoes.errors import LogUnavailableError
from cotacoes.model.quote import Position, utc_now
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.days import DayKeeper, OpenDays
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recent_prices import JumpLimit
from cotacoes.quote_service.recorder import Recorder
from cotacoes.web.background import Restarts

RETRY_S = 1.0


class CoinTasks:
    """See the head of this file; `run` is the task that begins the others.

    `new_delivery` makes a coin's delivery. `jump`, `random`, `now` and `open_days` are those of the histories and of
    the shards' days.
    """

    def __init__(
        self,
        directory: ShardDirectory,
        recorder: Recorder,
        restarts: Restarts,
        *,
        new_delivery: Callable[[CoinHistory], Delivery],
        jump: JumpLimit,
        random: Random,
        now: Callable[[], datetime] = utc_now,
        open_days: OpenDays = PostgresDays,
    ) -> None:
        self.deliveries: dict[str, Delivery] = {}
        self._directory = directory
        self._recorder = recorder
        self._restarts = restarts
        self._new_delivery = new_delivery
        self._jump = jump
        self._random = random
        self._now = now
        self._open_days = open_days

    def begin(self) -> None:
        """Make the histories and deliveries of all coins that the directory names; before the log is opened."""
        for coin in self._directory.homes:
            self._recorder.histories[coin] = self._new_history(coin)

    async def run(self) -> None:
        """Deliver every coin, maintain every shard, and add every coin that comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            begun = set(self._recorder.histories)
            for coin in begun:
                self._begin_delivery(group, coin)
            keepers: dict[str, tuple[str, asyncio.Task[None]]] = {}
            while True:
                self._maintain_shards(group, keepers)
                for coin in self._directory.homes.keys() - begun:
                    if await self._add(coin):
                        begun.add(coin)
                        self._begin_delivery(group, coin)
                # A failure is counted and logged already. All coins at once: a shard that hangs costs one deadline.
                with contextlib.suppress(LogUnavailableError):
                    await self._recorder.begin_missing_epochs()
                is_complete = begun >= self._directory.homes.keys()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if is_complete else RETRY_S):
                        await self._directory.wait_change()

    def _new_history(self, coin: str) -> CoinHistory:
        history = CoinHistory(coin, self._directory.homes[coin].shard, now=self._now, jump=self._jump)
        self.deliveries[coin] = self._new_delivery(history)
        return history

    def _begin_delivery(self, group: asyncio.TaskGroup, coin: str) -> None:
        group.create_task(self._restarts.kept("delivery", self.deliveries[coin].run))

    def _maintain_shards(self, group: asyncio.TaskGroup, keepers: dict[str, tuple[str, asyncio.Task[None]]]) -> None:
        """Begin the upkeep of each shard, and again if its address has changed."""
        for shard, dsn in self._directory.dsns.items():
            before = keepers.get(shard)
            if before is not None and before[0] == dsn:
                continue
            if before is not None:
                before[1].cancel()
            upkeep = self._restarts.kept("days", functools.partial(self._maintain_days, shard))
            keepers[shard] = dsn, group.create_task(upkeep)

    async def _maintain_days(self, shard: str) -> None:
        keeper = DayKeeper(
            shard,
            self._directory.dsns[shard],
            homes=lambda: self._directory.homes,
            on_floor=self._note_floor,
            random=self._random,
            now=self._now,
            open_days=self._open_days,
        )
        await keeper.run()

    def _note_floor(self, coin: str, floor: Position) -> None:
        if coin in self._recorder.histories:  # else it is about to be added, and its fence gives the floor
            self._recorder.histories[coin].note_floor(floor)

    async def _add(self, coin: str) -> bool:
        history = self._new_history(coin)  # with its delivery: as soon as the coin is added, quotes are handed on to it
        try:
            await self._recorder.add_coin(history)
        except LogUnavailableError:
            return False  # counted and logged already; it is tried again
        get_logger().info("coin.joined", coin=coin, shard=history.shard)
        return True
