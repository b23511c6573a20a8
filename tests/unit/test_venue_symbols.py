"""The table of symbols: each venue's own spelling and currency, and what a setting changes."""

import pytest

from cotacoes.model.venue_symbols import (
    BASES,
    CURRENCIES,
    VENUE_NAMES,
    VenueSymbol,
    base_of,
    coinbase_book,
    currency_of,
    rate_symbols_at,
    spell,
    symbol_at,
)


@pytest.mark.parametrize(
    ("venue", "symbol", "currency"),
    [
        ("binance", "BTCUSDT", "USDT"),
        ("coinbase", "BTC-USD", "USD"),
        ("kraken", "BTC/USD", "USD"),
        ("bitstamp", "btcusd", "USD"),
        ("okx", "BTC-USDT", "USDT"),
        ("bybit", "BTCUSDT", "USDT"),
        ("gemini", "btcusd", "USD"),
        ("bitfinex", "tBTCUSD", "USD"),
    ],
)
def test_each_venue_spells_bitcoin_in_its_own_way(venue: str, symbol: str, currency: str) -> None:
    assert symbol_at(venue, "bitcoin", {}) == VenueSymbol(symbol, currency)


@pytest.mark.parametrize(
    ("base", "currency", "symbol"),
    [
        ("LINK", "USD", "tLINK:USD"),
        ("USDT", "USD", "tUSTUSD"),
        ("USDC", "USD", "tUDCUSD"),
        ("ALGO", "USD", "tALGUSD"),
        ("BTC", "USDT", "tBTCUST"),
        ("ATOM", "USD", "tATOUSD"),
        ("BCH", "USD", "tBCHN:USD"),
    ],
)
def test_bitfinex_has_names_of_its_own_and_a_colon_for_long_ones(base: str, currency: str, symbol: str) -> None:
    assert spell("bitfinex", base, currency) == symbol


@pytest.mark.parametrize("venue", VENUE_NAMES)
def test_the_currency_of_every_symbol_is_read_from_its_spelling(venue: str) -> None:
    for base in BASES.values():
        for currency in CURRENCIES:
            symbol = spell(venue, base, currency)
            assert currency_of(venue, symbol) in {currency, "USD" if symbol.endswith("-USDC") else currency}


@pytest.mark.parametrize("venue", VENUE_NAMES)
def test_no_two_coins_have_the_same_symbol_at_a_venue(venue: str) -> None:
    symbols = [symbol for coin in BASES if (symbol := symbol_at(venue, coin, {}))]
    assert len(set(symbols)) == len(symbols)


@pytest.mark.parametrize("symbol", ["", "USD", "BTC", "BTCEUR", "usdt"])
def test_a_symbol_that_ends_in_no_currency_of_ours_has_none(symbol: str) -> None:
    assert currency_of("binance", symbol) is None


def test_a_coin_may_be_named_by_its_asset() -> None:
    assert (base_of("bitcoin"), base_of("btc"), base_of("no-such-coin")) == ("BTC", "BTC", None)
    assert symbol_at("kraken", "btc", {}) == symbol_at("kraken", "bitcoin", {})


def test_a_coin_that_a_venue_does_not_list_or_nobody_knows_has_no_symbol() -> None:
    assert symbol_at("coinbase", "monero", {}) is None
    assert symbol_at("kraken", "no-such-coin", {}) is None
    assert symbol_at("binance", "tether", {}) is None  # it is its currency


def test_six_venues_list_the_coins_of_a_new_system() -> None:
    for coin in ("bitcoin", "ethereum", "solana"):
        assert all(symbol_at(venue, coin, {}) for venue in VENUE_NAMES)


def test_stablecoins_have_a_rate_at_two_venues_of_the_default_six_or_more() -> None:
    rates = {venue: rate_symbols_at(venue, {}) for venue in VENUE_NAMES[:6]}
    assert rates["kraken"] == {"USDT": "USDT/USD", "USDC": "USDC/USD"}
    assert rates["coinbase"] == {"USDT": "USDT-USD"}
    assert rates["bitstamp"] == {"USDT": "usdtusd", "USDC": "usdcusd"}
    assert rates["binance"] == rates["okx"] == rates["bybit"] == {}
    assert sum("USDT" in found for found in rates.values()) >= 2
    assert sum("USDC" in found for found in rates.values()) >= 2


def test_a_setting_adds_a_coin_changes_its_currency_and_leaves_one_out() -> None:
    overrides = {
        ("kraken", "no-such-coin"): "NSC/USD",
        ("okx", "bitcoin"): "BTC-USDC",
        ("okx", "tether"): "USDT-USD",
        ("bybit", "bitcoin"): "",
    }
    assert symbol_at("kraken", "no-such-coin", overrides) == VenueSymbol("NSC/USD", "USD")
    assert symbol_at("okx", "bitcoin", overrides) == VenueSymbol("BTC-USDC", "USDC")
    assert symbol_at("bybit", "bitcoin", overrides) is None
    assert symbol_at("bybit", "ethereum", overrides) == VenueSymbol("ETHUSDT", "USDT")
    assert rate_symbols_at("okx", overrides) == {"USDT": "USDT-USD"}


def test_coinbase_states_the_book_of_a_product_in_usdc_as_that_in_usd() -> None:
    assert coinbase_book("BTC-USDC") == coinbase_book("BTC-USD") == "BTC-USD"
    assert coinbase_book("USDT-USDC") == "USDT-USDC"
    assert currency_of("coinbase", "BTC-USDC") == "USD"
    assert currency_of("coinbase", "USDT-USDC") == "USDC"
