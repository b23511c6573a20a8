"""The ledger on a running system: coins and shards that are added, coins that move, and nothing is lost."""

import asyncio
import functools
import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.conftest import SEED
from tests.contract.conftest import psql
from tests.system.conftest import System, wait_until
from tests.system.harness_witness import Witness, audit, falls, stored_rows
from tests.system.test_storm import COINS, FAST, HEAL_LIMIT_S, kill

from cotacoes import config
from cotacoes.adapters.postgres.schema import known_migrations
from cotacoes.admin import directory
from cotacoes.patterns.sharding.shard import Home
from cotacoes.up.supervision import die_with_parent
from cotacoes.web.service_client import Addresses, ServiceClient

MANY = 100


def settings_of(system: System) -> config.Settings:
    return config.load(system.ask("env")["env"])


def report(system: System) -> dict[str, Any]:
    body: dict[str, Any] = system.get("aggregator_service", "/report/full").body
    return body


def has_quotes(system: System, coins: set[str]) -> bool:
    body = report(system)
    return set(body["coins"]) == coins and all(coin["last_logs"] for coin in body["coins"].values())


def proven(system: System) -> str:
    """What the audit says of a history in which nothing is wrong."""
    done = system.cli("audit")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def currencies(system: System) -> dict[str, str | None]:
    coins = json.loads(system.cli("coins", "list", "--json").stdout)
    return {coin: home["currency"] for coin, home in coins.items()}


def test_an_added_coin_works_like_any_other_even_after_a_restart(system: System) -> None:
    system.options = ("--failure-rate", "0")
    system.start()
    assert "solana: lives on shard1" in system.cli("coins", "add", "Solana", "--yes").stderr
    wait_until("solana is quoted", lambda: has_quotes(system, {*COINS, "solana"}))
    assert system.get("quote_service", "/cotacao_atual/solana").body["origin"] == "sim"
    assert system.get("gateway_service", "/v1/quotes/solana/current").status == 200
    wait_until("the page has it", lambda: "solana" in system.get("gateway_service", "/v1/coins").body["coins"])
    wait_until("the currencies are known", lambda: set(currencies(system).values()) == {"USD"})
    assert "solana is recorded in USD" in system.cli("coins", "add", "solana", "--yes", "--currency", "usdt").stderr
    assert json.loads(system.cli("coins", "list", "--json").stdout)["solana"]["shard"] == "shard1"
    assert "solana" in proven(system)
    system.signal(signal.SIGTERM)
    system.wait_ended()
    system.start()
    before = system.get("quote_service", "/cotacao_atual/solana").body
    wait_until("solana goes on", lambda: system.get("quote_service", "/cotacao_atual/solana").body.get("seq", 0) > 1)
    assert system.get("quote_service", "/cotacao_atual/solana").body["epoch"] >= before.get("epoch", 0)
    assert system.cli("coins", "retain", "solana", "30").returncode == 0
    assert json.loads(system.cli("coins", "list", "--json").stdout)["solana"]["retention_days"] == 30


def test_a_hundred_coins_on_four_shards_work_like_two_on_two(system: System) -> None:
    system.options = ("--failure-rate", "0")
    system.start()
    settings = settings_of(system)
    for number in (3, 4):
        psql(settings.dsn("shard2"), f"CREATE DATABASE further{number}")
        dsn = settings.dsn("shard2").replace("/cotacoes?", f"/further{number}?")
        assert f"{len(known_migrations())} applied now" in system.cli("shards", "add", f"shard{number}", dsn).stdout
    shards = json.loads(system.cli("shards", "list", "--json").stdout)["shards"]
    assert [shard["name"] for shard in shards] == ["shard1", "shard2", "shard3", "shard4"]
    assert not any("cotacoes:" in shard["address"] for shard in shards), "no password is shown"

    coins = {*COINS, *(f"coin-{number}" for number in range(MANY - len(COINS)))}
    homes = asyncio.run(add_coins(settings, sorted(coins - set(COINS))))
    assert {shard: sum(home.shard == shard for home in homes.values()) for shard in ("shard3", "shard4")} == {
        "shard3": MANY // 4,
        "shard4": MANY // 4,
    }
    wait_until("all hundred are quoted", lambda: has_quotes(system, coins), HEAL_LIMIT_S)
    wait_until("the report is complete", lambda: report(system)["complete"], HEAL_LIMIT_S)
    assert f"of {MANY} coins, on 4 shards" in proven(system)

    # shard1 has the directory; who starts without it knows all the same where everyone lives
    system.ask("stop", "shard1")
    for part in ("quote_service", "aggregator_service"):
        system.kill(part)
    elsewhere = {coin for coin, home in homes.items() if home.shard != "shard1"}

    def go_on() -> bool:
        body = report(system)
        return set(body["coins"]) == coins and all(
            body["coins"][coin]["current"] and body["coins"][coin]["last_logs"] for coin in elsewhere
        )

    wait_until("the others go on", lambda: _quietly(go_on), HEAL_LIMIT_S)
    system.ask("start", "shard1")
    wait_until("the report is complete again", lambda: _quietly(lambda: report(system)["complete"]), HEAL_LIMIT_S)
    psql(settings.dsn("shard1"), "DELETE FROM directory")
    rebuilt = system.cli("directory", "rebuild")
    assert len(rebuilt.stdout.splitlines()) == MANY
    assert {coin: home.shard for coin, home in asyncio.run(directory.read(settings)).homes.items()} == {
        coin: home.shard for coin, home in homes.items()
    }
    proven(system)


async def add_coins(settings: config.Settings, coins: list[str]) -> dict[str, Home]:
    token = settings.admin_token.get_secret_value()
    async with ServiceClient(Addresses.of(settings), admin_token=token) as client:
        for coin in coins:
            await directory.add_coin(settings, coin)
            await client.add_coin(coin)
    return dict((await directory.read(settings)).homes)


def _quietly(ask: Any) -> bool:
    try:
        return bool(ask())
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def test_a_coin_moved_back_and_forth_through_a_storm_loses_no_quote(tmp_path: Path) -> None:
    """Kill -9 of the mover, of the writer, of either shard, while it moves; what was seen is there once."""
    dice = random.Random(SEED)
    with System(tmp_path / "data", environment=FAST) as system:
        system.start()
        settings = settings_of(system)
        dsns = [settings.dsn(shard) for shard in config.SHARDS]
        redis = system.redis_url()
        with Witness(redis, system.url("quote_service"), COINS) as witness:
            for target, victim in (
                ("shard2", None),
                ("shard1", "mover"),
                ("shard2", "quote_service"),
                ("shard1", "shard2"),
                ("shard2", "shard1"),
            ):
                time.sleep(dice.uniform(0.5, 1.0))
                mover = start_move(system, target)
                time.sleep(dice.uniform(0.3, 0.9))
                if victim == "mover":
                    mover.kill()
                elif victim is not None:
                    kill(system, victim)
                mover.wait(60)
                wait_until(f"bitcoin lives on {target}", functools.partial(end_move, system, target), HEAL_LIMIT_S)
                words = ["shards", "purge", "bitcoin", "--now"]  # of a shard that may be down
                wait_until("the copy left behind is gone", functools.partial(succeeds, system, *words), HEAL_LIMIT_S)
            system.ask("stop", "external_service")
            wait_until(
                "everything is delivered",
                lambda: all(coin["pending"] == 0 for coin in report(system)["coins"].values()),
                HEAL_LIMIT_S,
            )
        rows = stored_rows(dsns)
        for coin in COINS:
            seen = [witness.published[coin], witness.current[coin]]
            assert len(seen[0].quotes) > 100
            assert audit(rows[coin], seen) == []
            assert falls([position for position, _ in seen[0].quotes], strictly=True) == []
            assert falls([position for position, _ in seen[1].quotes], strictly=False) == []
        assert psql(dsns[0], "SELECT count(*) FROM fence WHERE coin = 'bitcoin'") == "0", "purged"
        assert report(system)["complete"]
        proven(system)


def succeeds(system: System, *words: str) -> bool:
    return system.cli(*words).returncode == 0


def start_move(system: System, target: str) -> subprocess.Popen[bytes]:
    words = ["shards", "move", "bitcoin", "--to", target, "--data", str(system.data)]
    command = [*die_with_parent.launcher(signal.SIGKILL), *system.program, *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=system.environment, start_new_session=True
    )


def end_move(system: System, target: str) -> bool:
    """Whether the move is at its end, after asking for it once more."""
    done = system.cli("shards", "move", "bitcoin", "--to", target)
    return done.returncode == 0
