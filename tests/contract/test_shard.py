"""Every shard, in memory or on PostgreSQL, keeps the same promises."""

import asyncio
import random
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from tests.contract.conftest import Placed, Server, psql
from tests.harness_agreements import agreement_of

from cotacoes import config
from cotacoes.adapters.postgres.days import PostgresDays
from cotacoes.adapters.postgres.schema import known_migrations
from cotacoes.adapters.postgres.schema_connection import SchemaConnection
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin import migrate
from cotacoes.errors import (
    CoinMovedError,
    FenceClosedError,
    SettingError,
    ShardTimedOutError,
    ShardUnavailableError,
    WriterSupersededError,
)
from cotacoes.model.candle import INTERVALS, Candle, candles_of
from cotacoes.model.quote import Position, Quote, format_price
from cotacoes.patterns.sharding.shard import Shard, Stored
from cotacoes.testing.memory_shard import MemoryShard

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COIN = "bitcoin"
NEWEST = known_migrations()[-1].version


def make_quotes(epoch: int, first: int, count: int, *, price: str = "67012.3400", origin: str = "sim") -> list[Quote]:
    return [
        Quote(
            COIN,
            "USD",
            Decimal(price),
            epoch,
            seq,
            NOON + timedelta(microseconds=seq),
            NOON + timedelta(microseconds=seq),
            origin,
            Position(1, 9) if seq == 1 else None,
            agreement_of(seq),
        )
        for seq in range(first, first + count)
    ]


def spread_quotes(epoch: int, count: int, *, every_s: int) -> list[Quote]:
    """Quotes from noon on, over minutes, hours and days, at prices that rise and fall."""
    quotes = make_quotes(epoch, 1, count)
    times = [NOON + timedelta(seconds=every_s * number) for number in range(count)]
    prices = [Decimal(6_700_000 + number * 7919 % 1000).scaleb(-2) for number in range(count)]
    return [
        msgspec.structs.replace(quote, at=at, observed_at=at, price=price)
        for quote, at, price in zip(quotes, times, prices, strict=True)
    ]


@pytest.fixture
def homes(placed: Placed) -> tuple[str, str]:
    """The DSNs of shard1, on which two coins live, and of shard2."""
    return placed(f"{COIN}:shard1,other:shard1")


@pytest.fixture(params=["memory", "postgres"])
async def shard(request: pytest.FixtureRequest) -> AsyncIterator[Shard]:
    """A shard on which two coins live."""
    if request.param == "memory":
        yield MemoryShard("shard1", [COIN, "other"])
        return
    async with PostgresShard("shard1", request.getfixturevalue("homes")[0], deadline_s=5.0) as postgres:
        yield postgres


@pytest.fixture
def close_fence(shard: Shard, request: pytest.FixtureRequest) -> Callable[[bool], None]:
    def close(closed: bool) -> None:
        if isinstance(shard, MemoryShard):
            shard.closed = closed
        else:
            psql(request.getfixturevalue("homes")[0], f"UPDATE fence SET state = '{'closed' if closed else 'open'}'")

    return close


async def as_writer(shard: Shard, epoch: int, quotes: list[Quote], writer: str = "a") -> None:
    fence = await shard.become_writer(COIN, epoch, writer)
    await shard.append(COIN, fence.placement, epoch, quotes)


async def test_a_batch_is_read_back_digit_for_digit(shard: Shard) -> None:
    quotes = [*make_quotes(5, 1, 2), *make_quotes(5, 3, 1, price="0." + "1" * 28, origin="replay:x")]
    await as_writer(shard, 5, quotes)
    assert await shard.after(COIN, None, 10) == quotes
    assert [format_price(quote.price) for quote in await shard.last(COIN, 1)] == ["0." + "1" * 28]


async def test_a_batch_sent_twice_changes_nothing(shard: Shard) -> None:
    quotes = make_quotes(5, 1, 5)
    await as_writer(shard, 5, quotes)
    fence = await shard.fence(COIN)
    await shard.append(COIN, fence.placement, 5, make_quotes(5, 3, 3, price="1"))
    await shard.append(COIN, fence.placement, 5, quotes)
    assert await shard.after(COIN, None, 10) == quotes
    assert await shard.fence(COIN) == fence


async def test_the_fence_has_the_first_and_the_last_position_that_the_shard_holds(shard: Shard) -> None:
    assert (await shard.fence(COIN)).newest is None
    assert (await shard.fence(COIN)).floor is None
    quotes = make_quotes(5, 1, 5)
    await as_writer(shard, 5, quotes)
    later = msgspec.structs.replace(make_quotes(7, 1, 1)[0], prev=Position(5, 5))
    await as_writer(shard, 7, [later])
    fence = await shard.fence(COIN)
    assert (fence.writer_epoch, fence.epoch, fence.floor) == (7, 7, Position(5, 1))
    assert fence.newest == later


async def test_reading_after_a_position_is_exclusive_ascending_and_bounded(shard: Shard) -> None:
    quotes = make_quotes(5, 1, 10)
    await as_writer(shard, 5, quotes)
    assert await shard.after(COIN, Position(5, 3), 4) == quotes[3:7]
    assert await shard.after(COIN, Position(5, 10), 4) == []
    assert await shard.after(COIN, Position(4, 999), 2) == quotes[:2]
    assert await shard.last(COIN, 3) == quotes[7:]


async def test_one_call_returns_the_newest_quotes_of_several_coins(shard: Shard) -> None:
    quotes = make_quotes(5, 1, 3)
    await as_writer(shard, 5, quotes)
    views = await shard.newest([COIN, "other"], 2)
    assert (views[COIN].through, views[COIN].quotes) == (Position(5, 3), quotes[1:])
    assert (views["other"].through, views["other"].quotes) == (None, [])


async def test_an_older_writer_is_refused_and_cannot_come_back(shard: Shard) -> None:
    await as_writer(shard, 5, make_quotes(5, 1, 1))
    await shard.become_writer(COIN, 6, "b")
    with pytest.raises(WriterSupersededError):
        await shard.append(COIN, 1, 5, make_quotes(5, 2, 1))
    with pytest.raises(WriterSupersededError):
        await shard.become_writer(COIN, 5, "a")
    assert await shard.after(COIN, None, 10) == make_quotes(5, 1, 1)


async def test_one_of_two_writers_with_the_same_epoch_is_refused_and_the_other_may_ask_again(shard: Shard) -> None:
    await shard.become_writer(COIN, 5, "a")
    await shard.become_writer(COIN, 5, "a")
    with pytest.raises(WriterSupersededError):
        await shard.become_writer(COIN, 5, "b")


async def test_a_coin_without_a_fence_lives_elsewhere(shard: Shard) -> None:
    with pytest.raises(CoinMovedError):
        await shard.fence("dogecoin")
    with pytest.raises(CoinMovedError):
        await shard.become_writer("dogecoin", 5, "a")
    with pytest.raises(CoinMovedError):
        await shard.last("dogecoin", 1)
    assert list(await shard.newest(["dogecoin", COIN], 1)) == [COIN]
    with pytest.raises(CoinMovedError):
        await shard.append(COIN, 99, 5, make_quotes(5, 1, 1))


async def test_a_closed_fence_accepts_nothing_until_it_is_open(
    shard: Shard, close_fence: Callable[[bool], object]
) -> None:
    fence = await shard.become_writer(COIN, 5, "a")
    close_fence(True)
    with pytest.raises(FenceClosedError):
        await shard.append(COIN, fence.placement, 5, make_quotes(5, 1, 1))
    close_fence(False)
    await shard.append(COIN, fence.placement, 5, make_quotes(5, 1, 1))
    assert await shard.last(COIN, 5) == make_quotes(5, 1, 1)


async def test_the_first_price_at_a_position_stays_and_a_different_one_is_kept_aside(shard: Shard) -> None:
    quotes = make_quotes(5, 1, 3)
    await as_writer(shard, 5, quotes)
    offered = [*make_quotes(5, 2, 1, price="1"), *make_quotes(5, 3, 3)]
    assert await shard.append(COIN, 1, 5, offered) == Stored(stored=2, already=1, conflicts=1)
    assert await shard.append(COIN, 1, 5, offered) == Stored(stored=0, already=3, conflicts=1)
    assert await shard.after(COIN, None, 10) == make_quotes(5, 1, 5)
    assert (await candles(shard, 1))[0].count == 5


async def test_a_time_range_has_exact_ends_and_is_read_in_pages(shard: Shard) -> None:
    quotes = spread_quotes(5, 300, every_s=7)
    await as_writer(shard, 5, quotes)
    start, end = NOON + timedelta(seconds=70), NOON + timedelta(seconds=1400)
    wanted = [quote for quote in quotes if start <= quote.at < end]
    assert (wanted[0].at, wanted[-1].at) == (start, end - timedelta(seconds=7))
    found: list[Quote] = []
    while page := await shard.between(COIN, start, end, found[-1].position if found else None, 50):
        found += page
    assert found == wanted
    assert await shard.between(COIN, NOON - timedelta(days=9), NOON, None, 50) == []
    assert await shard.between(COIN, NOON + timedelta(days=9), NOON + timedelta(days=99), None, 50) == []


async def candles(shard: Shard, minutes: int, limit: int = 10_000) -> Sequence[Candle]:
    day = NOON.replace(hour=0)
    return (await shard.candles(COIN, minutes, day - timedelta(days=9), day + timedelta(days=99), limit)).candles


@pytest.mark.parametrize("minutes", INTERVALS.values())
async def test_candles_of_any_interval_match_the_rows_in_any_order_of_arrival(shard: Shard, minutes: int) -> None:
    quotes = spread_quotes(5, 400, every_s=601)
    await as_writer(shard, 5, quotes[:7])
    dice = random.Random(minutes)
    while (await shard.last(COIN, 1)) != quotes[-1:]:
        through = (await shard.last(COIN, 1))[0].seq
        first = max(0, through - dice.randrange(20))
        assert (await shard.append(COIN, 1, 5, quotes[first : through + dice.randrange(1, 50)])).conflicts == 0
    assert await candles(shard, minutes) == candles_of(quotes, minutes)
    assert await candles(shard, minutes, limit=3) == candles_of(quotes, minutes)[:3]


async def test_candles_have_their_last_position_and_never_mix_origins(shard: Shard) -> None:
    first = make_quotes(5, 1, 3, price="10")
    later = [msgspec.structs.replace(quote, origin="replay:x") for quote in make_quotes(5, 4, 2, price="70000")]
    assert (await shard.candles(COIN, 1, NOON, NOON + timedelta(minutes=1), 9)).candles == []
    await as_writer(shard, 5, first)
    await shard.append(COIN, 1, 5, later)
    view = await shard.candles(COIN, 1, NOON, NOON + timedelta(minutes=1), 9)
    assert (view.through, view.through_at) == (Position(5, 5), later[-1].at)
    assert view.candles == candles_of(later, 1)
    simulated = await shard.candles(COIN, 1, NOON, NOON + timedelta(minutes=1), 9, ("sim", "USD"))
    assert simulated.candles == candles_of(first, 1)
    assert (await shard.candles(COIN, 1, NOON, NOON + timedelta(minutes=1), 9, ("other", "USD"))).candles == []


CALL_DEADLINE_S = 3.0  # long beside what a busy machine needs


@pytest.fixture
async def postgres(homes: tuple[str, str]) -> AsyncIterator[PostgresShard]:
    async with PostgresShard("shard1", homes[0], deadline_s=CALL_DEADLINE_S) as shard:
        yield shard


async def test_calls_to_a_frozen_server_end_by_their_deadline_and_succeed_again_after_it_thaws(
    postgres: PostgresShard, postgres_server: Server
) -> None:
    await postgres.ping()
    postgres_server.freeze()
    try:
        started = time.monotonic()
        answers = await asyncio.gather(*(postgres.fence(COIN) for _ in range(12)), return_exceptions=True)
        # in turn over the four connections of the pool, twelve calls would take three deadlines
        assert time.monotonic() - started < 3 * CALL_DEADLINE_S
        assert {type(answer) for answer in answers} == {ShardTimedOutError}
    finally:
        postgres_server.thaw()
    assert (await postgres.fence(COIN)).newest is None


async def test_an_error_contains_neither_the_password_nor_the_text_of_the_server(databases: tuple[str, str]) -> None:
    async with PostgresShard("shard1", databases[0], deadline_s=2.0) as shard:
        with pytest.raises(ShardUnavailableError) as refused:
            await shard.ping()
    assert str(refused.value) == (
        f"shard1 has schema version None, this release needs {NEWEST}: run `cotacoes migrate`"
    )


async def test_a_batch_creates_the_partition_of_its_day_and_partitions_can_be_created_ahead(
    postgres: PostgresShard, homes: tuple[str, str]
) -> None:
    await as_writer(postgres, 5, make_quotes(5, 1, 1))
    async with PostgresDays("shard1", homes[0]) as days:
        await days.prepare(date(2026, 11, 24), date(2026, 11, 26))
    parts = psql(homes[0], "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'quote'::regclass ORDER BY 1")
    assert parts.split() == ["quote_20261124", "quote_20261125", "quote_20261126"]


@pytest.mark.parametrize("price", ["NaN", "Infinity", "0", "-1"])
async def test_the_table_itself_refuses_poisonous_prices(postgres: PostgresShard, price: str) -> None:
    fence = await postgres.become_writer(COIN, 5, "a")
    with pytest.raises(ShardUnavailableError, match="23514"):
        await postgres.append(COIN, fence.placement, 5, make_quotes(5, 1, 1, price=price))
    assert (await postgres.fence(COIN)).newest is None


async def test_the_view_for_people_shows_positions_prices_and_names(
    postgres: PostgresShard, homes: tuple[str, str]
) -> None:
    await as_writer(postgres, 5, make_quotes(5, 1, 2))
    shown = psql(homes[0], "SELECT * FROM quotes ORDER BY at DESC LIMIT 1")
    assert (
        shown == "bitcoin|5-2|2026-11-24 12:00:00.000002+00|2026-11-24 12:00:00.000002+00|67012.3400|USD|sim|1/6~167.5"
    )


async def test_a_batch_under_way_and_a_new_writer_never_both_succeed(
    postgres: PostgresShard, homes: tuple[str, str]
) -> None:
    """The fence is read after the lock: a refused batch is not stored, and a stored one was not refused."""
    for epoch in range(10, 30, 2):
        await postgres.become_writer(COIN, epoch, "a")
        outcomes = await asyncio.gather(
            postgres.append(COIN, 1, epoch, make_quotes(epoch, 1, 50)),
            postgres.become_writer(COIN, epoch + 1, "b"),
            return_exceptions=True,
        )
        stored = int(psql(homes[0], f"SELECT count(*) FROM quote WHERE epoch = {epoch}"))
        assert stored == (0 if isinstance(outcomes[0], WriterSupersededError) else 50)
        assert not isinstance(outcomes[1], BaseException)


async def test_a_migration_changes_nothing_unless_every_shard_answers(
    databases: tuple[str, str],
) -> None:
    nowhere = "postgresql://cotacoes@127.0.0.1:1/none"
    with pytest.raises(ShardUnavailableError):
        await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=nowhere))
    assert psql(databases[0], "SELECT count(*) FROM pg_class WHERE relname = 'quote'") == "0"


async def test_migrating_again_changes_nothing_and_a_changed_migration_is_refused(databases: tuple[str, str]) -> None:
    settings = config.load({}, shard1_dsn=databases[0], shard2_dsn=databases[1])
    assert await migrate.main(settings) == [
        f"{shard}: schema {NEWEST}, {len(known_migrations())} applied now" for shard in config.SHARDS
    ]
    assert await migrate.main(settings) == [f"{shard}: schema {NEWEST}, 0 applied now" for shard in config.SHARDS]
    psql(databases[1], "UPDATE schema_migration SET sha256 = 'x'")
    with pytest.raises(SettingError, match="other content"):
        await migrate.main(settings)
    psql(databases[1], "DELETE FROM schema_migration WHERE version > 1; UPDATE schema_migration SET version = 99")
    with pytest.raises(SettingError, match="newer"):
        await migrate.main(settings)


async def test_a_setting_that_places_a_coin_on_another_shard_than_its_own_is_refused(
    databases: tuple[str, str],
) -> None:
    await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=databases[1]))
    with pytest.raises(SettingError, match="write bitcoin:shard1"):
        await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=databases[1], coins="bitcoin:shard2"))


async def test_many_coins_share_two_shards(databases: tuple[str, str]) -> None:
    coins = {f"coin-{number}": f"shard{number % 2 + 1}" for number in range(20)}
    text = ",".join(f"{coin}:{shard}" for coin, shard in coins.items())
    await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=databases[1], coins=text))
    async with PostgresShard("shard2", databases[1], deadline_s=5.0) as second:
        assert (await second.fence("coin-1")).placement == 1
        with pytest.raises(CoinMovedError):
            await second.fence("coin-2")


async def test_a_batch_without_an_epoch_or_a_placement_is_refused(shard: Shard) -> None:
    """In SQL nothing is unequal to NULL, so a fence that compared with `<>` would accept it."""
    fence = await shard.become_writer(COIN, 5, "a")
    with pytest.raises(WriterSupersededError):
        await shard.append(COIN, fence.placement, None, make_quotes(5, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(CoinMovedError):
        await shard.append(COIN, None, 5, make_quotes(5, 1, 1))  # type: ignore[arg-type]
    assert await shard.after(COIN, None, 10) == []


@pytest.mark.parametrize("password", ["hunter2#x", "hunter2/x", "hunter2?x"])
async def test_an_unreadable_dsn_is_named_without_its_password(password: str) -> None:
    async with PostgresShard("shard1", f"postgresql://cotacoes:{password}@127.0.0.1:5432/x", deadline_s=0.5) as shard:
        with pytest.raises((SettingError, ShardUnavailableError)) as raised:
            await shard.ping()
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


async def test_a_partition_that_two_callers_create_at_once_is_created_once(homes: tuple[str, str]) -> None:
    """The second caller waits for the first, and must then see what that has created."""
    days = [date(2030, 1, 1) + timedelta(days=number) for number in range(20)]
    async with (
        PostgresDays("shard1", homes[0]) as one,
        PostgresDays("shard1", homes[0]) as other,
    ):
        for day in days:
            await asyncio.gather(one.prepare(day, day), other.prepare(day, day))


async def test_data_of_the_first_schema_survives_the_migrations(databases: tuple[str, str]) -> None:
    for name, dsn in zip(config.SHARDS, databases, strict=True):
        async with SchemaConnection(name, dsn) as connection:
            await connection.apply(known_migrations()[0])
    psql(databases[0], FIRST_FORM)
    await migrate.main(config.load({}, shard1_dsn=databases[0], shard2_dsn=databases[1]))
    async with PostgresShard("shard1", databases[0], deadline_s=5.0) as shard:
        held = await shard.after(COIN, None, 30_000)
        assert [quote.seq for quote in held] == [*range(1, 20_001), 1]
        assert (held[0].prev, held[-1].prev) == (None, Position(5, 20_000))
        assert (await shard.fence(COIN)).newest == held[-1]
        assert await candles(shard, 60) == candles_of(held, 60)


FIRST_FORM = """
INSERT INTO directory VALUES ('bitcoin', 1, 'shard1', 1);
INSERT INTO fence (coin_id, coin, placement) VALUES (1, 'bitcoin', 1);
INSERT INTO origin (name, currency) VALUES ('other', 'USD'), ('sim', 'USD');
SELECT become_writer('bitcoin', 5, 'a');
SELECT append_quotes('bitcoin', 1, 5, array_agg(5::bigint), array_agg(n), array_agg(at), array_agg(at),
    array_agg((100 + n % 17)::text), array_agg('sim'::text), array_agg('USD'::text), array_agg(NULL::bigint),
    array_agg(NULL::integer))
FROM (
    SELECT n, timestamptz '2026-11-24 12:00Z' + n * interval '3 seconds' AS at FROM generate_series(1, 20000) AS n
) AS q;
SELECT become_writer('bitcoin', 6, 'a');
SELECT append_quotes('bitcoin', 1, 6, '{6}', '{1}', '{2026-11-26 12:00Z}', '{2026-11-26 12:00Z}', '{99.50}',
    '{sim}', '{USD}', '{5}', '{20000}');
"""
