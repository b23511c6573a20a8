"""Of each venue at most one price a second is recorded: of a book that is sound by itself, and newer than the last."""

from decimal import Decimal

import pytest
import structlog.testing

from cotacoes.feed_service.venue_prices import INTERVAL_S, VenuePrice, VenuePrices
from cotacoes.model.venue_series import VenueSeries, series_of, venue_of
from cotacoes.patterns.consensus import VenueBook, VenueReason, VenueVerdict

BITCOIN_AT_KRAKEN = VenueSeries("bitcoin", "kraken", "USD")
UNSOUND = {"empty", "crossed", "stale", "future", "wide"}


def verdict(
    as_of_s: float,
    bid: str = "67000.0",
    ask: str = "67000.5",
    reason: VenueReason | None = None,
    venue: str = "kraken",
    currency: str = "USD",
) -> VenueVerdict:
    return VenueVerdict(VenueBook(venue, currency, Decimal(bid), Decimal(ask), as_of_s), Decimal(1), reason)


def due(prices: VenuePrices, now_s: float, *verdicts: VenueVerdict, coin: str = "bitcoin") -> list[VenuePrice]:
    return list(prices.due(coin, verdicts, now_s))


def test_the_price_is_the_middle_of_the_book_in_the_currency_of_the_venue() -> None:
    usd, usdt = verdict(9.0), verdict(9.5, "0.5", "1", venue="okx", currency="USDT")
    assert due(VenuePrices({"bitcoin"}), 10.0, usd, usdt) == [
        VenuePrice(BITCOIN_AT_KRAKEN, Decimal("67000.25"), 9.0),
        VenuePrice(VenueSeries("bitcoin", "okx", "USDT"), Decimal("0.75"), 9.5),
    ]


def test_of_ten_books_a_second_one_is_recorded() -> None:
    prices = VenuePrices({"bitcoin"})
    times = [number / 20 for number in range(201)]  # ten seconds of ticks
    recorded = [now_s for now_s in times if due(prices, now_s, verdict(now_s))]
    assert len(recorded) == 11
    assert recorded == [float(second) for second in range(11)]


def test_each_coin_and_each_venue_has_a_second_of_its_own() -> None:
    prices = VenuePrices({"bitcoin", "ethereum"})
    assert len(due(prices, 10.0, verdict(9.0))) == 1
    assert len(due(prices, 10.1, verdict(9.0, venue="okx"))) == 1
    assert len(due(prices, 10.2, verdict(9.0), coin="ethereum")) == 1


@pytest.mark.parametrize("as_of_s", [8.9, 9.0])
def test_a_book_that_is_no_later_than_the_last_one_is_not_recorded_again(as_of_s: float) -> None:
    prices = VenuePrices({"bitcoin"})
    assert due(prices, 10.0, verdict(9.0))
    assert not due(prices, 10.0 + 5 * INTERVAL_S, verdict(as_of_s, "67001", "67002"))
    assert due(prices, 10.0 + 5 * INTERVAL_S, verdict(9.1))


@pytest.mark.parametrize("reason", VenueReason)
def test_only_a_book_that_is_unsound_by_itself_is_left_out(reason: VenueReason) -> None:
    assert bool(due(VenuePrices({"bitcoin"}), 10.0, verdict(9.0, reason=reason))) == (reason.value not in UNSOUND)


def test_a_price_that_rounds_to_nothing_is_left_out() -> None:
    assert not due(VenuePrices({"bitcoin"}), 10.0, verdict(9.0, "0.0000000000000000001", "0.0000000000000000001"))


def test_a_series_that_can_have_no_name_is_left_out_with_one_warning() -> None:
    long = "a-coin-with-a-name-of-its-own"
    prices = VenuePrices({"bitcoin", "bitcoin-kraken"})
    with structlog.testing.capture_logs() as logs:
        for now_s in (10.0, 20.0):
            assert not due(prices, now_s, verdict(now_s))
            assert not due(prices, now_s, verdict(now_s), coin=long)
    assert [(line["event"], line["series"], line["reason"]) for line in logs] == [
        ("series.left_out", "bitcoin-kraken", "there is a coin of this name"),
        ("series.left_out", f"{long}-kraken", "too long for a name"),
    ]


def test_the_series_of_a_coin_are_at_the_venues_that_list_it() -> None:
    found = series_of("monero", ("binance", "kraken", "bitfinex"), {("bitfinex", "monero"): ""})
    assert [(one.name, one.currency) for one in found] == [("monero-kraken", "USD")]


def test_a_name_is_that_of_a_series_only_if_its_coin_is_known() -> None:
    known = {"bitcoin", "bitcoin-kraken", "bitcoin-cash", "other-kraken", "kraken"}
    assert {name: venue_of(name, known) for name in known if venue_of(name, known)} == {"bitcoin-kraken": "kraken"}
