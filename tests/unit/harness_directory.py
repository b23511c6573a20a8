"""A directory over the shards of a test, which also decides what the first of them says of the directory."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.sharding.shard import Directory, Shard
from cotacoes.patterns.sharding.shard_directory import ShardDirectory


class FirstShard:
    """A shard of a test with a directory that the test decides."""

    def __init__(self, shard: Shard, first_says: Callable[[], Directory | None], learnt: dict[str, str]) -> None:
        self._shard = shard
        self._says = first_says
        self._learnt = learnt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)

    async def directory(self) -> Directory:
        directory = self._says()
        if directory is None:
            raise ShardUnavailableError("shard1 is not reachable")
        return directory

    async def learn_currencies(self, currencies: Mapping[str, str]) -> None:
        await self.directory()
        self._learnt.update(currencies)


def directory_over(
    shards: Mapping[str, Shard],
    seed: Mapping[str, str],
    *,
    file: Path = Path(os.devnull) / "directory.json",
    first_says: Callable[[], Directory | None] = lambda: None,
    learnt: dict[str, str] | None = None,
) -> ShardDirectory:
    """A directory whose shards are there before it is entered; the first of them has what `first_says` returns.

    If that is None, the first shard is away. `learnt` receives the currencies that it learns.
    """
    first = next(iter(shards))
    served = {**shards, first: cast(Shard, FirstShard(shards[first], first_says, {} if learnt is None else learnt))}
    directory = ShardDirectory(
        dict.fromkeys(shards, "memory"), seed, file, open_shard=lambda name, _: contextlib.nullcontext(served[name])
    )
    directory.shards |= served
    return directory
