"""`cotacoes shards purge`: delete the copies of a coin that moves have left behind, once the home holds the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta

from cotacoes.admin.copies import claim, compare_left, copies_of, remove
from cotacoes.errors import ShardUnavailableError
from cotacoes.patterns.sharding.moving import MovingShard, home_of, is_left_behind

GRACE = timedelta(hours=1)  # whoever still asks the old shard is told the new one until then


async def purge(
    coin: str,
    shards: Mapping[str, MovingShard],
    away: Collection[str],
    *,
    grace: timedelta = GRACE,
    say: Callable[[str], Awaitable[None]],
) -> int:
    """Delete what is left behind on `shards`, which answer; how many copies. Says what it does, and what it leaves.

    CopyDiffersError where the home does not hold the same: then that copy stays. Run again, it goes on where it ended.
    """
    copies, silent = await copies_of(coin, shards)
    home = home_of(coin, copies, {*away, *silent})
    purged = 0
    for name, copy in copies.items():
        if name == home or not is_left_behind(copy, copies[home]):
            continue
        if copy.state == "moved" and copy.age < grace:
            await say(f"{coin} on {name} stays until it has been left for {grace}; --now deletes it at once")
            continue
        await claim(coin, copy.coin_id, shards[name])
        if await shards[name].copy(coin) is None:
            continue  # another one has done it meanwhile
        if copy.state == "moved":  # one that was incoming has never been a home, and nothing is only there
            await compare_left(copy.coin_id, shards[name], shards[home])
        await remove(coin, copy, shards, name, (home, copies[home].placement))
        await say(f"{coin} on {name} is deleted; it lives on {home}")
        purged += 1
    if missing := {*away, *silent}:
        raise ShardUnavailableError(f"{', '.join(sorted(missing))} did not answer: run the command again when it does")
    return purged
