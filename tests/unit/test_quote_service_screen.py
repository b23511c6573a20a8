"""Poison is never let in, and what is merely not new is told apart from it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from cotacoes.quote import Observation
from cotacoes.quote_service.screen import JumpLimit, Screen

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def seen(price: str, seconds: float = 0.0, *, coin: str = "bitcoin", origin: str = "sim") -> Observation:
    return Observation(coin, "USD", Decimal(price), NOON + timedelta(seconds=seconds), origin)


def new_screen(accepted: Observation | None = None) -> Screen:
    screen = Screen(["bitcoin"], JumpLimit(Decimal(10), timedelta(seconds=300)))
    if accepted is not None:
        screen.accept(accepted)
    return screen


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
    assert new_screen().judge(observation, NOON) == reason


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
def test_the_rules_after_an_accepted_price(observation: Observation, reason: str | None) -> None:
    assert new_screen(seen("100")).judge(observation, NOON + timedelta(seconds=1)) == reason


def test_a_market_that_really_jumped_is_believed_once_the_old_price_is_too_old_to_judge() -> None:
    screen = new_screen(seen("100"))
    assert screen.judge(seen("2000", 300), NOON + timedelta(seconds=300)) == "absurd"
    assert screen.judge(seen("2000", 301), NOON + timedelta(seconds=301)) is None


def test_a_refused_price_judges_nothing() -> None:
    screen = new_screen(seen("100"))
    assert screen.judge(seen("5000", 1), NOON) == "absurd"
    assert screen.judge(seen("101", 1), NOON) is None
