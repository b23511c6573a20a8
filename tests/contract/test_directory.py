"""Coins and shards are data: placed, added, kept apart, and restored from the fences."""

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.contract.conftest import Databases, Placed, psql

from cotacoes import config
from cotacoes.adapters.postgres.days import PostgresDays
from cotacoes.adapters.postgres.discrepancies import PostgresDiscrepancies
from cotacoes.adapters.postgres.moving_shard import PostgresMovingShard
from cotacoes.adapters.postgres.shard import PostgresShard, open_directory
from cotacoes.admin import directory, migrate
from cotacoes.config import Settings
from cotacoes.doctor.questions import ask_shard
from cotacoes.errors import SettingError, ShardUnavailableError
from cotacoes.model.quote import Quote
from cotacoes.patterns.sharding.shard import Home
from cotacoes.quote_service.days import DayKeeper

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def settings(placed: Placed) -> Settings:
    """The settings of two migrated shards with the seed coins."""
    first, second = placed(config.load({}).coins)
    return config.load({}, shard1_dsn=first, shard2_dsn=second)


@pytest.fixture
def further(made: Databases) -> list[str]:
    """Two more databases."""
    return [made.dsn(made.make("further")) for _ in range(2)]


async def test_seed_coins_are_placed_and_a_new_coin_goes_to_the_emptiest_shard(settings: Settings) -> None:
    assert (await directory.read(settings)).homes == {"bitcoin": Home(1, "shard1", 1), "ethereum": Home(2, "shard2", 1)}
    assert await directory.add_coin(settings, "solana") == Home(3, "shard1", 1)
    assert await directory.add_coin(settings, "cardano") == Home(4, "shard2", 1)
    assert await directory.add_coin(settings, "dogecoin", "shard2") == Home(5, "shard2", 1)
    async with PostgresShard("shard2", settings.dsn("shard2"), deadline_s=5.0) as shard:
        assert (await shard.fence("dogecoin")).placement == 1


async def test_adding_a_coin_again_changes_nothing_and_on_another_shard_is_refused(settings: Settings) -> None:
    placed = await directory.add_coin(settings, "solana", "shard2")
    assert await directory.add_coin(settings, "solana") == placed
    with pytest.raises(
        SettingError, match="solana lives on shard2: move it with `cotacoes shards move solana --to shard1`"
    ):
        await directory.add_coin(settings, "solana", "shard1")
    with pytest.raises(SettingError, match="there is no shard9"):
        await directory.add_coin(settings, "polkadot", "shard9")
    with pytest.raises(SettingError, match="is not a coin's name"):
        await directory.add_coin(settings, "Dot!")


async def test_a_coin_has_its_given_currency_or_that_of_its_first_price(settings: Settings) -> None:
    assert (await directory.add_coin(settings, "solana", currency="BRL")).currency == "BRL"
    async with open_directory(settings, "quote_service", deadline_s=5.0) as known:
        assert known.homes["solana"].currency == "BRL"
        await known.learn({"solana": "USD", "bitcoin": "USDT"})
        assert {coin: home.currency for coin, home in known.homes.items()} == {
            "bitcoin": "USDT",
            "ethereum": None,
            "solana": "BRL",
        }
    assert (await directory.add_coin(settings, "ethereum", currency="USD")).currency == "USD"
    with pytest.raises(SettingError, match="in USDT, not USD: change that with `cotacoes coins currency bitcoin USD`"):
        await directory.add_coin(settings, "bitcoin", currency="USD")
    await directory.set_currency(settings, "bitcoin", "USD")
    assert (await directory.read(settings)).homes["bitcoin"].currency == "USD"


async def test_an_invalid_currency_and_an_unknown_coin_are_refused(settings: Settings) -> None:
    for attempt in (directory.add_coin(settings, "solana", currency="U$"), directory.set_currency(settings, "x", "-")):
        with pytest.raises(SettingError, match="is not a currency: write 2 to 12 of A-Z 0-9"):
            await attempt
    with pytest.raises(SettingError, match="there is no coin solana"):
        await directory.set_currency(settings, "solana", "USD")


async def test_an_addition_interrupted_before_the_fence_is_completed_by_the_next_call(
    settings: Settings,
) -> None:
    psql(settings.dsn("shard1"), "INSERT INTO directory VALUES ('solana', 3, 'shard2', 1)")
    await directory.add_coin(settings, "solana")
    assert psql(settings.dsn("shard2"), "SELECT coin_id FROM fence WHERE coin = 'solana'") == "3"


async def test_coins_added_at_the_same_time_get_different_ids(settings: Settings) -> None:
    homes = await asyncio.gather(*(directory.add_coin(settings, f"coin-{number}") for number in range(12)))
    assert sorted(home.coin_id for home in homes) == [*range(3, 15)]


async def test_a_shard_is_added_once_under_one_name(settings: Settings, further: list[str]) -> None:
    assert "schema" in await directory.add_shard(settings, "shard3", further[0])
    assert (await directory.add_shard(settings, "shard3", further[0])).endswith(" 0 applied now")
    with pytest.raises(SettingError, match="leads to the database of shard3"):
        await directory.add_shard(settings, "shard4", further[0])
    with pytest.raises(SettingError, match="leads to the database of shard1"):
        await directory.add_shard(settings, "shard4", settings.dsn("shard1"))
    with pytest.raises(SettingError, match="shard1 is a setting"):
        await directory.add_shard(settings, "shard1", further[1])
    with pytest.raises(ShardUnavailableError):
        await directory.add_shard(settings, "shard4", "postgresql://nobody@127.0.0.1:1/none")
    assert (await directory.read(settings)).shards == {"shard3": further[0]}
    home = await directory.add_coin(settings, "solana")
    assert home.shard == "shard3", "the emptiest"
    assert [line.partition(":")[0] for line in await migrate.main(settings)] == ["shard1", "shard2", "shard3"]


async def test_one_database_cannot_be_both_shards_of_the_settings(databases: tuple[str, str]) -> None:
    twice = databases[0].replace("127.0.0.1", "localhost")
    with pytest.raises(SettingError, match=r"shard2: .* two shards name the same database"):
        await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=twice))


async def test_the_directory_is_restored_from_the_fences(settings: Settings, further: list[str]) -> None:
    await directory.add_shard(settings, "shard3", further[0])
    for coin, shard in (("solana", "shard3"), ("cardano", "shard2")):
        await directory.add_coin(settings, coin, shard)
    # cardano has moved to shard3, and the directory has not heard of it
    psql(settings.dsn("shard2"), "UPDATE fence SET state = 'moved', moved_to = 'shard3' WHERE coin = 'cardano'")
    psql(further[0], "INSERT INTO fence (coin_id, coin, placement) VALUES (4, 'cardano', 2)")
    assert await directory.rebuild(settings, {}) == ["cardano: lives on shard3, placement 2"]
    right = (await directory.read(settings)).homes
    assert right["cardano"] == Home(4, "shard3", 2)

    psql(settings.dsn("shard1"), "DELETE FROM directory; DELETE FROM shard")
    with pytest.raises(ShardUnavailableError):
        await directory.rebuild(settings, {"shard3": "postgresql://nobody@127.0.0.1:1/none"})
    assert (await directory.read(settings)).homes == {}
    await directory.rebuild(settings, {"shard3": further[0]})
    rebuilt = await directory.read(settings)
    assert (rebuilt.homes, rebuilt.shards) == (right, {"shard3": further[0]})
    assert await directory.rebuild(settings, {}) == []


async def test_a_migration_restores_a_lost_directory_before_it_places_coins(settings: Settings) -> None:
    for number in range(4):
        await directory.add_coin(settings, f"coin-{number}", "shard2")
    before = (await directory.read(settings)).homes
    psql(settings.dsn("shard1"), "DELETE FROM directory")
    await migrate.main(settings.model_copy(update={"coins": "late:shard1,bitcoin:shard1"}))
    assert (await directory.read(settings)).homes == {**before, "late": Home(7, "shard1", 1)}


async def test_a_moved_coin_does_not_return_to_its_shard_in_the_settings(settings: Settings) -> None:
    psql(settings.dsn("shard1"), "UPDATE fence SET state = 'moved', moved_to = 'shard2' WHERE coin = 'bitcoin'")
    psql(settings.dsn("shard2"), "INSERT INTO fence (coin_id, coin, placement) VALUES (1, 'bitcoin', 2)")
    await directory.rebuild(settings, {})
    await migrate.main(settings)
    assert (await directory.read(settings)).homes["bitcoin"] == Home(1, "shard2", 2)


async def test_a_coin_between_two_shards_is_reported(settings: Settings) -> None:
    psql(settings.dsn("shard1"), "UPDATE fence SET state = 'moved', moved_to = 'shard2' WHERE coin = 'bitcoin'")
    assert await directory.rebuild(settings, {}) == [
        "bitcoin: is between two shards; run `cotacoes shards move` again to finish the move"
    ]


async def test_retention_is_data_of_the_coin(settings: Settings) -> None:
    await directory.set_retention(settings, "bitcoin", 90)
    assert (await directory.read(settings)).homes["bitcoin"].retention_days == 90
    await directory.set_retention(settings, "bitcoin", None)
    assert (await directory.read(settings)).homes["bitcoin"].retention_days is None
    with pytest.raises(SettingError, match="there is no coin nothing"):
        await directory.set_retention(settings, "nothing", 1)


@pytest.fixture
async def moved(settings: Settings) -> Settings:
    """Bitcoin has moved from shard1 to shard2, and the directory does not know it."""
    quote = Quote("bitcoin", "USD", Decimal("1.50"), 5, 1, NOON, NOON, "sim")
    async with PostgresShard("shard2", settings.dsn("shard2"), deadline_s=5.0) as shard:
        psql(settings.dsn("shard2"), "INSERT INTO fence (coin_id, coin, placement) VALUES (1, 'bitcoin', 2)")
        await shard.become_writer("bitcoin", 5, "a")
        await shard.append("bitcoin", 2, 5, [quote])
    psql(settings.dsn("shard1"), "UPDATE fence SET state = 'moved', moved_to = 'shard2' WHERE coin = 'bitcoin'")
    return settings


async def test_a_service_follows_the_fence_of_a_real_shard(moved: Settings, tmp_path: object) -> None:
    settings = moved.model_copy(update={"data": tmp_path})
    async with open_directory(settings, "quote_service", deadline_s=5.0) as known:
        assert known.homes["bitcoin"].shard == "shard1"
        (quote,) = await known.ask("bitcoin", lambda shard: shard.after("bitcoin", None, 10))
        assert quote.price == Decimal("1.50")
        assert known.homes["bitcoin"] == Home(1, "shard2", 2)
        await known.refresh()
        assert known.homes["bitcoin"] == Home(1, "shard2", 2)


async def test_a_new_disk_under_shard1_gives_no_coin_a_second_home(settings: Settings, further: list[str]) -> None:
    await directory.add_shard(settings, "shard3", further[0])
    for coin, shard in (("solana", "shard3"), ("cardano", "shard2")):
        await directory.add_coin(settings, coin, shard)
    lost = settings.model_copy(update={"shard1_dsn": further[1], "coins": "bitcoin:shard1,ethereum:shard2"})
    with pytest.raises(SettingError, match="has lost the directory"):
        await migrate.main(lost)
    await directory.rebuild(lost, {"shard3": further[0]})
    await migrate.main(lost)
    assert (await directory.read(lost)).homes == {
        "ethereum": Home(2, "shard2", 1),
        "solana": Home(3, "shard3", 1),
        "cardano": Home(4, "shard2", 1),
        "bitcoin": Home(5, "shard1", 1),
    }
    assert psql(further[1], "SELECT coin FROM fence") == "bitcoin"
    with pytest.raises(SettingError, match="places solana on shard1, but it lives on shard3: remove solana from it"):
        await migrate.main(lost.model_copy(update={"coins": "solana:shard1"}))


@pytest.mark.parametrize(("name", "dsn"), [("S3", "postgresql://x@h/d"), ("shard3", "mysql://x@h/d"), ("", "")])
async def test_an_invalid_shard_is_refused_before_anything_is_changed(settings: Settings, name: str, dsn: str) -> None:
    with pytest.raises(SettingError, match=r"is not a shard's name|is not usable"):
        await directory.add_shard(settings, name, dsn)
    with pytest.raises(SettingError, match=r"is not a shard's name|is not usable"):
        await directory.rebuild(settings, {name: dsn})


async def test_a_directory_older_than_the_shards_assigns_no_id_twice(settings: Settings) -> None:
    await directory.add_coin(settings, "solana", "shard2")
    psql(settings.dsn("shard1"), "DELETE FROM directory WHERE coin = 'solana'")
    with pytest.raises(SettingError, match="run `cotacoes directory rebuild` first"):
        await directory.add_coin(settings, "cardano", "shard2")
    assert "cardano" not in (await directory.read(settings)).homes
    await directory.rebuild(settings, {})
    assert await directory.add_coin(settings, "cardano", "shard2") == Home(4, "shard2", 1)


async def test_a_directory_older_than_the_last_move_opens_no_second_home(
    settings: Settings, further: list[str]
) -> None:
    """Bitcoin moved on from shard2 to shard3 and shard2 was purged; then shard1 was restored from an older backup."""
    await directory.add_shard(settings, "shard3", further[0])
    psql(further[0], "INSERT INTO fence (coin_id, coin, placement) VALUES (1, 'bitcoin', 3)")
    psql(settings.dsn("shard1"), "UPDATE directory SET shard = 'shard2', placement = 2 WHERE coin = 'bitcoin'")
    psql(settings.dsn("shard1"), "UPDATE fence SET state = 'moved', moved_to = 'shard2' WHERE coin = 'bitcoin'")
    await migrate.main(settings)
    assert psql(settings.dsn("shard2"), "SELECT count(*) FROM fence WHERE coin = 'bitcoin'") == "0"


async def test_a_further_shard_that_is_away_does_not_block_the_migration(
    settings: Settings, further: list[str]
) -> None:
    await directory.add_shard(settings, "shard3", further[0])
    psql(settings.dsn("shard1"), "UPDATE shard SET dsn = 'postgresql://u:p@127.0.0.1:1/x'")
    lines = await migrate.main(settings)
    assert [line.partition(" ")[0].rstrip(":") for line in lines] == ["shard3", "shard1", "shard2"]
    psql(settings.dsn("shard1"), "DELETE FROM directory")
    with pytest.raises(ShardUnavailableError, match="the directory is lost, and shard3 did not answer"):
        await migrate.main(settings)


async def test_a_rebuild_does_not_make_one_database_two_shards(settings: Settings) -> None:
    with pytest.raises(SettingError, match="leads to the database of shard2"):
        await directory.rebuild(settings, {"shard9": settings.dsn("shard2")})
    assert (await directory.read(settings)).shards == {}


async def test_every_connection_refuses_two_shards_with_swapped_addresses(
    settings: Settings,
) -> None:
    """Otherwise each coin would continue in the other's database, and both would look healthy."""
    swapped = config.load({}, shard1_dsn=settings.dsn("shard2"), shard2_dsn=settings.dsn("shard1"))
    words = "the DSN of shard2 leads to the database of shard1"
    dsn = swapped.dsn("shard2")
    async with PostgresShard("shard2", dsn, deadline_s=5.0) as shard:
        for question in (shard.ping, shard.directory, lambda: shard.newest(["ethereum"], 1)):
            with pytest.raises(ShardUnavailableError, match=words):
                await question()
    for opening in (
        PostgresDays("shard2", dsn),
        PostgresMovingShard("shard2", dsn),
        PostgresDiscrepancies("shard2", dsn),
    ):
        with pytest.raises(ShardUnavailableError, match=words):
            await opening.__aenter__()
    assert (await ask_shard("shard2", dsn, NOON)).problem == f"{words}: give each shard its own; two may be swapped"
    swapped_first = "the DSN of shard1 leads to the database of shard2"
    with pytest.raises(SettingError, match=swapped_first):
        await migrate.main(swapped)
    with pytest.raises(ShardUnavailableError, match=swapped_first):
        await directory.add_coin(swapped, "solana")
    with pytest.raises(SettingError, match=swapped_first):
        await directory.rebuild(swapped, {})
    assert list((await directory.read(settings)).homes) == ["bitcoin", "ethereum"]


async def test_a_database_without_a_name_is_accepted_as_the_shard_of_its_address(settings: Settings) -> None:
    psql(settings.dsn("shard2"), "DELETE FROM identity")
    async with PostgresShard("shard2", settings.dsn("shard2"), deadline_s=5.0) as shard:
        await shard.ping()
    await migrate.main(settings)
    assert psql(settings.dsn("shard2"), "SELECT name FROM identity") == "shard2"


async def test_an_unusable_address_in_the_directory_ends_no_service(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be usable elsewhere: the certificate that it needs exists on another machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    dsn = f"{settings.dsn('shard2').partition('?')[0]}?sslmode=verify-full"
    async with PostgresShard("shard3", dsn, deadline_s=2.0) as shard:
        with pytest.raises(ShardUnavailableError, match="the DSN of shard3 is not usable here"):
            await shard.ping()

    async def sleep(_: float) -> None:
        raise InterruptedError

    keeper = DayKeeper("shard3", dsn, homes=dict, on_floor=lambda *_: None, random=random.Random(1), sleep=sleep)
    with pytest.raises(InterruptedError):  # it waits for its next try
        await keeper.run()
