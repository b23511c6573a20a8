"""Poison is never let in, and what is merely not new is told apart from it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from cotacoes.quote import Observation, Quote
from cotacoes.quote_service.screen import ORIGINS_MAX, JumpLimit, Screen

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def seen(price: str, seconds: float = 0.0, *, coin: str = "bitcoin", origin: str = "sim") -> Observation:
    return Observation(coin, "USD", Decimal(price), NOON + timedelta(seconds=seconds), origin)


def recorded(price: str) -> Quote:
    return Quote("bitcoin", "USD", Decimal(price), 5, 1, NOON, NOON, "sim")


def new_screen() -> Screen:
    return Screen(["bitcoin"], JumpLimit(Decimal(10), timedelta(seconds=300)))


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (seen("100"), None),
        (seen("100", coin="dogecoin"), "unknown_coin"),
        (seen("100", 5), None),
        (seen("100", 5.001), "future"),
        (seen("100", -3600), None),
        (seen("100", -3600.001), "old"),
    ],
)
def test_the_rules_of_a_first_price(observation: Observation, reason: str | None) -> None:
    assert new_screen().judge(observation, None, NOON) == reason


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (seen("100", 1), None),
        (seen("100", 0), "not_new"),
        (seen("101", 0), "not_new"),
        (seen("100", -1), "backwards"),
        (seen("1000", 1), None),
        (seen("1000.01", 1), "absurd"),
        (seen("10", 1), None),
        (seen("9.99", 1), "absurd"),
        (seen("100000", 1, origin="replay:x"), None),
    ],
)
def test_the_rules_after_a_recorded_price(observation: Observation, reason: str | None) -> None:
    assert new_screen().judge(observation, recorded("100"), NOON + timedelta(seconds=1)) == reason


def test_a_market_that_really_jumped_is_believed_once_the_old_price_is_too_old_to_judge() -> None:
    screen = new_screen()
    assert screen.judge(seen("2000", 300), recorded("100"), NOON + timedelta(seconds=300)) == "absurd"
    assert screen.judge(seen("2000", 301), recorded("100"), NOON + timedelta(seconds=301)) is None


def test_a_source_that_makes_origins_up_is_held_to_a_number_of_them() -> None:
    screen = new_screen()
    for number in range(ORIGINS_MAX):
        assert screen.judge(seen("100", origin=f"made-up-{number}"), None, NOON) is None
    assert screen.judge(seen("100", origin="one-more"), None, NOON) == "origins"
    assert screen.judge(seen("100", origin="made-up-7"), None, NOON) is None
