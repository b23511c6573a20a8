"""The bad day of a market: services that hang, clocks that are wrong, frames that are no frames, strangers at the door.

The prices stand while a majority of venues is sound, age honestly when none is, and come back without a person.
"""

import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from benchmarks import hostile_clients
from tests.conftest import SEED
from tests.system.conftest import PARTS, System, wait_until
from tests.system.test_pull_the_plug import said

from cotacoes.model.quote import parse_time, utc_now

ROOT = Path(__file__).parents[2]
VENUES = ("binance", "coinbase", "kraken", "bitstamp", "okx", "bybit")
COINS = ("bitcoin", "ethereum")
FRESH_MS, AGE_MAX_MS = 4_000, 6_000  # above the 2.6 s by which a clock that jumps makes a price look older
SOON = {
    "COTACOES_BREAKER_FAILURES": "3",
    "COTACOES_BREAKER_OPEN_S": "1",
    "COTACOES_BREAKER_OPEN_MAX_S": "2",
    "COTACOES_FRESH_S": str(FRESH_MS / 1000),
    "COTACOES_AGE_MAX_S": str(AGE_MAX_MS / 1000),
    "COTACOES_FAILURE_RATE": "0",
}
REFUSED_S_MAX = 15.0  # from the last price to the refusal
# The circuit stays open for up to 2 s; a venue's back-off may have grown to 30 s, and an opening may take 10 s.
RECOVERED_S_MAX = 45.0
APART_MAX = Decimal("0.003")  # of the price from the market, which moves on while it is asked
HASTE_MAX = 0.7  # of a core, for feed_service
RSS_BYTES_MAX = 256_000_000  # of feed_service, which has some 60 MB
STRANGERS_AT_ONCE = 4
GROWTH_BYTES_MAX = 25_000_000  # of its memory within seconds: two frames of the largest size for each venue


@pytest.fixture(scope="module")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One that follows simulated exchanges by poll, for all tests here; each leaves it running, without faults."""
    with System(tmp_path_factory.mktemp("a system") / "data", "--source", "venues", environment=SOON) as system:
        system.begin()
        system.wait_for_states(dict.fromkeys([*PARTS, "feed_service"], "running"))
        wait_all_live(system)
        wait_fresh(system)
        yield system


def put(system: System, path: str, **setting: Any) -> None:
    """Set the faults of a simulated venue, or what happens to its market."""
    token = system.ask("env")["env"]["COTACOES_ADMIN_TOKEN"]
    asked = urllib.request.Request(
        f"{system.url('external_service')}/venues/{path}",
        json.dumps(setting).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.status == 200


@contextlib.contextmanager
def faulty(system: System, faults: dict[str, dict[str, Any]]) -> Iterator[None]:
    """These faults of these venues, and none afterwards."""
    for venue, setting in faults.items():
        put(system, f"{venue}/faults", **setting)
    try:
        yield
    finally:
        for venue in faults:
            put(system, f"{venue}/faults")


def venues(system: System) -> Any:
    return system.get("feed_service", "/v1/venues").body


def live(system: System) -> set[str]:
    return {feed["venue"] for feed in venues(system)["feeds"] if feed["state"] == "live"}


def wait_all_live(system: System) -> None:
    wait_until("all venues are live", lambda: live(system) == set(VENUES), RECOVERED_S_MAX)


def wait_fresh(system: System) -> float:
    """Return once the prices of all coins are fresh and live, with how long that took."""
    began_s = time.monotonic()
    answers = [("fresh", "live", "closed")] * len(COINS)
    wait_until("fresh and live", lambda: [_state(system, coin) for coin in COINS] == answers, RECOVERED_S_MAX)
    return time.monotonic() - began_s


def _state(system: System, coin: str) -> Any:
    answer = system.get("quote_service", f"/cotacao_atual/{coin}")
    return (answer.body["status"], answer.body["source"], answer.body["breaker"]) if answer.status == 200 else None


def wait_refused(system: System, coin: str) -> Any:
    """The refusal of a price that has become too old; before it, each answer was honest about its age."""
    seen: list[Any] = []

    def refused() -> Any:
        answer = system.get("quote_service", f"/cotacao_atual/{coin}")
        seen.append((answer.status, answer.body.get("status"), answer.body["age_ms"]))
        return answer.body if answer.status == 503 else None

    problem = wait_until("the price is refused", refused, REFUSED_S_MAX)
    for status, shown, age_ms in seen:
        honest = "fresh" if age_ms <= FRESH_MS else "stale"
        assert status == 503 if age_ms > AGE_MAX_MS else (status, shown) == (200, honest)
    assert any(shown == "stale" for _, shown, _ in seen)
    assert problem["reason"] == "too_old"
    return problem


def refusal(system: System, coin: str) -> Any:
    answer = system.get("quote_service", f"/cotacao_atual/{coin}")
    assert answer.status == 503, answer.body
    return answer.body


def doctor(system: System) -> list[dict[str, Any]]:
    """The findings of the doctor that are not ok."""
    found = json.loads(system.cli("doctor", "--json").stdout)
    return [finding for finding in found["findings"] if finding["severity"] != "ok"]


def rejected(system: System) -> dict[str, float]:
    """The prices that quote_service has rejected, by reason."""
    text = system.get("quote_service", "/metrics").body
    found: dict[str, float] = {}
    for reason, count in re.findall(
        r'^cotacoes_prices_rejected_total\{.*reason="(\w+)".*\} (\S+)$', text, re.MULTILINE
    ):
        found[reason] = found.get(reason, 0.0) + float(count)
    return found


def apart(system: System, coin: str) -> Decimal:
    """How far the current price is from the market that the exchanges play, as a share of it."""
    answer = system.get("quote_service", f"/cotacao_atual/{coin}")
    assert (answer.status, answer.body["status"]) == (200, "fresh"), (answer.body, venues(system))
    market = Decimal(str(system.get("external_service", "/quote").body[coin]))
    return abs(Decimal(answer.body["price"]) / market - 1)


def watch(system: System, seconds: float) -> None:
    """See for so long that prices are fresh, near the market, and never from the future."""
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        for coin in COINS:
            assert apart(system, coin) < APART_MAX
            shown = system.get("feed_service", f"/v1/venues/{coin}").body
            times = [shown["as_of"], *(book["as_of"] for book in shown["venues"] if book.get("as_of"))]
            assert all(parse_time(text) <= utc_now() for text in times)
        time.sleep(0.1)


def test_a_source_that_hangs_opens_the_circuit_and_prices_age_until_they_are_refused(running_system: System) -> None:
    system = running_system
    since = len(system.events)
    system.ask("freeze", "feed_service")
    try:
        said(system, "breaker.opened", since)
        wait_refused(system, "bitcoin")
        findings = doctor(system)
        assert any("feed_service" in finding["text"] for finding in findings), findings
    finally:
        system.ask("start", "feed_service")
    assert wait_fresh(system) < RECOVERED_S_MAX
    wait_all_live(system)


@pytest.mark.soak
def test_exchanges_that_hang_are_named_and_prices_age_until_they_are_refused(running_system: System) -> None:
    system = running_system
    system.ask("freeze", "external_service")
    try:
        wait_refused(system, "ethereum")
        wait_until("the refusal says so", lambda: "no_venue" in refusal(system, "ethereum")["detail"])
        findings = doctor(system)
        named = {finding["check"] for finding in findings}
        assert {"parts", "venues", "consensus", "quotes"} <= named, findings
    finally:
        system.ask("start", "external_service")
    assert wait_fresh(system) < RECOVERED_S_MAX
    wait_all_live(system)


def test_wrong_clocks_of_exchanges_show_in_no_age_and_no_price_is_refused_when_the_fast_one_leaves(
    running_system: System,
) -> None:
    system = running_system
    clocks: dict[str, dict[str, Any]] = {
        "binance": {"skew_s": 1.3},
        "kraken": {"skew_s": -1.3},
        "coinbase": {"clock": "jumping"},
        "bybit": {"clock": "frozen"},
    }
    with faulty(system, clocks):
        watch(system, 3.0)
        before = rejected(system)
        with faulty(system, {"binance": {"refuse": 503, "cut_after_s": 0}}):
            wait_until("the fast one has left", lambda: "binance" not in live(system))
            watch(system, 2.0)
        after = rejected(system)
    assert {reason for reason in after if after[reason] > before.get(reason, 0.0)} <= {"not_new"}
    wait_all_live(system)


def test_frames_that_cannot_be_read_move_no_price_and_cost_little(running_system: System) -> None:
    system = running_system
    see_bad_frames(system, 3.0, pace=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_minutes_of_frames_that_cannot_be_read_leave_the_memory_as_it_is(running_system: System) -> None:
    see_bad_frames(running_system, 240.0, pace=5)


def see_bad_frames(system: System, seconds: float, *, pace: float) -> None:
    """Let all venues send one bad frame for each good one, and see what that costs feed_service."""
    process = psutil.Process(system.pid("feed_service"))
    put(system, "market", pace=pace)
    with faulty(system, {venue: {"garbage": 1.0} for venue in VENUES}):
        watch(system, 1.0)
        began_s, spent_s, before = time.monotonic(), _spent_s(process), process.memory_info().rss
        malformed = _malformed(system)
        watch(system, seconds)
        growth = process.memory_info().rss - before
        haste = (_spent_s(process) - spent_s) / (time.monotonic() - began_s)
        count = _malformed(system) - malformed
    put(system, "market")
    sys.stdout.write(f"\n{count} bad frames in {seconds:g} s: {growth / 1e6:+.1f} MB, {haste:.2f} of a core\n")
    assert count > 20 * seconds
    assert growth < GROWTH_BYTES_MAX
    assert haste < HASTE_MAX
    assert live(system) == set(VENUES)


def _spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _malformed(system: System) -> int:
    return sum(feed["malformed"] for feed in venues(system)["feeds"])


STRANGERS = [
    ("pipelining", "feed_service"),
    ("silent", "feed_service"),
    ("tape-pages", "feed_service"),
    ("tape-waits", "feed_service"),
    ("nonsense", "external_service"),
    ("venue-streams", "external_service"),
]


def test_strangers_stop_neither_the_prices_nor_the_feed(running_system: System) -> None:
    see_strangers(running_system, 3.0, STRANGERS)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_strangers_of_every_kind_for_minutes_stop_neither_the_prices_nor_the_feed(running_system: System) -> None:
    """Each kind against each door, some at a time."""
    pairs = list(itertools.product(sorted(hostile_clients.ATTACKS), ("feed_service", "external_service")))
    random.Random(SEED).shuffle(pairs)
    for at in range(0, len(pairs), STRANGERS_AT_ONCE):
        see_strangers(running_system, 10.0, pairs[at : at + STRANGERS_AT_ONCE])


def see_strangers(system: System, seconds: float, strangers: Iterable[tuple[str, str]]) -> None:
    """Let strangers of these kinds loose upon these services, and see that prices go on."""
    process = psutil.Process(system.pid("feed_service"))
    attackers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.hostile_clients", kind, str(system.port(service)), str(seconds)],
            cwd=ROOT,
        )
        for kind, service in strangers
    ]
    try:
        watch(system, seconds)
    finally:
        for attacker in attackers:
            attacker.wait(60)
    assert all(attacker.returncode == 0 for attacker in attackers)
    assert process.memory_info().rss < RSS_BYTES_MAX
    wait_fresh(system)
    wait_all_live(system)
