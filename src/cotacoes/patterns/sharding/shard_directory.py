"""The directory as one process knows it, and the shards that it names.

It is read from the first shard, kept in a file, and corrected by the fences. While the first shard is away, the file
knows where the coins live; without a file, the settings do. A fence that says where its coin went is believed at once,
since it knows first. `placement` rises with every move, so of two statements the higher placement is the newer one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from cotacoes.errors import CoinMovedError, SettingError, ShardUnavailableError
from cotacoes.observability.logs import get_logger
from cotacoes.observability.whole_file import OWNER_ONLY, replace_file
from cotacoes.patterns.sharding.shard import Directory, Home, Shard

REFRESH_S = 2.0
FOLLOW_MAX = 3  # moves that one call follows; no coin moves more often during a call

T = TypeVar("T")
OpenShard = Callable[[str, str], AbstractAsyncContextManager[Shard]]


class ShardDirectory:
    """The coins' homes and the open shards; an async context manager, which opens and closes the shards.

    `settled` are the DSNs of the shards that are settings, the first of which has the directory; `seed` are the homes
    that the settings name.
    """

    def __init__(
        self, settled: Mapping[str, str], seed: Mapping[str, str], file: Path, *, open_shard: OpenShard
    ) -> None:
        self.shards: dict[str, Shard] = {}
        self.homes: dict[str, Home] = {coin: Home(0, shard, 0) for coin, shard in seed.items()}
        self.dsns: dict[str, str] = {}
        self._settled = dict(settled)
        self._first = next(iter(settled))
        self._file = file
        self._open_shard = open_shard
        self._opened: dict[str, contextlib.AsyncExitStack] = {}
        self._changed = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._refreshes = 0
        self._is_refreshed = False

    async def __aenter__(self) -> Self:
        saved = _load(self._file)  # before anything is written to it
        await self._apply(Directory({}, saved.shards | self._settled))
        # if the first shard answers, the file only adds coins that it has forgotten; the fences correct both
        is_refreshed = await self.refresh()
        known = {coin for coin, home in self.homes.items() if is_refreshed and home.placement > 0}
        await self._apply(Directory({coin: home for coin, home in saved.homes.items() if coin not in known}, {}))
        return self

    async def __aexit__(self, *error: Any) -> None:
        for opened in self._opened.values():
            await opened.aclose()

    def is_venue_series(self, name: str) -> bool:
        """Whether this is the series of a venue, which a list leaves out unless it is asked for."""
        home = self.homes.get(name)
        return home is not None and home.kind == "venue"

    def shard_of(self, coin: str) -> Shard:
        """The shard on which the coin lives; CoinMovedError while its address is unknown."""
        name = self.homes[coin].shard
        if name not in self.shards:
            raise CoinMovedError(f"{coin} lives on {name}, of which no address is known")
        return self.shards[name]

    async def ask(self, coin: str, question: Callable[[Shard], Awaitable[T]]) -> T:
        """The answer of the coin's shard, wherever the coin has moved; errors as those of `Shard`."""
        for _ in range(FOLLOW_MAX):
            shard = self.shard_of(coin)
            try:
                return await question(shard)
            except CoinMovedError as error:
                if not await self.follow(coin, error, shard.name):
                    raise
        return await question(self.shard_of(coin))

    async def follow(self, coin: str, error: CoinMovedError, asked: str | None = None) -> bool:
        """Learn where the coin went, from its fence or else from the first shard; whether it has another home now.

        `asked` is the shard that refused, its home if it is None; the coin may have left it since.
        """
        before = self.homes[coin]
        asked = asked or before.shard
        if error.to is not None and error.placement is not None and error.placement > before.placement:
            moved = replace(before, shard=error.to, placement=error.placement)
            await self._apply(Directory({coin: moved}, {}))
        if self.homes[coin].shard == asked or self.homes[coin].shard not in self.shards:
            await self.refresh()
        return self.homes[coin].shard != asked and self.homes[coin].shard in self.shards

    async def refresh(self) -> bool:
        """Read the directory from the first shard; whether it answered. Calls made meanwhile share its answer."""
        begun = self._refreshes
        async with self._refreshing:
            if self._refreshes == begun:
                self._is_refreshed = await self._refresh()
                self._refreshes += 1
            return self._is_refreshed

    async def _refresh(self) -> bool:
        try:
            directory = await self.shards[self._first].directory()
        except ShardUnavailableError:
            return False
        await self._apply(directory)
        return True

    async def learn(self, currencies: Mapping[str, str]) -> None:
        """Note the currencies of coins that have none in the directory; does nothing while the first shard is away."""
        new = {coin: currency for coin, currency in currencies.items() if self._lacks_currency(coin)}
        if new:
            with contextlib.suppress(ShardUnavailableError):
                await self.shards[self._first].learn_currencies(new)
                await self.refresh()

    def _lacks_currency(self, coin: str) -> bool:
        home = self.homes.get(coin)
        return home is not None and home.placement > 0 and home.currency is None

    async def wait_change(self) -> None:
        """Return once a coin, a shard or a home is new."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self) -> None:
        """Refresh the directory every `REFRESH_S`, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def _apply(self, directory: Directory) -> None:
        """Apply what is news in a directory: open its new shards, remember its new homes, save both."""
        new = {
            coin: home
            for coin, home in directory.homes.items()
            if coin not in self.homes or (home.placement >= self.homes[coin].placement and home != self.homes[coin])
        }
        shards = {name: dsn for name, dsn in directory.shards.items() if self.dsns.get(name) != dsn}
        for name, dsn in shards.items():
            if self._settled.get(name, dsn) == dsn:  # else a setting wins
                await self._open(name, dsn)
        for coin, home in new.items():
            known = self.homes.get(coin)
            if known is not None and known.shard != home.shard:
                get_logger().info("coin.moved", coin=coin, shard=home.shard, placement=home.placement)
        self.homes |= new
        if new or shards:
            self._changed.set()
            self._save()

    async def _open(self, name: str, dsn: str) -> None:
        opened = contextlib.AsyncExitStack()
        try:
            self.shards[name] = await opened.enter_async_context(self._open_shard(name, dsn))
        except SettingError as error:
            get_logger().error("shard.refused", shard=name, reason=str(error))
            return
        self.dsns[name] = dsn
        replaced = self._opened.pop(name, contextlib.AsyncExitStack())
        self._opened[name] = opened
        await replaced.aclose()  # calls that it is serving fail, and are made again

    def _save(self) -> None:
        further = {name: dsn for name, dsn in self.dsns.items() if name not in self._settled}
        content = msgspec.json.encode(_SavedDirectory(self.homes, further))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._file, content, mode=OWNER_ONLY)  # a DSN carries a password
        except OSError as error:  # without the file, a start while the first shard is away knows less
            get_logger().warning("directory.unsaved", reason=error.strerror)


class _SavedDirectory(msgspec.Struct, frozen=True):
    homes: dict[str, Home]
    shards: dict[str, str]


def _load(file: Path) -> _SavedDirectory:
    """The saved directory; an empty one if there is no file, or none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_SavedDirectory)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        get_logger().warning("directory.unreadable", reason=type(error).__name__)
    return _SavedDirectory({}, {})
