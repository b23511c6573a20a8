"""Bad prices are never recorded, and a price that is merely not new is not reported as bad."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import structlog

from cotacoes.model.quote import Observation
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.quote_service.recent_prices import JumpLimit, RecentPrices
from cotacoes.quote_service.validation import ORIGINS_MAX, Rejections, Validator

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIMIT = JumpLimit(Decimal(10), timedelta(seconds=300), confirm_prices=10, confirm=timedelta(seconds=30))


def seen(
    price: str, seconds: float = 0.0, *, coin: str = "bitcoin", origin: str = "sim", currency: str = "USD"
) -> Observation:
    return Observation(coin, currency, Decimal(price), NOON + timedelta(seconds=seconds), origin)


class Market:
    """A coin as quote_service knows it: a price that is judged good is recorded at once."""

    def __init__(self, *recorded: str, is_tape: bool = False, currency: str | None = None) -> None:
        self.recent = RecentPrices(LIMIT)
        self.screen = Validator(LIMIT, is_tape=is_tape, currency_of=lambda _: currency)
        for price in recorded:
            self.recent.add(seen(price), NOON)

    def reason(self, observation: Observation, now: float | None = None) -> str | None:
        """Why the price is not recorded; by default our clock shows the source's time."""
        at = observation.observed_at if now is None else NOON + timedelta(seconds=now)
        refusal = self.screen.judge(observation, self.recent, at)
        if refusal is None:
            self.recent.add(observation, self.recent.recorded_at(observation.observed_at, at))
        return None if refusal is None else refusal.reason


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (seen("100"), None),
        (seen("100", 5), None),
        (seen("100", 5.001), "future"),
        (seen("100", -3600), None),
        (seen("100", -3600.001), "old"),
    ],
)
def test_the_rules_of_a_first_price(observation: Observation, reason: str | None) -> None:
    assert Market().reason(observation, 0) == reason


def test_an_unknown_coin_is_rejected_as_unknown() -> None:
    refusal = Validator(LIMIT).judge(seen("100", coin="dogecoin"), None, NOON)
    assert refusal is not None
    assert refusal.reason == "unknown_coin"


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
        (seen("100000", 1, origin="replay:x"), "absurd"),
        (seen("101", 1, origin="replay:x"), None),
        (seen("100", 1, currency="USDT"), "currency"),
        (seen("100000", 1, currency="USDT"), "currency"),
    ],
)
@pytest.mark.parametrize("is_tape", [False, True])
def test_the_rules_after_a_recorded_price(observation: Observation, reason: str | None, is_tape: bool) -> None:
    if is_tape and reason in {"not_new", "backwards"}:
        reason = None
    assert Market("100", is_tape=is_tape).reason(observation, 1) == reason


def test_a_price_in_another_currency_is_rejected_with_both_named() -> None:
    refusal = Market("100").screen.judge(seen("100", 1, currency="USDT"), Market("100").recent, NOON)
    assert refusal is not None
    assert refusal.facts == {"currency": "USDT", "expected": "USD"}


def test_the_directory_decides_the_currency() -> None:
    assert Market(currency="BRL").reason(seen("100")) == "currency"
    assert Market("100", currency="BRL").reason(seen("100", 1)) == "currency"
    assert Market("100", currency="BRL").reason(seen("100", 1, currency="BRL")) is None


@pytest.mark.parametrize("is_tape", [False, True])
@pytest.mark.parametrize("factor", [Decimal(9), 1 / Decimal(9)])
def test_small_steps_within_the_window_do_not_add_up_to_a_large_one(is_tape: bool, factor: Decimal) -> None:
    market = Market("100", is_tape=is_tape)
    reasons = [market.reason(seen(str(100 * factor**step), step / 4, origin=f"o{step}")) for step in range(1, 5)]
    assert reasons == [None, "absurd", "absurd", "absurd"]


def test_a_step_up_and_down_again_is_a_step_too() -> None:
    market = Market("100")
    assert [market.reason(seen(price, at)) for at, price in enumerate(("15", "900", "100", "140"), start=1)] == [
        None,
        "absurd",
        None,
        None,
    ]


def test_a_market_that_really_jumped_is_believed_once_the_old_price_is_too_old_to_judge() -> None:
    market = Market("100")
    assert market.reason(seen("2000", 300)) == "absurd"
    assert market.reason(seen("2000", 301)) is None


@pytest.mark.parametrize("is_tape", [False, True])
def test_a_real_crash_is_believed_after_so_many_prices_over_so_much_time(is_tape: bool) -> None:
    market = Market("100", is_tape=is_tape)
    reasons = [market.reason(seen(f"1.{at:03}", at)) for at in range(1, 40)]
    assert reasons == ["absurd"] * 30 + [None] * 9
    assert market.reason(seen("100", 41)) == "absurd"


def test_few_prices_are_not_enough_however_long_they_take() -> None:
    market = Market("100")
    assert [market.reason(seen("1", at)) for at in range(0, 250, 50)][1:] == ["absurd"] * 4


@pytest.mark.parametrize("is_tape", [False, True])
def test_a_false_price_repeated_in_a_moment_is_not_believed(is_tape: bool) -> None:
    market = Market("100", is_tape=is_tape)
    reasons = [market.reason(seen("1", -40 + at / 10), 0.5) for at in range(1000)]
    assert set(reasons) == {"absurd", "future"} | (set() if is_tape else {"backwards", "not_new"})
    assert [market.reason(seen("1", 1), at) for at in (1, 20, 40, 60, 80, 100, 120, 140, 160, 180)] == ["absurd"] * 10


def test_one_price_of_the_old_range_ends_a_move() -> None:
    market = Market("100")
    reasons = [market.reason(seen("101" if at == 25 else "1", at)) for at in range(1, 50)]
    assert reasons == ["absurd"] * 24 + [None] + ["absurd"] * 24


def test_prices_that_contradict_each_other_confirm_nothing() -> None:
    market = Market("100")
    assert {market.reason(seen(("1", "5000")[at % 2], at)) for at in range(1, 100)} == {"absurd"}


def test_a_move_whose_price_could_not_be_recorded_stays_confirmed() -> None:
    market = Market("100")
    for at in range(1, 31):
        market.reason(seen("1", at))
    assert market.screen.judge(seen("1", 31), market.recent, NOON + timedelta(seconds=31)) is None
    assert market.reason(seen("1", 32)) is None


def test_a_source_that_invents_origins_is_limited_to_a_number_of_them() -> None:
    market = Market()
    for number in range(ORIGINS_MAX):
        assert market.reason(seen("100", number, origin=f"made-up-{number}")) is None
    assert market.reason(seen("100", 101, origin="one-more")) == "origins"
    assert market.reason(seen("100", 102, origin="made-up-7")) is None


def test_an_origin_whose_prices_are_rejected_does_not_count() -> None:
    market = Market("100")
    for number in range(ORIGINS_MAX + 1):
        assert market.reason(seen("5000", 1, origin=f"made-up-{number}")) == "absurd"
    assert market.reason(seen("101", 2, origin="replay:x")) is None


def test_ten_thousand_unknown_coins_are_one_count_and_one_log_line() -> None:
    metrics = Metrics()
    rejections = Rejections(["bitcoin"], QuoteMetrics(metrics))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            rejections.count(Counter({("bitcoin", "future"): 1}), {}, unknown=9_990)
    assert b'cotacoes_prices_rejected_total{coin="other",reason="unknown_coin"} 19980.0' in metrics.render()
    assert [(log["coin"], log["reason"]) for log in logs] == [("other", "unknown_coin"), ("bitcoin", "future")]
    assert rejections.reason_of("bitcoin") == "its price was rejected as future"
