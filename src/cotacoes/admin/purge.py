"""`cotacoes shards purge`: delete the copies of a coin that moves left behind, if the home holds the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta

from cotacoes.admin.copies import LIMITS, MoveLimits, claim, compare_left, copies_of, remove
from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.sharding.moving import MovingShard, home_of, is_left_behind

GRACE = timedelta(hours=1)  # until then the old shard refers its callers to the new one


async def purge(
    coin: str,
    shards: Mapping[str, MovingShard],
    away: Collection[str],
    *,
    grace: timedelta = GRACE,
    limits: MoveLimits = LIMITS,
    say: Callable[[str], Awaitable[None]],
) -> int:
    """Delete the copies left behind on `shards`, which answer; returns how many. `say` gets a line for each copy.

    CopyDiffersError if the home does not hold the same: then that copy stays. The same call continues where it ended.
    """
    copies, silent = await copies_of(coin, shards)
    home = home_of(coin, copies, {*away, *silent})
    purged = 0
    for name, copy in copies.items():
        if name == home or not is_left_behind(copy, copies[home]):
            continue
        if copy.state == "moved" and copy.age < grace:
            await say(f"{coin} on {name} stays until {grace} after its move; --now deletes it at once")
            continue
        await claim(coin, copy.coin_id, shards[name], limits=limits)
        if await shards[name].copy(coin) is None:
            continue  # another administrator deleted it in the meantime
        if copy.state == "moved":  # an incoming copy was never a home, so nothing is only there
            await compare_left(copy.coin_id, shards[name], shards[home])
        await remove(coin, copy, shards, name, (home, copies[home].placement), limits=limits)
        await say(f"{coin} on {name} is deleted; it lives on {home}")
        purged += 1
    if missing := {*away, *silent}:
        raise ShardUnavailableError(
            f"{', '.join(sorted(missing))} did not answer: run the command again when every shard does"
        )
    return purged
