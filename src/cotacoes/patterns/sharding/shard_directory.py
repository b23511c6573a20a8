"""The directory as one process knows it, and the shards that it names.

It is read from shard1, kept in a file, and corrected by the fences. With shard1 away the file tells where the coins
live, and without a file the settings do. A fence that says where its coin went is believed at once, since it knows
first; `placement` rises with every move, so of two sayings the one with the higher placement is the younger.
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
FOLLOW_MAX = 3  # moves that one question follows; more of them within a question are no moves

T = TypeVar("T")
OpenShard = Callable[[str, str], AbstractAsyncContextManager[Shard]]


class ShardDirectory:
    """See the head of this file. An async context manager; the shards are open while it is.

    `settled` are the DSNs of the shards that are settings, `seed` the homes that the settings name, `read` asks shard1,
    `learn` tells it the currencies of coins.
    """

    def __init__(
        self,
        settled: dict[str, str],
        seed: Mapping[str, str],
        file: Path,
        *,
        open_shard: OpenShard,
        read: Callable[[Shard], Awaitable[Directory]],
        learn: Callable[[Shard, Mapping[str, str]], Awaitable[None]] | None = None,
    ) -> None:
        self.shards: dict[str, Shard] = {}
        self.homes: dict[str, Home] = {coin: Home(0, shard, 0) for coin, shard in seed.items()}
        self._settled = settled
        self._file = file
        self._open_shard = open_shard
        self._read = read
        self._learn = learn
        self.dsns: dict[str, str] = {}
        self._opened: dict[str, contextlib.AsyncExitStack] = {}
        self._changed = asyncio.Event()
        self._asking = asyncio.Lock()
        self._answers = 0
        self._is_answered = False

    async def __aenter__(self) -> Self:
        kept = _load(self._file)  # before anything is written to it
        await self._take(Directory({}, kept.shards | self._settled))
        # where shard1 answers, the file only knows better of coins that it has forgotten; the fences correct both
        is_told = await self.refresh()
        told = {coin for coin, home in self.homes.items() if is_told and home.placement > 0}
        await self._take(Directory({coin: home for coin, home in kept.homes.items() if coin not in told}, {}))
        return self

    async def __aexit__(self, *error: Any) -> None:
        for opened in self._opened.values():
            await opened.aclose()

    def shard_of(self, coin: str) -> Shard:
        """The shard on which the coin lives; CoinMovedError where nobody has told its address yet."""
        name = self.homes[coin].shard
        if name not in self.shards:
            raise CoinMovedError(f"{coin} lives on {name}, of which no address is known")
        return self.shards[name]

    async def ask(self, coin: str, question: Callable[[Shard], Awaitable[T]]) -> T:
        """What the coin's shard answers, wherever it went; errors as those of `Shard`."""
        for _ in range(FOLLOW_MAX):
            shard = self.shard_of(coin)
            try:
                return await question(shard)
            except CoinMovedError as error:
                if not await self.follow(coin, error, shard.name):
                    raise
        return await question(self.shard_of(coin))

    async def follow(self, coin: str, error: CoinMovedError, asked: str | None = None) -> bool:
        """Whether another home of the coin is known now: by what its fence said, else by what shard1 says.

        `asked` is the shard that refused, None: its home; it may have been left behind since it was asked.
        """
        before = self.homes[coin]
        asked = asked or before.shard
        if error.to is not None and error.placement is not None and error.placement > before.placement:
            moved = replace(before, shard=error.to, placement=error.placement)
            await self._take(Directory({coin: moved}, {}))
        if self.homes[coin].shard == asked or self.homes[coin].shard not in self.shards:
            await self.refresh()
        return self.homes[coin].shard != asked and self.homes[coin].shard in self.shards

    async def refresh(self) -> bool:
        """Ask shard1; whether it answered. Who asks while another one does shares that answer."""
        asked = self._answers
        async with self._asking:
            if self._answers == asked:
                self._is_answered = await self._refresh()
                self._answers += 1
            return self._is_answered

    async def _refresh(self) -> bool:
        first = next(iter(self._settled))
        try:
            told = await self._read(self.shards[first])
        except ShardUnavailableError:
            return False
        await self._take(told)
        return True

    async def learn(self, currencies: Mapping[str, str]) -> None:
        """Tell shard1 the currencies of coins for which it has none; if it is away, the next call does."""
        new = {coin: currency for coin, currency in currencies.items() if self._lacks_currency(coin)}
        if new and self._learn is not None:
            with contextlib.suppress(ShardUnavailableError):
                await self._learn(self.shards[next(iter(self._settled))], new)
                await self.refresh()

    def _lacks_currency(self, coin: str) -> bool:
        home = self.homes.get(coin)
        return home is not None and home.placement > 0 and home.currency is None

    async def wait_change(self) -> None:
        """Return once a coin, a shard or a home is new."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self) -> None:
        """Keep it young, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def _take(self, told: Directory) -> None:
        new = {
            coin: home
            for coin, home in told.homes.items()
            if coin not in self.homes or (home.placement >= self.homes[coin].placement and home != self.homes[coin])
        }
        shards = {name: dsn for name, dsn in told.shards.items() if self.dsns.get(name) != dsn}
        for name, dsn in shards.items():
            if name in self._settled and self._settled[name] != dsn:
                continue  # a setting wins
            try:
                opened = contextlib.AsyncExitStack()
                self.shards[name] = await opened.enter_async_context(self._open_shard(name, dsn))
                self.dsns[name] = dsn
                await self._opened.pop(name, contextlib.AsyncExitStack()).aclose()  # whoever asks it now asks again
                self._opened[name] = opened
            except SettingError as error:
                get_logger().error("shard.refused", shard=name, reason=str(error))
        for coin, home in new.items():
            known = self.homes.get(coin)
            if known is not None and known.shard != home.shard:
                get_logger().info("coin.moved", coin=coin, shard=home.shard, placement=home.placement)
        self.homes |= new
        if new or shards:
            self._changed.set()
            self._save()

    def _save(self) -> None:
        further = {name: dsn for name, dsn in self.dsns.items() if name not in self._settled}
        content = msgspec.json.encode(_SavedDirectory(self.homes, further))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._file, content, mode=OWNER_ONLY)  # a DSN carries a password
        except OSError as error:  # it goes on, and a start with shard1 away would know less
            get_logger().warning("directory.unsaved", reason=error.strerror)


class _SavedDirectory(msgspec.Struct, frozen=True):
    homes: dict[str, Home]
    shards: dict[str, str]


def _load(file: Path) -> _SavedDirectory:
    """What was kept; nothing where nothing was, or nothing that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_SavedDirectory)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        get_logger().warning("directory.unreadable", reason=type(error).__name__)
    return _SavedDirectory({}, {})
