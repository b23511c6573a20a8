"""A directory over shards that a test brings, without a shard1 to ask unless the test says what it tells."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.sharding.shard import Directory, Shard
from cotacoes.patterns.sharding.shard_directory import ShardDirectory


def directory_over(
    shards: Mapping[str, Shard],
    seed: Mapping[str, str],
    *,
    file: Path = Path(os.devnull) / "directory.json",
    tell: Callable[[], Directory | None] = lambda: None,
    learnt: dict[str, str] | None = None,
) -> ShardDirectory:
    """Its shards are there before it is entered; `tell` is what shard1 says, None: it is away.

    `learnt` takes the currencies that shard1 is told.
    """

    async def read(_: Shard) -> Directory:
        told = tell()
        if told is None:
            raise ShardUnavailableError("shard1 is not reachable")
        return told

    async def learn(_: Shard, currencies: Mapping[str, str]) -> None:
        if tell() is None:
            raise ShardUnavailableError("shard1 is not reachable")
        if learnt is not None:
            learnt.update(currencies)

    directory = ShardDirectory(
        dict.fromkeys(shards, "memory"),
        seed,
        file,
        open_shard=lambda name, _: contextlib.nullcontext(shards[name]),
        read=read,
        learn=learn,
    )
    directory.shards |= shards
    return directory
