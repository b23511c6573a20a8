"""The tape: each recorded price is in the history once, in order, digit for digit, whatever is killed meanwhile."""

import gzip
import json
import random
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import SEED
from tests.harness_recordings import RecordedMarket, recorded_mids, the_market
from tests.system.conftest import System, wait_until
from tests.system.harness_witness import audit, stored_rows
from tests.system.test_storm import kill

from cotacoes.config import SHARDS
from cotacoes.up.supervision import die_with_parent

SIMULATED = Path(__file__).parents[2] / "docs" / "recordings" / "simulated_market.ndjson.gz"
TAPE = {"COTACOES_SOURCE_MODE": "tape", "COTACOES_POLL_INTERVAL_S": "0.1"}
LIMIT_S = 90.0


def own_prices(file: Path) -> dict[str, list[str]]:
    """Each coin's prices of a recording of ours, as decimal text."""
    prices: dict[str, list[str]] = defaultdict(list)
    with gzip.open(file, "rt") as lines:
        for line in lines:
            event = json.loads(line)
            if event["type"] == "quote":
                prices[event["coin"]].append(event["price"])
    return dict(prices)


def dsns(system: System) -> list[str]:
    return [system.dsn(shard) for shard in SHARDS]


def wait_stored(system: System, expected: Mapping[str, Sequence[str]]) -> None:
    """Return once the shards hold as many quotes as are expected; then hold them against it, price by price."""
    shards = dsns(system)

    def is_complete() -> bool:
        rows = stored_rows(shards)
        return all(len(rows[coin]) >= len(prices) for coin, prices in expected.items())

    wait_until("the whole recording is in the shards", is_complete, LIMIT_S)
    rows = stored_rows(shards)
    for coin, prices in expected.items():
        assert [row.price for row in rows[coin]] == list(prices)
        assert audit(rows[coin], []) == []


def test_no_price_of_the_tape_is_lost_or_doubled_over_kills_of_every_part(tmp_path: Path) -> None:
    expected = own_prices(SIMULATED)
    dice = random.Random(SEED)
    options = ("--source", f"replay:{SIMULATED}", "--speed", "8", "--failure-rate", "0.1")
    with System(tmp_path / "data", *options, environment=TAPE) as system:
        system.start()
        for victim in ("quote_service", "external_service", "shard1", "redis", "quote_service"):
            time.sleep(dice.uniform(0.2, 2.0))
            kill(system, victim)
        system.wait_for_states(dict.fromkeys(SHARDS, "running"))  # or there is nobody to ask what is stored
        wait_stored(system, expected)


@the_market
def test_a_recording_is_taken_whole_and_in_order_at_full_speed_over_stops(
    tmp_path: Path, market: RecordedMarket
) -> None:
    expected = {coin: list(recorded_mids(file)) for coin, file in market.files.items()}
    options = ("--source", market.source, "--speed", "max", "--failure-rate", "0")
    with System(tmp_path / "data", *options, environment=TAPE) as system:
        system.start()
        for _ in range(3):  # a page is always under way
            system.ask("stop", "quote_service")
            system.ask("start", "quote_service")
        kill(system, "quote_service")
        wait_stored(system, expected)


def test_a_history_is_filled_with_the_times_that_were_recorded(tmp_path: Path) -> None:
    """And it cannot be filled again behind what it holds by then."""
    expected = own_prices(SIMULATED)
    options = ("--source", f"replay:{SIMULATED}", "--speed", "max", "--replay-times", "original", "--failure-rate", "0")
    with System(tmp_path / "data", *options, environment=TAPE) as system:
        system.start()
        wait_stored(system, expected)
        quotes = system.get("quote_service", "/v1/quotes/bitcoin?limit=10000").body["quotes"]
        with gzip.open(SIMULATED, "rt") as lines:
            events = [json.loads(line) for line in lines]
        times = [one["observed_at"] for one in events if one["type"] == "quote" and one["coin"] == "bitcoin"]
        assert [quote["observed_at"] for quote in quotes] == times
        assert [quote["at"] for quote in quotes] == times
        system.signal(signal.SIGINT)
        assert system.wait_ended() == 130
        (system.data / "external_service" / "run.json").unlink()  # as another recording would: another run
        system.begin()
        failed = system.wait_for_event(
            "quote_service refuses", lambda e: e.get("part") == "quote_service" and e.get("state") == "failed", 40
        )
        assert "set --data to another folder" in failed["detail"]


def test_a_recording_of_a_replay_of_a_recording_has_the_same_prices(tmp_path: Path) -> None:
    first, second = tmp_path / "first.ndjson.gz", tmp_path / "second.ndjson"
    fast = {**TAPE, "COTACOES_TICK_MS": "50"}
    with System(tmp_path / "a", "--failure-rate", "0", environment=fast) as system:
        system.start()
        done = system.cli("record", "--out", str(first), "--for", "3")
        assert done.returncode == 0, done.stderr
        assert "exists already" in system.cli("record", "--out", str(first), "--for", "1").stderr
    expected = own_prices(first)
    assert all(len(prices) > 30 for prices in expected.values())
    with System(tmp_path / "b", "--source", f"replay:{first}", environment={**TAPE, "COTACOES_SPEED": "1"}) as system:
        system.begin()
        system.wait_for_states({"redis": "running"})
        system.ask("stop", "quote_service")  # before it has the databases that it needs
        recorder = subprocess.Popen(
            [
                *die_with_parent.launcher(signal.SIGKILL),
                *system.program,
                "record",
                "--out",
                str(second),
                "--data",
                str(system.data),
            ],
            env=system.environment,
            stderr=subprocess.PIPE,
        )
        try:
            wait_until("the recording has begun", second.exists)
            system.wait_for_states({"shard1": "running", "shard2": "running"})
            time.sleep(1.0)  # it listens
            system.ask("start", "quote_service")
            wait_stored(system, expected)
            time.sleep(0.5)
            recorder.send_signal(signal.SIGINT)
            _, said = recorder.communicate(timeout=10)
            assert recorder.returncode == 0, said
        finally:
            recorder.kill()
            recorder.wait()
    again: dict[str, list[str]] = defaultdict(list)
    for line in second.read_text().splitlines():
        event = json.loads(line)
        assert event["type"] != "gap"
        if event["type"] == "quote":
            again[event["coin"]].append(event["price"])
    assert again == expected
