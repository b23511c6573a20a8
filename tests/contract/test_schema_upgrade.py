"""A shard of the last release is migrated in place: its history reads, goes on, seals, audits and moves as before."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.contract.conftest import Databases, psql
from tests.contract.harness_move import COIN, ThreeShards, on_postgres
from tests.harness_agreements import AGREEMENTS, agreement_of

from cotacoes import config
from cotacoes.adapters.postgres.days import PostgresDays
from cotacoes.adapters.postgres.schema import QUERIES, known_migrations
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin import audit, discrepancies, migrate
from cotacoes.admin.audit_snapshot import CoinAudit
from cotacoes.config import Settings
from cotacoes.errors import ShardUnavailableError
from cotacoes.model.quote import Position, Quote, to_microseconds
from cotacoes.patterns.sharding.shard import Stored

LAST_RELEASE = 7  # the schema of 0.2.0
MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
EVERY = timedelta(minutes=50)
SEALED = "SELECT day, count, sum, digest, sealed_at FROM day WHERE sealed_at IS NOT NULL ORDER BY day"
COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum"


def history(epoch: int, first: int, count: int, start: datetime, prev: Position | None = None) -> list[Quote]:
    return [
        Quote(
            COIN,
            "USD",
            Decimal(6_700_000 + seq * 7919 % 1000).scaleb(-2),
            epoch,
            seq,
            at - timedelta(seconds=1),
            at,
            "replay:x" if seq % 7 == 0 else "sim",
            prev if seq == 1 else None,
        )
        for seq, at in ((first + number, start + number * EVERY) for number in range(count))
    ]


OLD = history(5, 1, 60, MIDNIGHT)  # two days and a little
LATER = history(9, 1, 30, OLD[-1].at + EVERY, prev=OLD[-1].position)
OTHERWISE = replace(OLD[-2], price=Decimal("1.50"))
NEVER_STORED = history(4, 2, 1, MIDNIGHT)[0]


def append_of_the_last_release(quotes: list[Quote]) -> str:
    """The call by which release 0.2.0 stores a batch, as SQL; a run for each quote."""

    def array(values: Sequence[object], kind: str) -> str:
        return f"ARRAY[{', '.join(map(str, values))}]::{kind}[]"

    origins = [1 + ["sim", "replay:x"].index(one.origin) for one in quotes]
    prev = [(one.epoch, one.prev) for one in quotes if one.prev is not None]
    return (
        f"SELECT stored || ' ' || already || ' ' || refused || ' ' || conflicts FROM append_quotes('{COIN}', 1, 5,"
        " NULL, NULL, "
        f"{array([one.epoch for one in quotes], 'bigint')}, {array([one.seq for one in quotes], 'integer')},"
        f"{array([1] * len(quotes), 'integer')}, {array(origins, 'smallint')},"
        f"{array([to_microseconds(one.at) for one in quotes], 'bigint')},"
        f"{array([to_microseconds(one.observed_at) for one in quotes], 'bigint')},"
        f"{array([one.price for one in quotes], 'numeric')}, ARRAY['sim', 'replay:x'], ARRAY['USD', 'USD'],"
        f"{array([epoch for epoch, _ in prev], 'bigint')}, {array([one.epoch for _, one in prev], 'bigint')},"
        f"{array([one.seq for _, one in prev], 'integer')})"
    )


def install_the_last_release(dsn: str, shard: str) -> None:
    psql(dsn, QUERIES["create_migration_table"])
    for one in known_migrations()[:LAST_RELEASE]:
        psql(dsn, one.sql)
        psql(dsn, f"INSERT INTO schema_migration VALUES ({one.version}, '{one.name}', '{one.sha256}')")
    psql(dsn, f"INSERT INTO identity (name) VALUES ('{shard}')")


@pytest.fixture
def old(made: Databases) -> Settings:
    """Two shards of the last release; bitcoin has two sealed days, a conflict and an orphan on shard1."""
    first, second = (made.dsn(made.make(shard)) for shard in ("shard1", "shard2"))
    install_the_last_release(first, "shard1")
    install_the_last_release(second, "shard2")
    psql(first, f"INSERT INTO directory (coin, coin_id, shard, placement) VALUES ('{COIN}', 1, 'shard1', 1)")
    psql(first, f"INSERT INTO fence (coin_id, coin, placement) VALUES (1, '{COIN}', 1)")
    psql(first, f"SELECT become_writer('{COIN}', 5, 'a')")
    assert psql(first, append_of_the_last_release(OLD)) == "60 0 0 0"
    assert psql(first, append_of_the_last_release([OTHERWISE, NEVER_STORED])) == "0 0 1 1"
    for day in ("2026-11-24", "2026-11-25"):
        assert psql(first, f"SELECT is_sealed FROM seal_day('{COIN}', '{day}')") == "t"
    return config.load({}, shard1_dsn=first, shard2_dsn=second, coins=f"{COIN}:shard1")


@pytest.fixture
async def world(old: Settings, made: Databases) -> AsyncIterator[ThreeShards]:
    """The same after the migration, with an empty third shard."""
    lines = await migrate.main(old)
    assert lines == [
        f"{shard}: schema {known_migrations()[-1].version}, 2 applied now" for shard in ("shard1", "shard2")
    ]
    empty = config.load(
        {}, shard1_dsn=made.dsn(made.make("other")), shard2_dsn=made.dsn(made.make("shard3")), coins=old.coins
    )
    await migrate.main(empty)
    pairs = iter([(old.dsn("shard1"), old.dsn("shard2")), (empty.dsn("shard1"), empty.dsn("shard2"))])
    async with on_postgres(lambda _: next(pairs)) as world:
        yield world


async def audited(settings: Settings) -> tuple[list[str], str]:
    reported: list[CoinAudit] = []
    found = await audit.main(settings, on_coin=reported.append, say=lambda _: None, second_look_after_s=0)
    return [f"{breach.place} {breach.what}" for one in reported for _, breach in one.breaches], found.verdict


async def test_the_history_of_the_last_release_reads_goes_on_seals_audits_and_moves(
    old: Settings, world: ThreeShards
) -> None:
    shard = world.shards["shard1"]
    assert await shard.after(COIN, None, 100) == OLD
    assert [one.quote for one in [one async for one in discrepancies.orphans(old, COIN)]] == [NEVER_STORED]
    assert psql(old.dsn("shard1"), "SELECT count(*), count(agreement) FROM conflict") == "1|0"

    assert (await shard.claim(COIN, 9, "a", held=5)).writer_epoch == 9
    agreed = [replace(quote, agreement=agreement_of(quote.seq)) for quote in LATER]
    for first in range(0, len(agreed), 4):  # batches with and without, in runs and not
        assert await shard.append(COIN, 1, 9, agreed[first : first + 4]) == Stored(len(agreed[first : first + 4]))
    assert await shard.append(COIN, 1, 9, agreed[:9]) == Stored(0, 9)
    assert await shard.append(COIN, 1, 9, OLD[-9:]) == Stored(0, 9)
    assert await shard.append(COIN, 1, 9, [replace(agreed[3], agreement=AGREEMENTS[0])]) == Stored(0, conflicts=1)
    assert await shard.append(COIN, 1, 9, [replace(agreed[1], agreement=None)]) == Stored(0, conflicts=1)
    assert await shard.after(COIN, None, 100) == [*OLD, *agreed]

    async with PostgresDays("shard1", old.dsn("shard1")) as days:
        for closed in await days.closed():
            sealing = await days.seal(closed)
            assert sealing is not None
            assert sealing.is_sealed
    psql(old.dsn("shard1"), f"SELECT accept_discrepancies('{COIN}')")
    assert await audited(old) == ([], "right")

    sealed = psql(old.dsn("shard1"), SEALED)
    assert len(sealed.splitlines()) == 3
    for to in ("shard2", "shard3", "shard1"):
        await world.move(to)
        await world.purge()
        assert await world.shards[to].after(COIN, None, 100) == [*OLD, *agreed]
        assert psql(world.dsns[to], SEALED) == sealed
    assert await audited(old) == ([], "right")


async def test_the_migration_changes_no_digest_and_rewrites_no_row(old: Settings) -> None:
    dsn = old.dsn("shard1")
    files = "SELECT relname, relfilenode FROM pg_class WHERE relname LIKE 'quote_2026%' ORDER BY 1"
    digests = "SELECT * FROM digest_quotes(1, 0, 0, 99, 1) ORDER BY day"
    before = [psql(dsn, sql) for sql in (files, digests, SEALED)]
    await migrate.main(old)
    assert [psql(dsn, sql) for sql in (files, digests, SEALED)] == before
    assert psql(dsn, COLUMNS.format("quote_20261124")) == psql(dsn, COLUMNS.format("quote"))
    psql(dsn, "SELECT prepare_day('2026-12-24')")
    assert psql(dsn, COLUMNS.format("quote_20261224")) == psql(dsn, COLUMNS.format("quote"))


async def test_a_shard_of_the_last_release_counts_as_away_until_it_is_migrated(old: Settings) -> None:
    async with PostgresShard("shard1", old.dsn("shard1"), deadline_s=5.0) as shard:
        with pytest.raises(ShardUnavailableError, match="run `cotacoes migrate`"):
            await shard.after(COIN, None, 1)
