"""The faults: one verdict a request, at the rate and for the time that are set."""

import asyncio
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from cotacoes.external_service.faults import PRICE_KINDS, FaultKind, Faults, FaultSetting, FaultVerdict, render
from cotacoes.model.quote import Observation, format_price
from cotacoes.quote_service.source_quote import Fetched, read_quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COINS = {"bitcoin", "ethereum", "not-bitcoin"}
ANSWER_KINDS = [kind for kind in FaultKind if kind not in PRICE_KINDS]


def read(answer: bytes) -> Fetched:
    return asyncio.run(read_quote(answer, COINS))


class FaultsRig:
    def __init__(self, **setting: Any) -> None:
        self.seconds = 0.0
        self.ended: list[FaultSetting] = []
        self.faults = Faults(
            FaultSetting(**setting), clock=lambda: self.seconds, random=random.Random(5), on_end=self.ended.append
        )


def quote(coin: str, price: str, *, ago_s: int = 0) -> Observation:
    return Observation(coin, "USD", Decimal(price), NOON - timedelta(seconds=ago_s), "sim")


QUOTES = {"bitcoin": quote("bitcoin", "67012.34"), "ethereum": quote("ethereum", "3512.10", ago_s=1)}


def test_the_default_setting_causes_no_fault() -> None:
    rig = FaultsRig()
    assert {rig.faults.judge() for _ in range(100)} == {FaultVerdict()}


def test_errors_come_at_their_rate_at_once_and_with_the_statuses_set() -> None:
    rig = FaultsRig(error_rate=0.2, status=[500, 503, 504], latency_ms=1000)
    verdicts = [rig.faults.judge() for _ in range(5000)]
    errors = [verdict for verdict in verdicts if verdict.status is not None]
    assert 0.17 < len(errors) / len(verdicts) < 0.23
    assert {verdict.status for verdict in errors} == {500, 503, 504}
    assert {verdict.delay_s for verdict in errors} == {0.0}


@pytest.mark.parametrize("kind", list(FaultKind))
def test_a_kind_of_rate_one_hits_every_request(kind: FaultKind) -> None:
    rig = FaultsRig(kinds={kind: 1.0})
    assert {rig.faults.judge().kind for _ in range(20)} == {kind}


def test_each_kind_comes_at_its_rate_and_one_fault_a_request() -> None:
    rig = FaultsRig(kinds={"hang": 0.25, "nan": 0.25})
    kinds = Counter(rig.faults.judge().kind for _ in range(5000))
    assert 0.22 < kinds[FaultKind.HANG] / 5000 < 0.28
    assert 0.16 < kinds[FaultKind.NAN] / 5000 < 0.22  # a quarter of the requests that did not hang


def test_the_same_seed_gives_the_same_faults() -> None:
    setting = {"error_rate": 0.3, "jitter_ms": 50, "kinds": {"hang": 0.1, "zero": 0.5}}
    first, second = FaultsRig(**setting), FaultsRig(**setting)
    assert [first.faults.judge() for _ in range(200)] == [second.faults.judge() for _ in range(200)]


def test_latency_and_jitter_bound_the_delay() -> None:
    rig = FaultsRig(latency_ms=100, jitter_ms=50)
    delays = [rig.faults.judge().delay_s for _ in range(500)]
    assert 0.1 <= min(delays) < 0.11
    assert 0.14 < max(delays) <= 0.15


def test_a_timed_setting_ends_and_is_logged_once() -> None:
    rig = FaultsRig(error_rate=0.2)
    rig.faults.set(FaultSetting(error_rate=1.0, for_s=20))
    rig.seconds = 5.0
    assert rig.faults.current() == FaultSetting(error_rate=1.0, for_s=15)
    rig.faults.set(FaultSetting(kinds={FaultKind.HANG: 1.0}, for_s=1))
    rig.seconds = 6.0
    assert rig.faults.current() == FaultSetting(error_rate=0.2)
    assert rig.faults.current() == FaultSetting(error_rate=0.2)
    assert [setting.kinds for setting in rig.ended] == [{FaultKind.HANG: 1.0}]


def test_a_setting_replaces_the_one_before_completely() -> None:
    rig = FaultsRig(error_rate=0.2, kinds={"hang": 1.0}, coins=["bitcoin"])
    rig.faults.set(FaultSetting(latency_ms=5))
    assert rig.faults.current() == FaultSetting(latency_ms=5)


@pytest.mark.parametrize(
    "given",
    [
        {"errors": 1},
        {"error_rate": 1.01},
        {"error_rate": -0.1},
        {"error_rate": float("nan")},
        {"error_rate": "0.2"},
        {"error_rate": True},
        {"status": []},
        {"status": [200]},
        {"status": [500.0]},
        {"latency_ms": 60_001},
        {"jitter_ms": -1},
        {"retry_after_s": -1},
        {"kinds": {"explode": 1.0}},
        {"kinds": {"hang": 2.0}},
        {"kinds": ["hang"]},
        {"coins": ["BTC"]},
        {"for_s": 0},
        {"for_s": float("inf")},
    ],
)
def test_an_unknown_key_or_impossible_value_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        FaultSetting(**given)
    assert {problem["loc"][0] for problem in caught.value.errors()} == set(given)


def test_a_good_answer_has_the_prices_the_oldest_time_and_reads_back_exactly() -> None:
    body = json.loads(render(QUOTES, "sim"))
    assert body == {
        "bitcoin": "67012.34",
        "ethereum": "3512.10",
        "observed_at": "2026-11-24T11:59:59.000000Z",
        "observed": {"bitcoin": "2026-11-24T12:00:00.000000Z", "ethereum": "2026-11-24T11:59:59.000000Z"},
        "currency": {"bitcoin": "USD", "ethereum": "USD"},
        "origin": "sim",
    }
    assert list(body)[:2] == ["bitcoin", "ethereum"]
    assert read(render(QUOTES, "sim")).observations == list(QUOTES.values())


def test_an_answer_without_a_price_is_still_an_answer() -> None:
    assert read(render({}, "sim")).observations == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(FaultKind.NAN, "not_finite"), (FaultKind.ZERO, "zero"), (FaultKind.NEGATIVE, "negative")],
)
def test_a_price_fault_alters_the_coins_it_names_and_no_other(kind: FaultKind, reason: str) -> None:
    fetched = read(render(QUOTES, "sim", FaultVerdict(kind=kind, coins=("bitcoin",))))
    assert fetched.unreadable == [("bitcoin", reason)]
    assert fetched.observations == [QUOTES["ethereum"]]


def read_one(kind: FaultKind) -> Observation:
    only = {"bitcoin": QUOTES["bitcoin"]}
    fetched = read(render(only, "sim", FaultVerdict(kind=kind)))
    assert not fetched.unreadable
    return fetched.observations[0]


def test_readable_poison_is_what_its_name_says() -> None:
    assert read_one(FaultKind.WRONG_COIN).coin == "not-bitcoin"
    assert format_price(read_one(FaultKind.ABSURD).price) == "67012340"
    assert format_price(read_one(FaultKind.MANY_DIGITS).price) == "67012.3412345678912345678912345678"
    assert read_one(FaultKind.OLD_TIME).observed_at == NOON - timedelta(hours=2)
    assert read_one(FaultKind.FUTURE_TIME).observed_at == NOON + timedelta(hours=1)


def test_a_frozen_price_stays_until_another_setting() -> None:
    rig = FaultsRig()
    first = {"bitcoin": quote("bitcoin", "1.00")}
    later = {"bitcoin": quote("bitcoin", "2.00"), "ethereum": quote("ethereum", "3.00")}
    assert rig.faults.freeze(first) == first
    assert rig.faults.freeze(later) == {**later, **first}
    rig.faults.set(FaultSetting(kinds={FaultKind.FROZEN_PRICE: 1.0}))
    assert rig.faults.freeze(later) == later


def test_the_kinds_are_those_of_the_answer_and_those_of_the_prices() -> None:
    assert len(PRICE_KINDS) == 9
    assert len(ANSWER_KINDS) == 9
