"""The checks of quote_service for /readyz: each gives the reason why a thing is not well, None if it is."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from cotacoes.config import SHARDS
from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.discrepancies import DiscrepancyWatch
from cotacoes.quote_service.recorder import Recorder
from cotacoes.web.app import Check


def checks(
    recorder: Recorder,
    directory: ShardDirectory,
    bus: Bus,
    deliveries: Mapping[str, Delivery],
    discrepancies: DiscrepancyWatch,
) -> dict[str, Check]:
    """All of them, by name."""

    async def log() -> str | None:
        return recorder.failure

    async def quotes() -> str | None:
        without = [coin for coin, history in recorder.histories.items() if history.newest is None]
        return f"no quote yet of {', '.join(without[:5])}" if len(without) == len(recorder.histories) else None

    return {
        "ledger": Check(discrepancies.check),
        "log": Check(log),
        "quotes": Check(quotes, required=True),
        "redis": Check(bus.ping),
        **{name: Check(functools.partial(check_shard, directory, deliveries, name)) for name in SHARDS},
    }


async def check_shard(directory: ShardDirectory, deliveries: Mapping[str, Delivery], name: str) -> str | None:
    """Why quotes do not get to a shard: it is away, refuses writes, or a delivery to it is held."""
    held = held_on(deliveries, name)
    try:
        await directory.shards[name].check_writable()
    except ShardUnavailableError as error:
        if held is None or error.detail not in held:
            return "; ".join(filter(None, (error.detail, held)))
    return held


def held_on(deliveries: Mapping[str, Delivery], shard: str) -> str | None:
    """Which coins of the shard are not delivered, since when and why; None if all are."""
    held = {coin: one for coin, one in deliveries.items() if one.shard == shard and one.held is not None}
    if not held:
        return None
    coin, oldest = max(held.items(), key=lambda item: item[1].waited_s)
    others = f" and of {len(held) - 1} more coins" if len(held) > 1 else ""
    return f"the delivery of {coin}{others} is held: {oldest.held}; the oldest quote has waited {oldest.waited_s:.0f} s"
