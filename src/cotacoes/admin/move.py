"""`cotacoes shards move`: move a coin to another shard while its writer and its readers run.

`patterns/sharding/moving.py` has the steps. Everything is copied and compared by content while the source's fence is
open, in rounds that get shorter; then the fence is closed for the last few quotes. A failure before the target is asked
to open reopens the source's fence. After that, or after a kill, the fences say how far the move came, and the same
command continues from there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from random import Random
from typing import TypeVar

from cotacoes.admin.copies import DIRECTORY_SHARD, LIMITS, MoveLimits, claim, compare_left, copies_of, remove
from cotacoes.admin.copying import Copying, MoveProgress, OnStep
from cotacoes.errors import CopyRefusedError, CotacoesError, SettingError, ShardUnavailableError
from cotacoes.patterns.sharding.ledger_facts import CoinCopy
from cotacoes.patterns.sharding.moving import (
    MovePlan,
    MoveStage,
    MovingShard,
    is_left_behind,
    plan_abort,
    plan_move,
)

T = TypeVar("T")

CLOSED_MAX_S = 10.0  # for copying and comparing behind a closed fence; after that the source is opened again


class Mover:
    """Moves one coin between `shards`, which answer, while those of `away` do not; `on_step` is called at each step."""

    def __init__(
        self,
        coin: str,
        shards: Mapping[str, MovingShard],
        away: Collection[str],
        *,
        random: Random,
        clock: Callable[[], float],
        on_step: OnStep,
        limits: MoveLimits = LIMITS,
    ) -> None:
        self._limits = limits
        self._coin = coin
        self._shards = shards
        self._away = set(away)
        self._random = random
        self._clock = clock
        self._on_step = on_step
        self._closed_at: float | None = None

    async def move(self, to: str) -> MoveProgress:
        """Move the coin to the shard `to`, or finish such a move.

        SettingError, ShardUnavailableError, CopyDiffersError, CopyRefusedError: after any of them, the same call
        continues the move.
        """
        due, copies = await self._claimed(to, plan_move)
        progress = MoveProgress(self._coin, due.source, to)
        home = due.copy
        if due.stage is MoveStage.COPY:
            home = await self._copy(progress, home, copies.get(to))
        if due.stage is not MoveStage.DONE:
            await self._leave(progress, home)
        await self._place(progress, home.placement + (due.stage is not MoveStage.DONE))
        return progress

    async def abort(self, to: str) -> MoveProgress:
        """Give up the move to the shard `to`; SettingError if it can no longer be stopped."""
        due, _ = await self._claimed(to, plan_abort)
        progress, home = MoveProgress(self._coin, due.source, to), due.copy
        target = self._shards[to]
        await target.give_up(home.coin_id, home.placement + 1)
        await self._on_step("given_up", progress)
        await self._shards[due.source].reopen(home.coin_id, home.placement)
        await self._on_step("reopened", progress)
        given_up = await target.copy(self._coin)
        if given_up is not None and is_left_behind(given_up, home) and given_up.state == "incoming":
            await remove(self._coin, given_up, self._shards, to, (due.source, home.placement), limits=self._limits)
        await self._on_step("removed", progress)
        return progress

    async def _claimed(
        self, to: str, decide: Callable[[str, str, Mapping[str, CoinCopy], Collection[str]], MovePlan]
    ) -> tuple[MovePlan, dict[str, CoinCopy]]:
        """Plan the move and claim both copies, so that no other administrator can change them."""
        if to not in self._shards and to not in self._away:
            raise SettingError(
                f"there is no shard {to}: write one of {', '.join(sorted({*self._shards, *self._away}))}"
            )
        copies, away = await copies_of(self._coin, self._shards)
        away |= self._away
        if to in away:
            raise ShardUnavailableError(f"{to} does not answer")
        first = decide(self._coin, to, copies, away)
        for shard in sorted({first.source, to}):
            await claim(self._coin, first.copy.coin_id, self._shards[shard], limits=self._limits)
        copies, silent = await copies_of(self._coin, self._shards)
        due = decide(self._coin, to, copies, silent | away)
        if due.source not in (first.source, to):
            raise SettingError(f"{self._coin} has been moved in the meantime: run the command again")
        return due, copies

    async def _copy(self, progress: MoveProgress, home: CoinCopy, there: CoinCopy | None) -> CoinCopy:
        """Copy the coin and open the target."""
        source, target = self._shards[progress.source], self._shards[progress.target]
        await source.reopen(home.coin_id, home.placement)  # in case a mover was killed while it was closed
        await self._on_step("claimed", progress)
        if there is not None and is_left_behind(there, home):
            if there.state == "moved":
                await compare_left(home.coin_id, target, source)
            await remove(
                self._coin,
                there,
                self._shards,
                progress.target,
                (progress.source, home.placement),
                limits=self._limits,
            )
            there = None
            await self._on_step("removed", progress)
        await target.begin(home.coin_id, self._coin, home.placement + 1)
        await self._on_step("begun", progress)

        copying = Copying(
            progress, source, target, home, None if there is None else there.last, self._on_step, self._limits
        )
        for round_ in range(self._limits.rounds):
            await copying.copy()
            await copying.verify()
            if round_ == 0:
                await copying.sample(self._random)
                await self._on_step("sampled", progress)
            if await copying.left_over(self._limits.rest_quotes) < self._limits.rest_quotes:
                break
        return await self._switch(progress, home, copying)

    async def _switch(self, progress: MoveProgress, home: CoinCopy, copying: Copying) -> CoinCopy:
        """Copy the rest behind the closed fence, and open the target."""
        source, target = self._shards[progress.source], self._shards[progress.target]
        self._closed_at = self._clock()
        await source.close(home.coin_id, home.placement)
        try:
            await self._on_step("closed", progress)
            closed = await source.copy(self._coin)
            assert closed is not None
            count = await self._within(CLOSED_MAX_S, copying.finish(closed), target)
            await self._on_step("finished", progress)
        except CotacoesError:
            await self._reopen(source, home)
            raise
        try:
            await self._within(CLOSED_MAX_S, target.open(home.coin_id, home.placement + 1, closed, count), target)
        except CopyRefusedError:
            await self._reopen(source, home)
            raise
        except ShardUnavailableError as error:
            raise ShardUnavailableError(
                f"{target.name} did not answer the request to open, so the fence on {source.name} stays closed and "
                f"quotes wait in the log: run the command again as soon as {target.name} answers ({error})"
            ) from error
        await self._on_step("opened", progress)
        return closed

    async def _leave(self, progress: MoveProgress, home: CoinCopy) -> None:
        await self._shards[progress.source].leave(home.coin_id, home.placement, progress.target)
        if self._closed_at is not None:
            progress.closed_s = self._clock() - self._closed_at
        await self._on_step("left", progress)

    async def _place(self, progress: MoveProgress, placement: int) -> None:
        """Update the directory, which comes last and may be away, since the fences say the same."""
        try:
            if DIRECTORY_SHARD not in self._shards:
                raise ShardUnavailableError(f"{DIRECTORY_SHARD} does not answer")
            await self._shards[DIRECTORY_SHARD].place(self._coin, progress.target, placement)
        except ShardUnavailableError as error:
            progress.warnings.append(
                f"the directory does not know yet that {self._coin} lives on {progress.target} ({error}), but the "
                "fences do: run the command again, or `cotacoes directory rebuild`"
            )
        await self._on_step("placed", progress)

    async def _reopen(self, source: MovingShard, home: CoinCopy) -> None:
        """Reopen the source, as the target is not open. If it does not answer, it stays closed until the next run."""
        with contextlib.suppress(CotacoesError):
            await source.reopen(home.coin_id, home.placement)

    async def _within(self, limit_s: float, work: Awaitable[T], target: MovingShard) -> T:
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            raise ShardUnavailableError(f"{target.name} did not answer within {limit_s:g} s") from None
