"""The simulated market: same seed, same prices; exact, bounded, and nothing to catch up with."""

import itertools
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.external_service.market import SimulatedMarket, price_at, start_hundredths

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COINS = ["bitcoin", "ethereum", "solana"]


class Hands:
    """A clock moved by hand: monotonic seconds and the wall time."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = NOON

    def move(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += timedelta(seconds=seconds)


def market(hands: Hands, *, seed: int = 1, tick_s: float = 0.25, coins: list[str] | None = None) -> SimulatedMarket:
    return SimulatedMarket(
        coins or COINS,
        seed=seed,
        tick_s=tick_s,
        started_at=hands.wall,
        clock=lambda: hands.monotonic,
        now=lambda: hands.wall,
    )


def seen(market: SimulatedMarket, hands: Hands, *, polls: int, every_s: float) -> list[dict[str, Decimal]]:
    prices = []
    for _ in range(polls):
        prices.append({coin: quote.price for coin, quote in market.quotes().items()})
        hands.move(every_s)
    return prices


def test_the_same_seed_gives_the_same_prices_and_another_seed_gives_others() -> None:
    runs = []
    for seed in (7, 7, 8):
        hands = Hands()
        runs.append(seen(market(hands, seed=seed), hands, polls=50, every_s=0.25))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_known_prices_are_the_same_on_every_machine_and_version_of_python() -> None:
    assert [str(price_at(1, "bitcoin", tick)) for tick in range(3)] == ["66614.08", "66607.51", "66612.87"]
    assert [str(price_at(1, "ethereum", tick)) for tick in (0, 1, 10**9)] == ["3548.16", "3547.58", "3458.33"]


def test_a_price_depends_on_the_tick_and_not_on_how_often_it_was_read() -> None:
    often, seldom = Hands(), Hands()
    asked_often = seen(market(often), often, polls=101, every_s=0.25)
    asked_seldom = seen(market(seldom), seldom, polls=2, every_s=25.0)
    assert asked_often[100] == asked_seldom[1]


@given(seed=st.integers(0, 2**63 - 1), tick=st.integers(0, 10**15), coin=st.sampled_from([*COINS, "a", "z" * 32]))
def test_a_price_is_positive_has_two_places_and_stays_near_its_start(seed: int, tick: int, coin: str) -> None:
    price = price_at(seed, coin, tick)
    assert price.as_tuple().exponent == -2
    start = Decimal(start_hundredths(seed, coin)) / 100
    assert start * Decimal("0.9") - 1 <= price <= start * Decimal("1.1") + 1
    assert price > 0


@pytest.mark.slow
def test_the_walk_moves_a_little_at_each_tick_and_further_over_many() -> None:
    prices = [price_at(1, "bitcoin", tick) for tick in range(20_000)]
    steps = [abs(after - before) for before, after in itertools.pairwise(prices)]
    assert max(steps) < 40
    assert sum(1 for step in steps if step) > 0.98 * len(steps)
    assert max(prices) - min(prices) > 300


def test_a_quote_keeps_its_time_until_the_next_tick_and_coins_tick_one_after_the_other() -> None:
    hands = Hands()
    simulated = market(hands, tick_s=3.0)
    times = [{coin: quote.observed_at for coin, quote in simulated.quotes().items()}]
    for _ in range(3):
        hands.move(1.0)
        times.append({coin: quote.observed_at for coin, quote in simulated.quotes().items()})
    changed = [[coin for coin in COINS if before[coin] != after[coin]] for before, after in itertools.pairwise(times)]
    assert sorted(coin for coins in changed for coin in coins) == COINS
    assert all(len(coins) == 1 for coins in changed)
    assert all(time <= hands.wall for moment in times for time in moment.values())


def test_a_wall_clock_that_was_set_is_followed_at_the_next_tick() -> None:
    hands = Hands()
    simulated = market(hands, coins=["bitcoin"])
    simulated.quotes()
    hands.wall -= timedelta(hours=3)
    hands.move(0.25)
    assert simulated.quotes()["bitcoin"].observed_at == hands.wall


def test_a_market_that_was_idle_for_a_year_answers_at_once() -> None:
    hands = Hands()
    simulated = market(hands, tick_s=0.001)
    hands.move(365 * 86_400)
    started = time.process_time()
    simulated.quotes()
    assert time.process_time() - started < 1.0  # stepping the walk tick by tick would take hours
