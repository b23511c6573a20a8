"""A directory over shards that a test brings, without a shard1 to ask unless the test says what it tells."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cotacoes.adapters.shard_directory import ShardDirectory
from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.sharding import Directory, Shard


def directory_over(
    shards: Mapping[str, Shard],
    seed: Mapping[str, str],
    *,
    file: Path = Path(os.devnull) / "directory.json",
    tell: Callable[[], Directory | None] = lambda: None,
) -> ShardDirectory:
    """Its shards are there before it is entered; `tell` is what shard1 says, None: it is away."""

    async def read(_: Shard) -> Directory:
        told = tell()
        if told is None:
            raise ShardUnavailableError("shard1 is not reachable")
        return told

    directory = ShardDirectory(
        dict.fromkeys(shards, "memory"),
        seed,
        file,
        open_shard=lambda name, _: contextlib.nullcontext(shards[name]),
        read=read,
    )
    directory.shards |= shards
    return directory
