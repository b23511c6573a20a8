"""The topology: what runs where for which settings, what each service is given, and what the prices are called."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from cotacoes import config
from cotacoes.config import Settings
from cotacoes.errors import SettingError
from cotacoes.up.data_folder import DataFolder
from cotacoes.up.live_view import Style
from cotacoes.up.running_system import Topology
from cotacoes.up.supervision.service import ServiceSpec
from cotacoes.up.topology import describe_source, run, service_environment, topology

SERVERS = ["shard1", "shard2", "redis"]
SERVICES = ["external_service", "quote_service", "aggregator_service", "gateway_service", "client_subscriber"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with DataFolder(tmp_path / "the data") as one:
        yield one


def services(topology: Topology) -> dict[str, ServiceSpec]:
    return {service.name: service for service in topology.services}


def load(**variables: str) -> Settings:
    return config.load({f"COTACOES_{name}": text for name, text in variables.items()})


def test_every_service_has_its_address_next_to_the_port_base(folder: DataFolder) -> None:
    found = services(topology(load(PORT_BASE="9000"), folder))
    assert list(found) == SERVERS + SERVICES
    assert {name: service.address for name, service in found.items()} == {
        "shard1": "postgresql://127.0.0.1:9011/cotacoes",
        "shard2": "postgresql://127.0.0.1:9012/cotacoes",
        "redis": "redis://127.0.0.1:9010",
        "external_service": "http://127.0.0.1:9001",
        "quote_service": "http://127.0.0.1:9002",
        "aggregator_service": "http://127.0.0.1:9003",
        "gateway_service": "http://127.0.0.1:9000",
        "client_subscriber": None,
    }


@pytest.mark.parametrize(
    ("source", "sources"),
    [
        ("sim", ["external_service"]),
        ("exchanges", ["feed_service"]),
        ("venues", ["external_service", "feed_service"]),
        ("replay:./frames/", ["feed_service"]),
    ],
)
def test_the_source_decides_whether_external_service_or_feed_service_runs(
    folder: DataFolder, source: str, sources: list[str]
) -> None:
    system = topology(load(PORT_BASE="9000", SOURCE=source), folder)
    found = services(system)
    assert list(found) == [*SERVERS, *sources, *SERVICES[1:]]
    assert all(service.command is not None for service in found.values())
    assert found[sources[-1]].address == {"external_service": "http://127.0.0.1:9001"}.get(
        sources[-1], "http://127.0.0.1:9004"
    )
    exported = {"COTACOES_FEED_URL": "feed_service", "COTACOES_EXTERNAL_URL": "external_service"}
    assert [exported[name] for name in sorted(exported) if name in system.exports] == sources


@pytest.mark.parametrize(
    ("name", "setting", "source"),
    [
        ("feed_service", "FEED_URL", "exchanges"),
        ("external_service", "EXTERNAL_URL", "sim"),
        ("external_service", "EXTERNAL_URL", "venues"),
    ],
)
def test_a_source_that_runs_elsewhere_is_shown_as_external_and_not_started(
    folder: DataFolder, name: str, setting: str, source: str
) -> None:
    elsewhere = "http://feeds.example:8004"
    system = topology(load(SOURCE=source, **{setting: elsewhere}), folder)
    found = services(system)[name]
    assert (found.command, found.address) == (None, elsewhere)
    assert system.exports[f"COTACOES_{setting}"] == elsewhere
    user = "feed_service" if source == "venues" else "quote_service"
    assert service_environment(user, system.settings, {})[f"COTACOES_{setting}"] == elsewhere


def test_only_feed_service_uses_the_proxy_of_the_environment(folder: DataFolder) -> None:
    settings = topology(load(SOURCE="exchanges"), folder).settings
    ours = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "near", "SSL_CERT_FILE": "/ca.pem"}
    for name in (*settings.http_services, "client_subscriber"):
        environment = service_environment(name, settings, ours)
        assert (
            {"HTTPS_PROXY", "no_proxy"} <= environment.keys()
            if name == "feed_service"
            else not ({"HTTPS_PROXY", "no_proxy"} & environment.keys())
        )
        assert environment["SSL_CERT_FILE"] == "/ca.pem"


def test_only_quote_service_waits_and_only_for_the_migration_of_both_shards(folder: DataFolder) -> None:
    system = topology(load(), folder)
    assert {one.name: one.needs for one in system.services if one.needs} == {"quote_service": ("migrate",)}
    assert [(step.name, step.needs) for step in system.steps] == [("migrate", ("shard1", "shard2"))]


def test_a_superseded_writer_and_a_refused_setting_are_not_tried_again(folder: DataFolder) -> None:
    found = services(topology(load(), folder))
    assert found["quote_service"].final_exit_codes == {2, 4}
    assert found["gateway_service"].final_exit_codes == {2}
    assert not found["shard1"].final_exit_codes


def test_servers_whose_address_is_given_run_elsewhere_and_no_password_is_shown(folder: DataFolder) -> None:
    system = topology(
        load(SHARD2_DSN="postgresql://u:secret@far:5/db?sslmode=require", REDIS_URL="redis://:secret@far:6"), folder
    )
    found = services(system)
    assert [name for name, service in found.items() if service.command is None] == ["shard2", "redis"]
    assert found["shard2"].address == "postgresql://far:5/db"
    assert found["redis"].address == "redis://far:6"
    assert system.settings.shard2_dsn == "postgresql://u:secret@far:5/db?sslmode=require"
    assert "127.0.0.1" in system.settings.shard1_dsn


def test_the_exports_of_this_folder_name_its_own_servers(folder: DataFolder) -> None:
    first = topology(load(), folder)
    exported = {name.removeprefix("COTACOES_"): text for name, text in first.exports.items()}
    again = topology(load(**exported), folder)
    assert all(service.command is not None for service in again.services)
    assert again.exports == first.exports


def test_our_valkey_has_a_password_that_is_neither_shown_nor_on_a_command_line(folder: DataFolder) -> None:
    system = topology(load(), folder)
    password = folder.secret("redis")
    assert system.exports["COTACOES_REDIS_URL"] == f"redis://:{password}@127.0.0.1:8010"
    assert system.settings.redis == system.exports["COTACOES_REDIS_URL"]
    redis = services(system)["redis"]
    assert redis.command is not None
    assert password not in f"{redis.address} {redis.command()} {redis.environment}"


def test_our_valkey_is_recognised_by_an_address_that_an_older_release_exported(folder: DataFolder) -> None:
    system = topology(load(REDIS_URL="redis://127.0.0.1:8010"), folder)
    assert services(system)["redis"].command is not None
    assert folder.secret("redis") in system.settings.redis


def test_the_address_of_another_service_is_refused_by_name(folder: DataFolder) -> None:
    with pytest.raises(SettingError, match="COTACOES_GATEWAY_URL names another gateway_service"):
        topology(load(GATEWAY_URL="http://127.0.0.1:1"), folder)


def test_env_exports_what_psql_redis_cli_and_curl_need(folder: DataFolder) -> None:
    exports = topology(load(), folder).exports
    assert set(exports) == {
        f"COTACOES_{name}"
        for name in (
            *("REDIS_URL", "GATEWAY_URL", "EXTERNAL_URL", "QUOTE_URL", "AGGREGATOR_URL"),
            *("SHARD1_DSN", "SHARD2_DSN", "ADMIN_TOKEN"),
        )
    }
    assert exports["COTACOES_ADMIN_TOKEN"] == folder.secret("admin_token")
    assert topology(load(ADMIN_TOKEN="mine"), folder).exports["COTACOES_ADMIN_TOKEN"] == "mine"


def test_a_service_gets_its_own_settings_and_a_minimal_environment(folder: DataFolder) -> None:
    settings = topology(load(SEED="7", POLL_INTERVAL_S="0.5"), folder).settings
    environment = service_environment(
        "quote_service",
        settings,
        {
            "PATH": "/bin",
            "LC_ALL": "C",
            "AWS_SECRET": "x",
            "PGHOST": "far",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://far",
        },
    )
    assert {name for name in environment if not name.startswith("COTACOES_")} == {
        "PATH",
        "LC_ALL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
    assert environment["COTACOES_DATA"] == str(folder.path)
    assert "COTACOES_SEED" not in environment
    assert environment["COTACOES_POLL_INTERVAL_S"] == "0.5"
    assert environment["COTACOES_SHARD1_DSN"] == settings.shard1_dsn
    assert isinstance(settings.admin_token, SecretStr)
    assert environment["COTACOES_ADMIN_TOKEN"] == folder.secret("admin_token")


def test_accept_clock_reaches_only_quote_service(tmp_path: Path) -> None:
    settings = config.load(data=tmp_path, accept_clock=True)
    given = {name for name in SERVICES if "COTACOES_ACCEPT_CLOCK" in service_environment(name, settings, {})}
    assert given == {"quote_service"}
    assert config.load(service_environment("quote_service", settings, {})).accept_clock


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COTACOES_SEED", "3")
    monkeypatch.setenv("COTACOES_SPEED", "3")
    settings = config.load(data=tmp_path, seed=4)
    assert (settings.seed, settings.speed, settings.data) == (4, 3.0, tmp_path)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({}, "simulated market (seed 1, 20 % of requests fail on purpose)"),
        (
            {"SEED": "9", "SPEED": "2.5", "FAILURE_RATE": "0"},
            "simulated market (seed 9, 2.5 times as fast, 0 % of requests fail on purpose)",
        ),
        (
            {"SOURCE": "replay:../a b/btc.gz,eth.gz", "FAILURE_RATE": "0.125"},
            "replay of btc.gz, eth.gz (12.5 % of requests fail on purpose)",
        ),
        (
            {"SOURCE": "exchanges"},
            "one price agreed on by real exchanges: binance, coinbase, kraken, bitstamp, okx, bybit",
        ),
        (
            {"SOURCE": "venues", "VENUES": "kraken,gemini"},
            "one price agreed on by simulated exchanges: kraken, gemini",
        ),
    ],
)
def test_the_source_is_described_in_words(variables: dict[str, str], text: str) -> None:
    assert describe_source(load(**variables)) == text


def test_an_unusable_collector_of_spans_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "far:4318")
    with pytest.raises(SettingError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        run(config.load(data=tmp_path / "data"), Style.PLAIN)
    assert not (tmp_path / "data").exists()
