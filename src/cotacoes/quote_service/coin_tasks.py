"""The roster: which coins quote_service has, as the directory says, and the work that they and their shards need.

A coin that is new in the directory gets a history, is looked up in the log, and from then on is recorded, delivered and
published like any other. No coin ever leaves: one that nobody quotes any more costs a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from cotacoes.errors import LogUnavailableError
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import Recorder
from cotacoes.web.restarts import Restarts

AGAIN_S = 1.0


class CoinTasks:
    """See the head of this file; `run` is its task. `deliver` makes a coin's delivery, `keep` a shard's upkeep."""

    def __init__(
        self,
        directory: ShardDirectory,
        recorder: Recorder,
        *,
        make_history: Callable[[str, str], CoinHistory],
        deliver: Callable[[CoinHistory], Delivery],
        keep: Callable[[str], Coroutine[Any, Any, None]],
        restarts: Restarts,
    ) -> None:
        self.deliveries: dict[str, Delivery] = {}
        self._directory = directory
        self._recorder = recorder
        self._make_history = make_history
        self._deliver = deliver
        self._keep = keep
        self._restarts = restarts

    def begin(self) -> None:
        """Take in whom the directory names now; before the log is opened."""
        for coin, home in self._directory.homes.items():
            self._recorder.histories[coin] = self._make_history(coin, home.shard)
            self.deliveries[coin] = self._deliver(self._recorder.histories[coin])

    async def run(self) -> None:
        """Deliver every coin, keep every shard, and take in whoever comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            taken_in = set(self._recorder.histories)
            for coin in taken_in:
                self._deliver_in(group, coin)
            keepers: dict[str, tuple[str, asyncio.Task[None]]] = {}
            while True:
                for shard, dsn in self._directory.dsns.items():
                    before = keepers.get(shard)
                    if before is not None and before[0] != dsn:
                        before[1].cancel()
                    if before is None or before[0] != dsn:
                        keeping = self._restarts.kept("days", functools.partial(self._keep, shard))
                        keepers[shard] = dsn, group.create_task(keeping)
                for coin in self._directory.homes.keys() - taken_in:
                    if await self._take_in(coin):
                        taken_in.add(coin)
                        self._deliver_in(group, coin)
                with contextlib.suppress(LogUnavailableError):  # said where it failed; tried again each second
                    await self._recorder.begin_missing_eras()  # once for all: a shard that hangs costs one deadline
                is_complete = taken_in >= self._directory.homes.keys()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if is_complete else AGAIN_S):
                        await self._directory.wait_change()

    def _deliver_in(self, group: asyncio.TaskGroup, coin: str) -> None:
        group.create_task(self._restarts.kept("delivery", self.deliveries[coin].run))

    async def _take_in(self, coin: str) -> bool:
        history = self._make_history(coin, self._directory.homes[coin].shard)
        self.deliveries[coin] = self._deliver(history)  # first: once it is taken in, quotes are handed on to it
        try:
            await self._recorder.take_in(history)
        except LogUnavailableError:
            return False  # said where it failed; it is tried again
        get_logger().info("coin.joined", coin=coin, shard=history.shard)
        return True
