"""Where a coin lives, as the audit judges it: the fences of all shards against each other and against the directory.

    open, closed   the home: exactly one, under a higher placement than any copy that moved
    moved          a copy left behind: it names the next shard; its quotes are the beginning of the home's
    incoming       a copy in the making: noted, not judged

The directory must agree with the home's fence. A shard that is away may hold the home; then the coin is not judged.
Pure: fences and directory are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from cotacoes.patterns.sharding.ledger_facts import AT_HOME, NONE, Breach, CoinCopy, differences
from cotacoes.patterns.sharding.shard import Home


@dataclass(frozen=True)
class Standing:
    """A coin's home, None if it has none or that may be on `away`; breaches and notes, each with its shard."""

    home: str | None
    away: str | None
    breaches: list[tuple[str, Breach]]
    notes: list[tuple[str, str]]


def standing(
    entry: Home | None, copies: Mapping[str, CoinCopy], *, away: Collection[str], directory_shard: str
) -> Standing:
    """Judge one coin by the directory's `entry` and its copies on the shards that answer."""
    at_home = [shard for shard, copy in copies.items() if copy.state in AT_HOME]
    home = max(at_home, key=lambda shard: (copies[shard].placement, _is_at(entry, shard)), default=None)
    missing = _away_home(entry, copies, away) if home is None else None
    breaches = [*_beside_home(home, copies)]
    if home is None and missing is None:
        shard = entry.shard if entry else next(iter(copies))
        breaches.append((shard, Breach("fence", "home of the coin", NONE, "one open fence")))
    if directory_shard not in away:
        breaches += [(directory_shard, breach) for breach in _against_directory(entry, home, copies)]
    return Standing(home, missing, breaches, [*_notes(copies)])


def _beside_home(home: str | None, copies: Mapping[str, CoinCopy]) -> Iterator[tuple[str, Breach]]:
    if home is None:
        return
    best = copies[home]
    for shard, copy in copies.items():
        if shard == home:
            continue
        if copy.state in AT_HOME:
            yield shard, Breach("fence", "state beside the home", copy.state, f"moved to {home}")
        if copy.state == "moved" and copy.placement >= best.placement:
            wanted = f"less than {best.placement}, the home's"
            yield shard, Breach("fence", "placement of a copy that moved", str(copy.placement), wanted)
        if copy.state == "moved" and copy.placement == best.placement - 1 and copy.moved_to != home:
            yield shard, Breach("fence", "shard it has moved to", str(copy.moved_to), home)
        if copy.coin_id != best.coin_id:
            yield shard, Breach("fence", "id of the coin", str(copy.coin_id), str(best.coin_id))


def _against_directory(entry: Home | None, home: str | None, copies: Mapping[str, CoinCopy]) -> Iterator[Breach]:
    if home is None:
        if entry is None:
            yield Breach("directory", "entry", NONE, "one")
        return
    copy = copies[home]
    if entry is None:
        yield Breach("directory", "entry", NONE, f"one for {home}, placement {copy.placement}")
        return
    yield from differences(
        "directory",
        ("shard", entry.shard, home),
        ("placement", entry.placement, copy.placement),
        ("id of the coin", entry.coin_id, copy.coin_id),
    )


def _away_home(entry: Home | None, copies: Mapping[str, CoinCopy], away: Collection[str]) -> str | None:
    """The shard that does not answer and may hold the home."""
    named = [entry.shard] if entry else []
    newest_first = sorted(copies.values(), key=lambda copy: -copy.placement)
    named += [copy.moved_to for copy in newest_first if copy.moved_to is not None]
    return next((shard for shard in named if shard in away), None)


def _notes(copies: Mapping[str, CoinCopy]) -> Iterator[tuple[str, str]]:
    unfinished = "a move is under way or was interrupted; run `cotacoes shards move` again"
    for shard, copy in copies.items():
        if copy.state == "incoming":
            yield shard, f"a copy in the making: {unfinished}"
        if copy.state == "closed":
            yield shard, f"closed: {unfinished}"


def _is_at(entry: Home | None, shard: str) -> bool:
    return entry is not None and entry.shard == shard
