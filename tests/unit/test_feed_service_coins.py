"""Coins of the settings and those that were added are followed at the venues that list them, over restarts too."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cotacoes.errors import BadRequestError
from cotacoes.feed_service.coins import COINS_MAX, FollowedCoins
from cotacoes.model.venue_symbols import VenueSymbol

VENUES = ("binance", "coinbase", "kraken", "bitstamp", "okx", "bybit")


def coins_in(folder: Path, *seed: str, overrides: dict[tuple[str, str], str] | None = None) -> FollowedCoins:
    return FollowedCoins(seed or ("bitcoin", "ethereum"), VENUES, overrides or {}, folder / "coins.json")


def test_a_coin_is_followed_at_each_venue_that_lists_it_in_its_own_currency(tmp_path: Path) -> None:
    coins = coins_in(tmp_path, "bitcoin", "monero")
    assert coins.venues_of("bitcoin") == {
        "binance": "USDT",
        "coinbase": "USD",
        "kraken": "USD",
        "bitstamp": "USD",
        "okx": "USDT",
        "bybit": "USDT",
    }
    assert coins.venues_of("monero") == {"kraken": "USD"}


def test_symbols_of_a_venue_have_the_stablecoins_that_it_quotes_in_dollars(tmp_path: Path) -> None:
    coins = coins_in(tmp_path, "bitcoin")
    assert coins.symbols_at("kraken") == {
        "bitcoin": VenueSymbol("BTC/USD", "USD"),
        "USDT": VenueSymbol("USDT/USD", "USD"),
        "USDC": VenueSymbol("USDC/USD", "USD"),
    }
    assert coins.symbols_at("binance") == {"bitcoin": VenueSymbol("BTCUSDT", "USDT")}


def test_a_coin_that_was_added_is_followed_after_a_restart(tmp_path: Path) -> None:
    coins = coins_in(tmp_path)
    with capture_logs() as logged:
        assert coins.add("solana")
        assert not coins.add("solana")
        assert not coins.add("bitcoin")
    assert [entry["event"] for entry in logged] == ["coin.added"]
    assert "solana" in coins
    assert list(coins_in(tmp_path)) == ["bitcoin", "ethereum", "solana"]
    assert list(coins_in(tmp_path, "solana", "bitcoin")) == ["solana", "bitcoin"]


@pytest.mark.parametrize(
    "name",
    ["", "A", "Bitcoin", "bit coin", "bitcoin\n", "a" * 33, "../coins", "b\x00", "bitcóin", "observed", "currency"],
)
def test_a_name_that_is_no_coin_is_refused(name: str, tmp_path: Path) -> None:
    coins = coins_in(tmp_path)
    with pytest.raises(BadRequestError, match="1 to 32 of a-z 0-9 -"):
        coins.add(name)
    assert not (tmp_path / "coins.json").exists()


def test_a_coin_that_no_venue_lists_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"no venue is known to list unheard-of.*COTACOES_VENUE_SYMBOLS"):
        coins_in(tmp_path).add("unheard-of")


def test_a_symbol_of_the_settings_makes_a_coin_known_and_an_empty_one_leaves_it_out(tmp_path: Path) -> None:
    overrides = {("kraken", "unheard-of"): "UNH/USD", ("okx", "unheard-of"): "UNH-USDT", ("kraken", "bitcoin"): ""}
    coins = coins_in(tmp_path, overrides=overrides)
    assert coins.add("unheard-of")
    assert coins.venues_of("unheard-of") == {"kraken": "USD", "okx": "USDT"}
    assert coins.symbols_at("kraken")["unheard-of"] == VenueSymbol("UNH/USD", "USD")
    assert "kraken" not in coins.venues_of("bitcoin")


def test_there_is_a_limit_to_the_coins(tmp_path: Path) -> None:
    names = [f"coin-{number}" for number in range(COINS_MAX)]
    coins = coins_in(tmp_path, *names)
    with pytest.raises(BadRequestError, match="the limit of 500 coins is reached"):
        coins.add("bitcoin")


def test_an_added_coin_is_followed_after_a_restart_even_if_the_folder_was_new(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "feed_service"
    with capture_logs() as logged:
        assert coins_in(folder).add("solana")
    assert [entry["event"] for entry in logged] == ["coin.added"]
    assert "solana" in coins_in(folder)


@pytest.mark.parametrize(
    "text", ["", "[", "5", "null", '{"solana": 1}', '[5, null, "BAD", "bit coin"]', "\ufffd", "[" * 100_000]
)
def test_a_damaged_list_of_added_coins_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "coins.json").write_text(text)
    assert list(coins_in(tmp_path)) == ["bitcoin", "ethereum"]


def test_a_list_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "coins.json").write_bytes(b"\xff\xfe[")
    assert list(coins_in(tmp_path)) == ["bitcoin", "ethereum"]


def test_no_more_coins_than_the_limit_come_back_from_a_list(tmp_path: Path) -> None:
    (tmp_path / "coins.json").write_text(json.dumps([f"coin-{number}" for number in range(2 * COINS_MAX)]))
    assert len(list(coins_in(tmp_path))) <= COINS_MAX


def test_a_name_that_is_a_field_of_quote_does_not_come_back_from_a_list(tmp_path: Path) -> None:
    (tmp_path / "coins.json").write_text('["observed", "solana"]')
    assert list(coins_in(tmp_path)) == ["bitcoin", "ethereum", "solana"]


def test_a_list_that_cannot_be_written_costs_no_coin_until_the_restart(tmp_path: Path) -> None:
    (tmp_path / "coins.json").mkdir()
    coins = coins_in(tmp_path)
    with capture_logs() as logged:
        assert coins.add("solana")
    assert "solana" in coins
    assert [entry["event"] for entry in logged] == ["coin.forgotten", "coin.added"]
