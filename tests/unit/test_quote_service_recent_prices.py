"""The prices that judge the next one are those of the history, however it was learnt."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.harness_quote_service import COIN, QuoteServiceCore

from cotacoes.model.quote import Observation
from cotacoes.quote_service.recent_prices import PRICES_MAX, JumpLimit, RecentPrices

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIMIT = JumpLimit(Decimal(10), timedelta(seconds=300))


def decimals(least: int, most: int) -> tuple[Decimal, Decimal]:
    return Decimal(least), Decimal(most)


def judged(prices: list[tuple[int, int]], at: int) -> tuple[Decimal, Decimal] | None:
    """The same, looked up in the whole history: seconds and prices."""
    window: list[tuple[int, int]] = []
    for second, price in prices:
        window = [one for one in window if one[0] >= second - 300][-PRICES_MAX:]
        if any(price > 10 * before or 10 * price < before for _, before in window):
            window = []
        window.append((second, price))
    left = [price for second, price in window if second >= at - 300][-PRICES_MAX:]
    return decimals(min(left), max(left)) if left else None


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 200))), st.integers(0, 400))
def test_bounds_are_the_lowest_and_highest_price_of_the_window_since_the_last_real_step(
    steps: list[tuple[int, int]], later: int
) -> None:
    recent, history, second = RecentPrices(LIMIT), [], 0
    for pause, price in steps:
        second += pause
        history.append((second, price))
        at = NOON + timedelta(seconds=second)
        recent.add(Observation(COIN, "USD", Decimal(price), at, "sim"), at)
    assert recent.bounds(NOON + timedelta(seconds=second + later)) == judged(history, second + later)


def test_there_are_never_more_prices_than_the_log_holds() -> None:
    recent = RecentPrices(LIMIT)
    recent.add_older([(NOON, Decimal(price)) for price in (1, 9, 3, *[4] * (PRICES_MAX - 2), 5)])
    assert recent.bounds(NOON) == decimals(3, 5)


def test_asking_for_bounds_drops_no_price() -> None:
    recent = RecentPrices(LIMIT)
    recent.add(Observation(COIN, "USD", Decimal(5), NOON, "sim"), NOON)
    assert recent.bounds(NOON + timedelta(days=1)) is None
    assert recent.bounds(NOON) == decimals(5, 5)


def test_changing_a_copy_leaves_the_original_unchanged() -> None:
    recent = RecentPrices(LIMIT)
    recent.add(Observation(COIN, "USD", Decimal(5), NOON, "sim"), NOON)
    copied = recent.copy()
    copied.add(Observation(COIN, "USD", Decimal(1), NOON, "sim"), NOON)
    assert (recent.bounds(NOON), copied.bounds(NOON)) == (decimals(5, 5), decimals(1, 5))


@pytest.mark.anyio
async def test_a_restart_finds_the_same_prices_as_the_process_that_recorded_them(tmp_path: Path) -> None:
    first = QuoteServiceCore(tmp_path)
    await first.recorder.start()
    await first.record("5")
    first.wall += timedelta(seconds=301)
    await first.record("40", "8", "20")
    at = first.wall
    await first.recorder.close()
    core = QuoteServiceCore(tmp_path, wall=first.wall)
    await core.recorder.start()
    assert core.history.recent.bounds(at) == first.history.recent.bounds(at) == decimals(8, 40)
    assert core.history.recent.newest == first.history.newest
    await core.recorder.close()
