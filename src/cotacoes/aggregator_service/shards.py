"""The shards as the report asks them: each behind a breaker, so that one that hangs costs its share of a report once.

A shard that has failed five times in a row is left out at once, and named as missing, instead of being waited for in
every report; it is asked again after a second or a few.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotacoes.errors import ShardUnavailableError, TimedOutError
from cotacoes.model.window import Window
from cotacoes.patterns.resilience import CallDeadlineError, CircuitOpenError, ResiliencePolicy
from cotacoes.patterns.sharding.shard import Shard, ShardView
from cotacoes.web.upstreams import INTERNAL_BREAKER, WAIT_S_MAX, Upstreams, internal_policy


class ResilientShards:
    """`deadline_s` is of each question in seconds. Shards come and go: each gets its policy when it is first asked."""

    def __init__(self, upstreams: Upstreams, *, deadline_s: float) -> None:
        self._upstreams = upstreams
        self._config = internal_policy(deadline_s)
        self._policies: dict[str, ResiliencePolicy] = {}

    async def newest(
        self, name: str, shard: Shard, coins: Sequence[str], count: int, window: Window | None
    ) -> dict[str, ShardView]:
        """As `Shard.newest`. Raises ShardUnavailableError, and TimedOutError where it took too long."""
        policy = self._policies.get(name)
        if policy is None:
            policy = self._policies[name] = self._upstreams.add(name, INTERNAL_BREAKER, self._config)
        try:
            return (await policy.call(lambda: shard.newest(coins, count, window), idempotent=True)).value
        except CircuitOpenError as error:
            wait_s = min(error.retry_after, WAIT_S_MAX)
            raise ShardUnavailableError(f"{name} is away (circuit open)", retry_after_s=wait_s) from error
        except CallDeadlineError as error:
            raise TimedOutError(f"{name} is away (no time left)") from error
        except TimeoutError as error:
            raise TimedOutError(f"{name} is away ({error})") from error
