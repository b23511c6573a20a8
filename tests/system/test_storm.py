"""Kill -9 at random moments, of one part or of everything, with a shard or Redis away: nothing that anyone saw is lost.

Nor is anything doubled, skipped or put in another order.
"""

import contextlib
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.conftest import SEED
from tests.system.conftest import PARTS, System, wait_until
from tests.system.harness_witness import Row, Seen, Witness, audit, falls, stored_rows, subscriber_lives, unreported

from cotacoes.config import SHARDS
from cotacoes.up.data_folder import read_running
from cotacoes.up.supervision import processes

COINS = ("bitcoin", "ethereum")
EVERYTHING = "everything"
DEPENDENCIES = ("shard1", "shard2", "redis")
# Fast enough that something is under way at every moment.
FAST = {"COTACOES_POLL_INTERVAL_S": "0.02", "COTACOES_TICK_MS": "10"}
QUIET_S_MAX = 2.0
LIVE_QUOTES = 10
HEAL_LIMIT_S = 60.0
KILLS_OF_A_SOAK = 50


Beside = Callable[[System], AbstractContextManager[object]]


class Blow(NamedTuple):
    """Who is killed, and who is away meanwhile, `stop`ped or `freeze`d."""

    victim: str
    away: str | None = None
    how: str = "stop"


def test_three_kills_lose_nothing(tmp_path: Path) -> None:
    """Of the writer, of a shard, and of everything at once."""
    blows = [Blow("quote_service", "shard1", "freeze"), Blow("shard1", "redis"), Blow(EVERYTHING, "shard2")]
    endure(tmp_path, blows, random.Random(SEED))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    """Of each part in turn and of everything, every other one with something else away."""
    dice = random.Random(SEED)
    endure(tmp_path, itertools.islice(kills(dice), KILLS_OF_A_SOAK), dice)


def kills(dice: random.Random) -> Iterator[Blow]:
    """Of each part in turn and of everything, without an end."""
    for victim in itertools.cycle([*PARTS, EVERYTHING]):
        others = [part for part in DEPENDENCIES if part != victim]
        yield Blow(victim, dice.choice([None, dice.choice(others)]), dice.choice(["stop", "freeze"]))


def endure(folder: Path, blows: Iterable[Blow], dice: random.Random, beside: Beside = contextlib.nullcontext) -> None:
    """Let the blows fall, let the system heal, and hold the shards against what was seen.

    What is `beside` goes on from the start of the system to the last blow.
    """
    with System(folder / "data", environment=FAST) as system:
        system.start()
        dsns = [system.dsn(shard) for shard in SHARDS]
        lives = []
        redis = system.redis_url()
        with Witness(redis, system.url("quote_service"), COINS) as witness:
            seen = published(witness)
            fallen = 0
            with beside(system):
                for blow in blows:
                    fallen += 1
                    wait_until("everything runs", lambda: states(system) == {"running"}, HEAL_LIMIT_S)
                    wait_live(witness, seen)
                    seen = published(witness)
                    if blow.away is not None:
                        system.ask(blow.how, blow.away)
                    time.sleep(dice.uniform(0.0, QUIET_S_MAX))
                    if blow.victim == EVERYTHING:
                        kill_everything(system)
                        lives += subscriber_lives(system.events)
                        system.begin()
                        continue
                    kill(system, blow.victim)
                    time.sleep(dice.uniform(0.0, QUIET_S_MAX))
                    if blow.away is not None:
                        system.ask("start", blow.away)
            wait_until("everything runs", lambda: states(system) == {"running"}, HEAL_LIMIT_S)
            wait_live(witness, published(witness))
            # The source ends, so that delivery can come to an end.
            system.ask("stop", "external_service")
            wait_until("everything is delivered", lambda: pending(system) == [0, 0], HEAL_LIMIT_S)
        lives += subscriber_lives(system.events)
        hold(system, witness, lives, stored_rows(dsns), least=LIVE_QUOTES * fallen)


def hold(
    system: System,
    witness: Witness,
    lives: Sequence[Mapping[str, Seen]],
    rows: Mapping[str, Sequence[Row]],
    *,
    least: int,
) -> None:
    """Hold the rows against what was seen: more than `least` quotes of each coin by the witness."""
    for coin in COINS:
        heard, current = witness.published[coin], witness.current[coin]
        assert len(heard.quotes) > least
        assert audit(rows[coin], [heard, current, *(life[coin] for life in lives)]) == []
        assert falls([position for position, _ in heard.quotes], strictly=True) == []
        assert falls([position for position, _ in current.quotes], strictly=False) == []
        shown = [life[coin] for life in lives]
        assert [breach for one in shown for breach in unreported(rows[coin], one)] == []
        assert [fall for one in shown for fall in falls([at for at, _ in one.quotes], strictly=True)] == []
        stored = [(f"{quote['epoch']}-{quote['seq']}", quote["price"]) for quote in history(system, coin)]
        assert stored == [(str(row.position), row.price) for row in rows[coin]]


def published(witness: Witness) -> dict[str, int]:
    """How many quotes of each coin were published by now."""
    return {coin: len(seen.quotes) for coin, seen in witness.published.items()}


def wait_live(witness: Witness, before: dict[str, int]) -> None:
    """Return once so many quotes of each coin were published after those of `before`."""
    wait_until(
        "both coins are live",
        lambda: all(count > before[coin] + LIVE_QUOTES for coin, count in published(witness).items()),
        HEAL_LIMIT_S,
    )


def kill(system: System, part: str) -> None:
    """kill -9 of a part, once it has a process."""
    pid = wait_until(f"{part} has a process", lambda: _children(system).get(part, (None, ""))[0], HEAL_LIMIT_S)
    processes.kill(processes.family(pid)[:1])


def kill_everything(system: System) -> None:
    """kill -9 of `up` and of all its parts, with all their processes, at once."""
    assert system.up is not None
    system.note_pids()
    processes.kill(processes.family(system.up.pid))
    system.wait_ended()
    wait_until("everything is gone", lambda: not system.left())


def _children(system: System) -> dict[str, tuple[int, str]]:
    running = read_running(system.data)
    return {} if running is None else {n: c for n, c in running.children.items() if processes.is_same(*c)}


def states(system: System) -> set[str]:
    return {part["state"] for part in system.status().values()}


def pending(system: System) -> list[int | None]:
    report = json.loads(system.cli("report", "--json").stdout)
    return [report["coins"][coin]["pending"] for coin in COINS]


def history(system: System, coin: str) -> list[dict[str, Any]]:
    """The whole history as the one read gives it, page by page."""
    quotes: list[dict[str, Any]] = []
    page: dict[str, Any] = {"more": True, "next": None}
    while page["more"]:
        after = "" if page["next"] is None else f"&after={page['next']}"
        page = system.get("quote_service", f"/v1/quotes/{coin}?limit=1000{after}").body
        quotes += page["quotes"]
    return quotes
