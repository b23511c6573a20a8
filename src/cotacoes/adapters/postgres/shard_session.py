"""An administrator's connection to one shard: opened, checked to be that shard, and asked by named queries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.schema import check_shard
from cotacoes.errors import ShardUnavailableError


async def open_answering(stack: contextlib.AsyncExitStack, sessions: Iterable[ShardSession]) -> dict[str, str]:
    """Open on the stack all sessions whose shards answer; the reasons of the others, by shard. SettingError."""
    away: dict[str, str] = {}

    async def open_one(session: ShardSession) -> None:
        try:
            await stack.enter_async_context(session)
        except ShardUnavailableError as error:
            away[session.name] = error.detail

    for end in await asyncio.gather(*map(open_one, sessions), return_exceptions=True):
        if end is not None:
            raise end
    return away


class ShardSession:
    """One connection to one shard, for the queries of a subclass; an async context manager.

    Every call raises ShardUnavailableError if the shard does not answer, is another database or has another schema
    version; opening also raises SettingError if the DSN cannot be used.
    """

    queries: ClassVar[Mapping[str, str]]
    connect_s: ClassVar[float]
    statement_s: ClassVar[float]
    is_read_only: ClassVar[bool] = False

    def __init__(self, name: str, dsn: str) -> None:
        self.name = name
        self._session = Session(
            name, dsn, connect_s=self.connect_s, deadline_s=self.statement_s, is_read_only=self.is_read_only
        )
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with self._stack:
            await self._stack.enter_async_context(self._session)
            await self._begin()
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def _begin(self) -> None:
        """What is done first on a new connection."""
        await check_shard(self.name, self._session.fetch)

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        return await self._session.fetch(self.queries[query], *arguments)

    async def _execute(self, script: str) -> None:
        await self._session.execute(script)
