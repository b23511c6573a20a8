"""Where a coin lives, as the audit judges it: the fences of all shards against each other and against the directory.

    open, closed   the home: exactly one, under a higher placement than any copy that moved
    moved          what was left behind: it names the next shard; its quotes are a beginning of the home's
    incoming       a copy in the making: noted, not judged

The directory says the same as the home's fence. A shard that is away may hold the home: then nothing is said of it.
Pure: fences and directory are passed in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from cotacoes.adapters.postgres.shard_snapshot import FenceRow
from cotacoes.patterns.sharding.ledger_facts import NONE, Breach
from cotacoes.patterns.sharding.shard import Home

AT_HOME = ("open", "closed")


@dataclass(frozen=True)
class Standing:
    """A coin's home, None where there is none or its shard is away; what is wrong, by shard; what is worth a line."""

    home: str | None
    away: str | None
    breaches: list[tuple[str, Breach]]
    notes: list[tuple[str, str]]


def standing(
    entry: Home | None, fences: Mapping[str, FenceRow], *, away: Collection[str], directory_shard: str
) -> Standing:
    """Judge one coin. `entry` is the directory's, `fences` are by shard, without those that are away."""
    at_home = [shard for shard, fence in fences.items() if fence.state in AT_HOME]
    home = max(at_home, key=lambda shard: (fences[shard].placement, _is_at(entry, shard)), default=None)
    missing = _away_home(entry, fences, away) if home is None else None
    breaches = [*_beside_home(home, fences)]
    if home is None and missing is None:
        shard = entry.shard if entry else next(iter(fences))
        breaches.append((shard, Breach("fence", "home of the coin", NONE, "one open fence")))
    if directory_shard not in away:
        breaches += [(directory_shard, breach) for breach in _against_directory(entry, home, fences)]
    return Standing(home, missing, breaches, [*_notes(fences)])


def _beside_home(home: str | None, fences: Mapping[str, FenceRow]) -> Iterator[tuple[str, Breach]]:
    if home is None:
        return
    best = fences[home]
    for shard, fence in fences.items():
        if shard == home:
            continue
        if fence.state in AT_HOME:
            yield shard, Breach("fence", "state beside the home", fence.state, f"moved to {home}")
        if fence.state == "moved" and fence.placement >= best.placement:
            wanted = f"less than {best.placement}, the home's"
            yield shard, Breach("fence", "placement of what has moved", str(fence.placement), wanted)
        if fence.state == "moved" and fence.placement == best.placement - 1 and fence.moved_to != home:
            yield shard, Breach("fence", "shard it has moved to", str(fence.moved_to), home)
        if fence.coin_id != best.coin_id:
            yield shard, Breach("fence", "id of the coin", str(fence.coin_id), str(best.coin_id))


def _against_directory(entry: Home | None, home: str | None, fences: Mapping[str, FenceRow]) -> Iterator[Breach]:
    if home is None:
        if entry is None:
            yield Breach("directory", "entry", NONE, "one")
        return
    fence = fences[home]
    if entry is None:
        yield Breach("directory", "entry", NONE, f"one for {home}, placement {fence.placement}")
        return
    for what, found, wanted in (
        ("shard", entry.shard, home),
        ("placement", str(entry.placement), str(fence.placement)),
        ("id of the coin", str(entry.coin_id), str(fence.coin_id)),
    ):
        if found != wanted:
            yield Breach("directory", what, found, wanted)


def _away_home(entry: Home | None, fences: Mapping[str, FenceRow], away: Collection[str]) -> str | None:
    """The shard that may hold the home, although it does not answer."""
    named = [entry.shard] if entry else []
    newest_first = sorted(fences.values(), key=lambda fence: -fence.placement)
    named += [fence.moved_to for fence in newest_first if fence.moved_to is not None]
    return next((shard for shard in named if shard in away), None)


def _notes(fences: Mapping[str, FenceRow]) -> Iterator[tuple[str, str]]:
    for shard, fence in fences.items():
        if fence.state == "incoming":
            yield shard, "a copy in the making: a move is under way, or was left; run `cotacoes shards move` again"
        if fence.state == "closed":
            yield shard, "closed: a move is under way, or was left; run `cotacoes shards move` again"


def _is_at(entry: Home | None, shard: str) -> bool:
    return entry is not None and entry.shard == shard
