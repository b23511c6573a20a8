"""Kill -9 of feed_service, of the exchanges and of quote_service: nothing is doubled, each hole is reported once."""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.system.conftest import PARTS, System, wait_until
from tests.system.harness_tape_witness import TapeWitness, breaches, noted_gaps
from tests.system.harness_witness import Witness, stored_rows, subscriber_lives
from tests.system.test_storm import COINS, LIVE_QUOTES, history, hold, kill, pending, published, states

from cotacoes.config import SHARDS

VICTIMS = ("feed_service", "external_service", "quote_service")
STORES = "shard1 and redis"
AWAY_S = (1.0, 2.0, 1.0)  # the shard alone, with Redis, and alone again
LONG_AWAY_S = (3.0, 3.0, 4.0)
QUIET_S_MAX = 0.5
# A service waits up to 10 s for its restart and starts in some seconds, the circuit stays open for up to 10 s, and a
# venue whose back-off has grown is connected to again within 30 s.
RECOVERED_S_MAX = 45.0
KILLS_OF_A_SOAK = 100


def test_five_kills_double_no_price_of_the_tape_and_report_each_gap(tmp_path: Path) -> None:
    """And a shard that is killed for some seconds, with Redis for a part of them, costs no price at all."""
    dice = random.Random(SEED)
    victims = [*VICTIMS, "feed_service", "quote_service"]
    dice.shuffle(victims)
    endure(tmp_path, [STORES, *victims], dice, mode="tape")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["tape", "latest"])
def test_a_hundred_kills_double_no_price_and_report_each_gap(tmp_path: Path, mode: str) -> None:
    """Half of them with each way of taking the prices, after a shard was away for ten seconds."""
    dice = random.Random(f"{SEED}/{mode}")
    kills = islice(_victims(dice), KILLS_OF_A_SOAK // 2)
    endure(tmp_path, chain([STORES], kills), dice, mode=mode, away_s=LONG_AWAY_S)


def _victims(dice: random.Random) -> Iterator[str]:
    while True:
        yield dice.choice(VICTIMS)


def endure(
    folder: Path,
    victims: Iterable[str],
    dice: random.Random,
    *,
    mode: str,
    away_s: tuple[float, float, float] = AWAY_S,
) -> None:
    """Kill one after the other, each once prices come again, and hold what is stored against what was seen."""
    environment = {"COTACOES_SOURCE_MODE": mode, "COTACOES_POLL_INTERVAL_S": "0.1", "COTACOES_FETCH_DEADLINE_S": "0.5"}
    with System(folder / "data", "--source", "venues", environment=environment) as system:
        system.begin()
        system.wait_for_states(dict.fromkeys([*PARTS, "feed_service"], "running"))
        dsns = [system.dsn(shard) for shard in SHARDS]
        killed: list[str] = []
        recovered_s: list[float] = []
        with (
            Witness(system.redis_url(), system.url("quote_service"), COINS) as witness,
            TapeWitness(system.url("feed_service")) as tape,
        ):
            wait_live(witness, published(witness))
            for victim in victims:
                time.sleep(dice.uniform(0.0, QUIET_S_MAX))
                killed.append(victim)
                if victim == STORES:
                    kill_stores(system, *away_s)
                else:
                    kill(system, victim)
                recovered_s.append(wait_live(witness, published(witness)))
            wait_until("everything runs", lambda: states(system) == {"running"}, RECOVERED_S_MAX)
            assert all(_current(system, coin)["status"] == "fresh" for coin in COINS)
            system.ask("stop", "feed_service")  # so that delivery can come to an end
            wait_until("everything is delivered", lambda: pending(system) == [0, 0])
        lives = subscriber_lives(system.events)
        hold(system, witness, lives, stored_rows(dsns), least=LIVE_QUOTES * len(killed))
        gaps, stored = noted_gaps(system.data), {coin: history(system, coin) for coin in COINS}
        assert len(tape.runs) == 1 + killed.count("feed_service")
        assert breaches(tape.runs, gaps, stored, is_whole=mode == "tape") == []
        if mode == "tape":
            assert len(gaps) == killed.count("feed_service")  # each of them was seen, since prices came between
        audited = system.cli("audit")
        assert audited.returncode == 0, audited.stdout
        sys.stdout.write(
            f"\n{len(killed)} kills by {mode}: {dict(Counter(killed))}; {sum(len(run.entries) for run in tape.runs)} "
            f"prices on the tape, {sum(map(len, stored.values()))} stored, {len(gaps)} gaps; live again after "
            f"{min(recovered_s):.1f} to {max(recovered_s):.1f} s\n"
        )


def kill_stores(system: System, alone_s: float, both_s: float, rest_s: float) -> None:
    """kill -9 of a shard, then of Redis; for some time neither is started again."""
    for part, away_s in (("shard1", alone_s), ("redis", both_s)):
        kill(system, part)
        system.ask("stop", part)
        time.sleep(away_s)
    system.ask("start", "redis")
    time.sleep(rest_s)
    system.ask("start", "shard1")


def wait_live(witness: Witness, before: dict[str, int]) -> float:
    """Return once quotes of both coins come again, with how long that took."""
    began_s = time.monotonic()
    wait_until(
        "both coins are live",
        lambda: all(count > before[coin] + LIVE_QUOTES for coin, count in published(witness).items()),
        RECOVERED_S_MAX,
    )
    return time.monotonic() - began_s


def _current(system: System, coin: str) -> dict[str, str]:
    answer = system.get("quote_service", f"/cotacao_atual/{coin}")
    assert answer.status == 200, answer.body
    body: dict[str, str] = answer.body
    return body
