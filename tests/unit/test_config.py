"""Settings are refused by name before anything starts, and secrets are not repeated."""

from pathlib import Path

import pytest

from cotacoes import config
from cotacoes.errors import SettingError


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = config.load({"PATH": "/bin", "COTACOES_SEED": ""})
    assert settings.seed_placement == {"bitcoin": "shard1", "ethereum": "shard2"}
    assert settings.url("quote_service") == "http://127.0.0.1:8002"
    assert settings.redis == "redis://127.0.0.1:8010"
    assert (settings.port("gateway_service"), settings.port("shard2")) == (8000, 8012)


def test_given_values_take_precedence_over_the_environment() -> None:
    settings = config.load({"COTACOES_SEED": "7", "COTACOES_SPEED": "2"}, seed=8)
    assert (settings.seed, settings.speed) == (8, 2.0)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("COTACOES_SEEED", "1", "did you mean COTACOES_SEED"),
        ("COTACOES_seed", "1", "did you mean COTACOES_SEED"),
        ("COTACOES_NONSENSE_ALTOGETHER", "1", "unknown setting COTACOES_NONSENSE_ALTOGETHER"),
        ("COTACOES_SPEED", "0", "COTACOES_SPEED=0 .*≥ 0.01 and ≤ 1000"),
        ("COTACOES_FRESH_S", "0", "> 0 and ≤ 3600"),
        ("COTACOES_FAILURE_RATE", "nan", "COTACOES_FAILURE_RATE"),
        ("COTACOES_PORT_BASE", "80", "≥ 1024"),
        ("COTACOES_SOURCE", "nothing", "COTACOES_SOURCE"),
        ("COTACOES_COINS", "bitcoin", "COIN:SHARD"),
        ("COTACOES_COINS", "bitcoin:shard1,bitcoin:shard2", "each coin once"),
        ("COTACOES_COINS", "Bitcoin:shard1", "COIN:SHARD"),
        ("COTACOES_REDIS_URL", "http://x", "redis://"),
        ("COTACOES_ADMIN_TOKEN", "cotações", "COTACOES_ADMIN_TOKEN is invalid: .*ASCII"),
        ("COTACOES_ADMIN_TOKEN", "two words", "ASCII"),
        ("COTACOES_ADMIN_TOKEN", "a\nb", "ASCII"),
        ("COTACOES_ALLOWED_HOSTS", "http://x", "without a scheme or a port"),
        ("COTACOES_ALLOWED_HOSTS", "x:80", "without a scheme or a port"),
        ("COTACOES_ALLOWED_HOSTS", "X", "lower case"),
        ("COTACOES_ALLOWED_HOSTS", "x, y", "without a scheme or a port"),
        ("COTACOES_AGE_MAX_S", "1", "COTACOES_FRESH_S"),
        ("COTACOES_HOST", "0.0.0.0", "COTACOES_ALLOW_PUBLIC"),
        ("COTACOES_SPEED", "max", "COTACOES_SOURCE_MODE=tape"),
        ("COTACOES_SPEED", "fast", "COTACOES_SPEED"),
        ("COTACOES_REPLAY_TIMES", "original", "needs a replay"),
        ("COTACOES_REPLAY_TIMES", "mine", "COTACOES_REPLAY_TIMES"),
        ("COTACOES_REPLAY_PAIRS", "SOLUSDT:solana", "PAIR:COIN:CURRENCY"),
        ("COTACOES_REPLAY_PAIRS", ":solana:USDT", "PAIR:COIN:CURRENCY"),
        ("COTACOES_VENUE_SYMBOLS", "krakken:solana:SOL/USD", "VENUE:COIN:SYMBOL.*kraken, bitstamp"),
        ("COTACOES_VENUE_SYMBOLS", "kraken:Solana:SOL/USD", "VENUE:COIN:SYMBOL"),
        ("COTACOES_VENUE_SYMBOLS", "kraken:solana:SOL USD", "VENUE:COIN:SYMBOL"),
        ("COTACOES_VENUE_SYMBOLS", "kraken:solana", "VENUE:COIN:SYMBOL"),
        ("COTACOES_VENUE_SYMBOLS", "kraken:solana:SOL/EUR", "SOL/EUR does not end as kraken writes USDT, USDC, USD"),
        ("COTACOES_VENUE_SYMBOLS", "binance:solana:USDT", "USDT does not end"),
        ("COTACOES_SOURCE_MODE", "stream", "COTACOES_SOURCE_MODE"),
        ("COTACOES_CHANNEL_PREFIX", "a*", "COTACOES_CHANNEL_PREFIX"),
        ("COTACOES_CHANNEL_PREFIX", "blue:", "COTACOES_CHANNEL_PREFIX"),
    ],
)
def test_an_unknown_or_invalid_setting_is_refused_by_name(variable: str, text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        config.load({variable: text})


def test_a_password_in_a_refused_setting_is_not_repeated() -> None:
    with pytest.raises(SettingError) as refused:
        config.load({"COTACOES_SHARD1_DSN": "mysql://user:hunter2@host/db"})
    assert "hunter2" not in str(refused.value)
    assert "postgresql://" in str(refused.value)


def test_a_missing_dsn_is_named() -> None:
    with pytest.raises(SettingError, match="COTACOES_SHARD1_DSN"):
        config.load({}).dsn("shard1")


def test_an_address_beyond_loopback_needs_permission() -> None:
    assert config.load({"COTACOES_HOST": "0.0.0.0", "COTACOES_ALLOW_PUBLIC": "1"}).host == "0.0.0.0"


def test_two_shards_cannot_be_the_same_database() -> None:
    same = "postgresql://u:p@127.0.0.1:5432/db"
    with pytest.raises(SettingError, match="name the same database"):
        config.load({"COTACOES_SHARD1_DSN": same, "COTACOES_SHARD2_DSN": same})


def test_an_unpaced_replay_requires_tape_mode() -> None:
    settings = config.load(
        {
            "COTACOES_SOURCE": "replay:a.gz,b.gz",
            "COTACOES_SOURCE_MODE": "tape",
            "COTACOES_SPEED": "max",
            "COTACOES_REPLAY_PAIRS": "SOLUSDT:solana:USDT,BTC/USDT:USDT:bitcoin:USDT",
        }
    )
    assert (settings.speed, [path.name for path in settings.replay_paths]) == (float("inf"), ["a.gz", "b.gz"])
    assert settings.further_pairs == {"SOLUSDT": ("solana", "USDT"), "BTC/USDT:USDT": ("bitcoin", "USDT")}


def test_a_symbol_of_a_venue_may_have_a_colon_or_be_empty() -> None:
    given = "kraken:solana:SOL/USD,bitfinex:chainlink:tLINK:USD,gemini:ethereum:"
    assert config.load({"COTACOES_VENUE_SYMBOLS": given}).venue_symbol_overrides == {
        ("kraken", "solana"): "SOL/USD",
        ("bitfinex", "chainlink"): "tLINK:USD",
        ("gemini", "ethereum"): "",
    }


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:secret@host:5/db?sslmode=disable", "postgresql://host:5/db"),
        ("postgresql://u:se#cr/et@host/db", "postgresql://host/db"),
        ("postgresql://u:se@cret@host/db", "postgresql://host/db"),
        ("postgresql://u:sec?ret@host/db", "postgresql://…"),
        ("postgresql:///db?host=/run", "postgresql:///db"),
    ],
)
def test_an_address_is_shown_without_its_password_however_it_is_written(dsn: str, shown: str) -> None:
    assert config.without_password(dsn) == shown


def test_a_setting_is_read_from_a_file_and_its_variable_takes_precedence(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://:secret@far:6\n")
    assert config.load({"COTACOES_REDIS_URL_FILE": str(file)}).redis == "redis://:secret@far:6"
    assert (
        config.load({"COTACOES_REDIS_URL_FILE": str(file), "COTACOES_REDIS_URL": "redis://near"}).redis
        == "redis://near"
    )
    assert config.load({"COTACOES_REDIS_URL_FILE": ""}).redis_url == ""


def test_a_file_that_cannot_be_read_is_refused_by_name_and_no_content_is_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"cannot read .*, named by COTACOES_REDIS_URL_FILE \(No such file"):
        config.load({"COTACOES_REDIS_URL_FILE": str(tmp_path / "nowhere")})
    (tmp_path / "url").write_text("hunter2")
    with pytest.raises(SettingError) as refused:
        config.load({"COTACOES_REDIS_URL_FILE": str(tmp_path / "url")})
    assert "hunter2" not in str(refused.value)
    with pytest.raises(SettingError, match="unknown setting COTACOES_NOTHING_FILE"):
        config.load({"COTACOES_NOTHING_FILE": str(tmp_path / "url")})
