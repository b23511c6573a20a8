"""The shards as a report asks them: each behind a breaker, and each answer checked against the placement.

A shard that has failed five times in a row is named as missing at once, instead of being waited for in every report;
it is asked again after a second or a few. So a shard that hangs costs its share of a report only a few times.

A shard answers for the placement under which it holds a coin. A lower placement than the known one comes from a shard
that a move or a restore left behind: the coin is asked for once more where its fence points, and is missing rather than
old if that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cotacoes.aggregator_service.plan import ReportPlan
from cotacoes.errors import CoinMovedError, ShardUnavailableError, TimedOutError
from cotacoes.model.quote import Position
from cotacoes.model.window import Window
from cotacoes.patterns.resilience import CallDeadlineError, CircuitOpenError, Deadline, ResiliencePolicy
from cotacoes.patterns.sharding.shard import Fence, Shard, ShardView
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.web.upstreams import INTERNAL_BREAKER, WAIT_S_MAX, Upstreams, internal_policy

FOLLOW_SHARE_MAX = 0.5  # of the time for asking, to find coins that have moved


@dataclass(frozen=True)
class ShardAnswer:
    """What a shard's branch brought: a view of each coin, and the reason for each coin that is absent.

    `lags` if a coin is absent because the shard lacks quotes that were delivered to it.
    """

    views: Mapping[str, ShardView] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    lags: bool = False

    def without(self, coins: Collection[str], reasons: Mapping[str, str]) -> ShardAnswer:
        """The answer without these coins, whose views are old."""
        views = {coin: view for coin, view in self.views.items() if coin not in coins}
        return ShardAnswer(views, {**self.absent, **{coin: reasons[coin] for coin in coins}}, lags=True)


class ReportShards:
    """`deadline_s` applies to each question, in seconds. A shard gets its policy when it is first asked."""

    def __init__(
        self, directory: ShardDirectory, upstreams: Upstreams, *, deadline_s: float, clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._upstreams = upstreams
        self._deadline_s = deadline_s
        self._clock = clock
        self._policies: dict[str, ResiliencePolicy] = {}

    def placement(self, *, venues: bool) -> dict[str, str]:
        """The shard of each coin, and with `venues` also of the series of venues, as far as this process knows."""
        homes = self._directory.homes
        return {coin: home.shard for coin, home in homes.items() if venues or home.kind == "coin"}

    def has_venue_series(self, coins: Iterable[str]) -> bool:
        """Whether the series of a venue is among these."""
        return any(map(self._directory.is_venue_series, coins))

    async def answer(self, plan: ReportPlan, shard: str, coins: Sequence[str]) -> ShardAnswer:
        """What the shard has of these coins; coins that have moved are asked for where they went.

        Raises ShardUnavailableError and TimedOutError if this shard gives no answer.
        """
        if shard not in self._directory.shards:
            raise ShardUnavailableError(f"the address of {shard} is unknown")
        views, absent = await self._ask(plan, shard, coins)
        if absent:
            left_s = Deadline.after(self._deadline_s, self._clock).remaining()
            # the answer of this shard stands even if another one is away
            with contextlib.suppress(ShardUnavailableError, TimedOutError, TimeoutError):
                async with asyncio.timeout(left_s * FOLLOW_SHARE_MAX):
                    async for found in self._moved(plan, shard, list(absent)):
                        views |= found
        return ShardAnswer(views, {coin: why for coin, why in absent.items() if coin not in views})

    async def ends(self, shard: str, coins: Sequence[str]) -> dict[str, Position | None]:
        """The last position that the shard has of each of these coins."""
        return {coin: view.through for coin, view in (await self._newest(shard, coins, 0, None)).items()}

    def homes(self, coins: Collection[str]) -> dict[str, list[str]]:
        """These coins by the shard where they live now; coins of a shard without an address are left out."""
        homes: dict[str, list[str]] = {}
        for coin in coins:
            home = self._directory.homes[coin].shard
            if home in self._directory.shards:
                homes.setdefault(home, []).append(coin)
        return homes

    async def _moved(self, plan: ReportPlan, shard: str, coins: Sequence[str]) -> AsyncIterator[dict[str, ShardView]]:
        """The views of coins that are no longer on the shard, from where they went."""
        for coin in coins:
            with contextlib.suppress(CoinMovedError):
                await self._directory.ask(coin, _fence_of(coin))  # a fence knows before shard1 does
        for home, its in self.homes(coins).items():
            if home != shard:
                views, _ = await self._ask(plan, home, its)
                yield views

    async def _ask(
        self, plan: ReportPlan, shard: str, coins: Sequence[str]
    ) -> tuple[dict[str, ShardView], dict[str, str]]:
        """The views that can be believed, and why each of the other coins is absent."""
        count = plan.last if "last_logs" in plan.parts else 0
        window = plan.window if "window" in plan.parts else None
        views = await self._newest(shard, coins, count, window)
        homes = self._directory.homes
        believed = {coin: view for coin, view in views.items() if view.placement >= homes[coin].placement}
        absent = {
            coin: f"{shard} answers for an old placement of {coin}"
            if coin in views
            else f"{coin} is between two shards"
            for coin in coins
            if coin not in believed
        }
        return believed, absent

    async def _newest(self, name: str, coins: Sequence[str], count: int, window: Window | None) -> dict[str, ShardView]:
        """As `Shard.newest`, through the policy of the shard."""
        shard = self._directory.shards[name]
        policy = self._policies.get(name)
        if policy is None:
            config = internal_policy(self._deadline_s)
            policy = self._policies[name] = self._upstreams.add(name, INTERNAL_BREAKER, config)
        try:
            return (await policy.call(lambda: shard.newest(coins, count, window), idempotent=True)).value
        except CircuitOpenError as error:
            wait_s = min(error.retry_after, WAIT_S_MAX)
            raise ShardUnavailableError(f"{name} is away (circuit open)", retry_after_s=wait_s) from error
        except CallDeadlineError as error:
            raise TimedOutError(f"{name} is away (no time left)") from error
        except TimeoutError as error:
            raise TimedOutError(f"{name} is away ({error})") from error


def _fence_of(coin: str) -> Callable[[Shard], Awaitable[Fence]]:
    return lambda shard: shard.fence(coin)
