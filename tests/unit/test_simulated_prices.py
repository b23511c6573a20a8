"""The market as a venue sees it: exact, pure, and bent by exactly what is asked."""

from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.harness_simulated_venues import BY_NAME, NAMES

from cotacoes.external_service.market import price_at, wander_ppm
from cotacoes.external_service.venues.prices import Bent, Pair, best, mid_at

EXACT = Context(prec=60)


@dataclass(frozen=True)
class At:
    """A market that stands at one tick."""

    seed: int = 1
    now: int = 1_000

    def tick(self, coin: str, ago_s: float) -> int:
        return max(0, self.now - int(ago_s / 0.25))


def mid(venue: str = "kraken", coin: str = "bitcoin", currency: str = "USD", *, at: At = At(), **bent: Any) -> Decimal:
    return mid_at(at, venue, Pair(coin, currency), Bent(**bent), ago_s=0.0)


@pytest.mark.parametrize("venue", NAMES)
def test_every_venue_sees_the_same_market_within_two_basis_points(venue: str) -> None:
    for now in range(0, 50_000, 997):
        seen = mid(venue, at=At(now=now))
        true = price_at(1, "bitcoin", now)
        assert abs(seen / true - 1) < Decimal("0.0002")


def test_venues_differ_from_each_other_and_another_seed_is_another_market() -> None:
    assert len({mid(venue) for venue in NAMES}) > len(NAMES) / 2
    assert mid(at=At(seed=2)) != mid()
    assert mid() == mid()


def test_a_late_venue_shows_the_price_of_its_tick() -> None:
    late = mid_at(At(now=1_000), "kraken", Pair("bitcoin", "USD"), Bent(), ago_s=2.5)
    assert late == mid(at=At(now=990))


def test_a_shock_and_a_lie_multiply_the_price_exactly() -> None:
    assert mid(shock=Decimal("0.7")) == EXACT.multiply(mid(), Decimal("0.7"))
    assert mid(lie=Decimal("0.10")) == EXACT.multiply(mid(), Decimal("1.10"))
    assert mid(lie=Decimal("-0.5")) == EXACT.multiply(mid(), Decimal("0.5"))


def test_a_shock_of_coins_leaves_stablecoins_alone_and_a_peg_moves_them_and_what_is_priced_in_them() -> None:
    assert mid(coin="tether", shock=Decimal("0.7")) == mid(coin="tether")
    pegged: dict[str, Any] = {"pegs": (("USDT", Decimal("0.90")),)}
    assert mid(coin="tether", **pegged) == EXACT.multiply(mid(coin="tether"), Decimal("0.90"))
    raised = mid(currency="USDT", **pegged) * Decimal("0.90")
    assert abs(raised / mid(currency="USDT") - 1) < Decimal("1e-30")
    assert mid(currency="USDC", **pegged) == mid(currency="USDC")


def test_a_price_in_a_stablecoin_times_its_worth_is_the_price_in_usd() -> None:
    in_tether, tether = mid("kraken", currency="USDT"), mid("kraken", coin="tether")
    assert abs(in_tether * tether / mid("kraken") - 1) < Decimal("0.0002")


def test_a_stablecoin_stays_within_five_basis_points_of_a_dollar() -> None:
    worths = [mid(coin=coin, at=At(now=now)) for coin in ("tether", "usd-coin") for now in range(0, 100_000, 499)]
    assert max(abs(worth - 1) for worth in worths) < Decimal("0.0007")  # with the venue's own offset
    assert len(set(worths)) > len(worths) / 3


@given(
    venue=st.sampled_from(NAMES),
    price=st.decimals(Decimal("0.000001"), Decimal("100000000"), places=8, allow_nan=False),
)
def test_bid_and_ask_lie_around_the_middle_on_whole_units(venue: str, price: Decimal) -> None:
    bid, ask, unit = best(price, BY_NAME[venue].character)
    assert 0 < bid < ask
    assert bid <= max(price, unit)
    assert ask >= price
    assert ask - bid >= unit
    assert bid % unit == ask % unit == 0
    assert bid.as_tuple().exponent == ask.as_tuple().exponent == unit.as_tuple().exponent


@given(key=st.text(max_size=20), tick=st.integers(0, 10**12), bound=st.integers(0, 10_000))
def test_a_walk_around_zero_stays_within_its_bound(key: str, tick: int, bound: int) -> None:
    assert abs(wander_ppm(key, tick, bound_ppm=bound)) <= bound
