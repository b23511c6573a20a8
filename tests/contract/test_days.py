"""The days of a shard are sealed exactly, packed tightly and dropped whole during any writes, reads and kills."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from tests.contract.conftest import Placed, psql

from cotacoes.adapters.postgres.days import CoinDay, PostgresDays
from cotacoes.adapters.postgres.pool import Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.errors import CoinMovedError, ShardUnavailableError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.sharding.shard import Home
from cotacoes.quote_service.days import DayKeeper

FIRST = date(2024, 3, 1)  # long past by the server's clock, by which it notes when a day was dropped
SOON = datetime(2024, 3, 9, 12, tzinfo=UTC)  # all days are over; what is dropped now was not dropped a while ago
LATER = datetime(2124, 3, 9, 12, tzinfo=UTC)  # whatever was dropped, was dropped long ago
COIN, OTHER = "bitcoin", "other"


def day_of(number: int) -> date:
    return FIRST + timedelta(days=number)


def quotes_on(number: int, count: int, *, coin: str = COIN, first: int = 1) -> list[Quote]:
    """Quotes over one day from its first instant; each day and coin has an epoch of its own, without a predecessor."""
    midnight = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC) + timedelta(days=number)
    times = [midnight + timedelta(days=1) * n / (first + count) for n in range(first - 1, first + count - 1)]
    return [
        Quote(coin, "USD", Decimal(6_700_000 + n * 7919 % 10_000).scaleb(-2), 10 + number, n, at, at, "sim")
        for n, at in zip(range(first, first + count), times, strict=True)
    ]


def unchained(quotes: Sequence[Quote]) -> list[Quote]:
    """The quotes without the predecessor of each epoch, which the shard adds."""
    return [replace(quote, prev=None) for quote in quotes]


class Ledger:
    """A shard on which two coins live, and its keeper."""

    def __init__(self, dsn: str, shard: PostgresShard) -> None:
        self.dsn = dsn
        self.shard = shard
        self.retention: dict[str, int | None] = {COIN: None, OTHER: None}
        self.floors: list[tuple[str, Position]] = []

    async def write(self, quotes: Sequence[Quote]) -> None:
        coin, epoch = quotes[0].coin, quotes[0].epoch
        fence = await self.shard.become_writer(coin, epoch, "a")
        for start in range(0, len(quotes), 1000):
            await self.shard.append(coin, fence.placement, epoch, quotes[start : start + 1000])

    def keeper(self, now: datetime = SOON, **options: Any) -> DayKeeper:
        return DayKeeper(
            self.shard.name,
            self.dsn,
            homes=lambda: {coin: Home(1, self.shard.name, 1, days) for coin, days in self.retention.items()},
            on_floor=lambda coin, floor: self.floors.append((coin, floor)),
            random=random.Random(1),
            now=lambda: now,
            **options,
        )

    async def keep(self, now: datetime = SOON) -> list[str]:
        """Run one round; returns its log lines in short form."""
        with structlog.testing.capture_logs() as logs:
            await self.keeper(now).maintain()
        names = ("event", "coin", "day", "expected", "held", "count")
        return [" ".join(str(entry[name]) for name in names if name in entry) for entry in logs]

    def ask(self, sql: str) -> str:
        return psql(self.dsn, sql)

    def sealed(self) -> list[str]:
        return self.ask(
            "SELECT coin, day FROM day JOIN fence USING (coin_id) WHERE sealed_at IS NOT NULL ORDER BY 2, 1"
        ).split()

    def partitions(self) -> list[str]:
        sql = "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'quote'::regclass ORDER BY 1"
        return [part for part in self.ask(sql).split() if part < "quote_20240308"]

    def keys(self, number: int) -> str:
        """The indexes of a day's partition except that of times: name, options, validity."""
        return self.ask(
            "SELECT indexrelid::regclass, reloptions, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
            f" WHERE indrelid = partition_of('{day_of(number)}')::regclass AND relam <> 3580 ORDER BY 1"
        )

    def bytes_per_row(self, number: int) -> float:
        part = f"quote_{day_of(number):%Y%m%d}"
        return float(self.ask(f"SELECT pg_total_relation_size('{part}')::numeric / count(*) FROM {part}"))


@pytest.fixture
async def ledger(placed: Placed) -> AsyncIterator[Ledger]:
    async with open_ledgers(placed) as (first, _):
        yield first


@contextlib.asynccontextmanager
async def open_ledgers(placed: Placed) -> AsyncIterator[list[Ledger]]:
    dsns = placed(f"{COIN}:shard1,{OTHER}:shard1")
    psql(dsns[1], f"INSERT INTO fence (coin_id, coin, placement) VALUES (1, '{COIN}', 1), (2, '{OTHER}', 1)")
    async with contextlib.AsyncExitStack() as stack:
        yield [
            Ledger(dsn, await stack.enter_async_context(PostgresShard(name, dsn, deadline_s=5.0)))
            for name, dsn in zip(("shard1", "shard2"), dsns, strict=True)
        ]


@contextlib.asynccontextmanager
async def reading(dsn: str) -> AsyncIterator[None]:
    """A transaction that has read the whole table, open meanwhile."""
    async with Session("shard1", dsn, connect_s=5.0, deadline_s=60.0) as reader, reader.transaction("repeatable read"):
        await reader.fetch("SELECT count(*) FROM quote")
        yield


async def test_a_day_is_sealed_once_with_its_exact_content(ledger: Ledger) -> None:
    days = [quotes_on(number, 700 + number) for number in range(3)]
    for quotes in days:
        await ledger.write(quotes)
    assert await ledger.keep() == [
        f"day.sealed {COIN} {day_of(0)} 700",
        f"day.sealed {COIN} {day_of(1)} 701",
        f"partition.compacted {day_of(0)}",
        f"partition.compacted {day_of(1)}",
    ]
    manifest = ledger.ask("SELECT day, count, sum, digest, sealed_at FROM day WHERE sealed_at IS NOT NULL ORDER BY day")
    content = [line.split("|")[:4] for line in manifest.splitlines()]
    whole = ledger.ask("SELECT * FROM digest_quotes(1, 0, 0, 999, 0)").splitlines()
    assert content == [line.split("|") for line in whole[:2]]
    assert [Decimal(row[2]) for row in content] == [sum(quote.price for quote in quotes) for quotes in days[:2]]
    assert await ledger.keep() == []
    assert (
        ledger.ask("SELECT day, count, sum, digest, sealed_at FROM day WHERE sealed_at IS NOT NULL ORDER BY day")
        == manifest
    )


async def test_a_day_that_may_still_receive_a_quote_is_never_sealed(ledger: Ledger) -> None:
    day = quotes_on(0, 3)
    end = datetime(2024, 3, 2, tzinfo=UTC)
    seq, at = day[2].position.seq + 1, end - timedelta(microseconds=1)
    await ledger.write([*day, Quote(COIN, "USD", Decimal(1), 10, seq, at, at, "sim")])
    assert await ledger.keep(LATER) == []
    await ledger.write([Quote(COIN, "USD", Decimal(1), 10, 5, end, end, "sim")])
    assert await ledger.keep(LATER) == [f"day.sealed {COIN} {day_of(0)} 4", f"partition.compacted {day_of(0)}"]


@pytest.mark.parametrize(
    ("wrong", "held"),
    [
        ("DELETE FROM quote WHERE (coin_id, epoch, seq) = (1, 10, 50)", 99),
        (
            """INSERT INTO quote (coin_id, epoch, seq, at, observed_at, origin_id, price)
            SELECT coin_id, 9, 1, at, observed_at, origin_id, price FROM quote WHERE (epoch, seq) = (10, 50)""",
            101,
        ),
        ("DROP TABLE quote_20240301", 0),
    ],
)
async def test_a_day_whose_rows_differ_from_its_count_is_refused_and_the_others_are_sealed(
    ledger: Ledger, wrong: str, held: int
) -> None:
    for number in range(3):
        await ledger.write(quotes_on(number, 100))
    ledger.ask(wrong)
    assert await ledger.keep() == [
        f"day.refused {COIN} {day_of(0)} 100 {held}",
        f"day.sealed {COIN} {day_of(1)} 100",
        f"partition.compacted {day_of(1)}",
    ]
    ledger.retention[COIN] = 1
    await ledger.write(quotes_on(7, 1))
    await ledger.keep(LATER)
    assert ledger.ask("SELECT count(*) FROM day WHERE dropped_at IS NOT NULL") == "0"  # or a hole would lie behind it
    assert ledger.floors == []


SLOW_DIGEST = """
ALTER FUNCTION digest_quotes RENAME TO digest_quotes_fast;
CREATE FUNCTION digest_quotes(id integer, a_epoch bigint, a_seq integer, t_epoch bigint, t_seq integer)
RETURNS TABLE (day date, count bigint, sum numeric, digest numeric) LANGUAGE sql AS
$$ SELECT pg_sleep(1.5); SELECT * FROM digest_quotes_fast(id, a_epoch, a_seq, t_epoch, t_seq) $$
"""


async def test_the_writer_does_not_wait_while_a_day_is_read(ledger: Ledger) -> None:
    await ledger.write(quotes_on(0, 100))
    await ledger.write(quotes_on(1, 1))
    ledger.ask(SLOW_DIGEST)
    keeping = asyncio.create_task(ledger.keep())
    await asyncio.sleep(0.5)
    number = 1
    while not keeping.done():
        number += 1
        await ledger.write(quotes_on(1, 1, first=number))
        await asyncio.sleep(0.01)
    assert number > 5
    assert (await keeping)[0] == f"day.sealed {COIN} {day_of(0)} 100"
    assert ledger.ask("SELECT count FROM day WHERE sealed_at IS NULL") == str(number)


@pytest.mark.parametrize(
    "change", ["state = 'closed'", "state = 'moved', moved_to = 'shard2'", "placement = 3", "state = 'incoming'"]
)
async def test_a_coin_that_begins_to_move_while_its_day_is_read_is_not_sealed(ledger: Ledger, change: str) -> None:
    await ledger.write(quotes_on(0, 100))
    await ledger.write(quotes_on(1, 1))
    ledger.ask(SLOW_DIGEST)
    keeping = asyncio.create_task(ledger.keep())
    await asyncio.sleep(0.7)
    ledger.ask(f"UPDATE fence SET {change} WHERE coin = '{COIN}'")
    assert await keeping == []
    assert ledger.sealed() == []


@pytest.mark.parametrize("state", ["state = 'closed'", "state = 'moved', moved_to = 'shard2'", "state = 'incoming'"])
async def test_only_the_days_of_coins_that_live_here_are_maintained(ledger: Ledger, state: str) -> None:
    for number in range(4):
        await ledger.write(quotes_on(number, 10))
    ledger.ask(f"UPDATE fence SET {state} WHERE coin = '{COIN}'")
    assert await ledger.keep() == []
    ledger.ask(f"UPDATE fence SET state = 'open', moved_to = NULL WHERE coin = '{COIN}'")
    assert f"day.sealed {COIN} {day_of(0)} 10" in await ledger.keep()
    ledger.ask(f"UPDATE fence SET {state} WHERE coin = '{COIN}'")
    ledger.retention[COIN] = 1
    assert await ledger.keep() == []
    async with PostgresDays("shard1", ledger.dsn) as days:  # it may have changed since it was asked for what is due
        with contextlib.suppress(CoinMovedError):
            assert await days.drop(CoinDay(COIN, day_of(0)), 1) is None
    assert ledger.ask("SELECT count(*) FROM day WHERE dropped_at IS NOT NULL") == "0"


async def test_an_open_day_is_small_and_a_packed_day_is_smaller(ledger: Ledger) -> None:
    """The two coins are written alternately, as quotes arrive."""
    pages = [quotes_on(0, 60_000, coin=coin) for coin in (COIN, OTHER)]
    for start in range(0, 60_000, 100):
        for quotes in pages:
            await ledger.write(quotes[start : start + 100])
    open_bytes = ledger.bytes_per_row(0)
    for coin in (COIN, OTHER):
        await ledger.write(quotes_on(1, 1, coin=coin))
    await ledger.keep()
    packed_bytes = ledger.bytes_per_row(0)
    print(f"bytes a row: open {open_bytes:.1f}, packed {packed_bytes:.1f}")  # noqa: T201
    assert open_bytes <= 145
    assert packed_bytes <= 115
    assert ledger.keys(0) == "quote_20240301_pkey|{fillfactor=100}|t"


async def test_a_day_is_packed_once_an_hour_after_its_end_and_only_if_all_its_coins_are_sealed(
    ledger: Ledger,
) -> None:
    await ledger.write(quotes_on(0, 10))
    await ledger.write(quotes_on(0, 10, coin=OTHER))
    await ledger.write(quotes_on(1, 10))
    ended = datetime(2024, 3, 2, tzinfo=UTC)
    assert await ledger.keep(LATER) == [f"day.sealed {COIN} {day_of(0)} 10"]
    await ledger.write(quotes_on(1, 10, coin=OTHER))
    assert await ledger.keep(ended + timedelta(hours=1)) == [f"day.sealed {OTHER} {day_of(0)} 10"]
    assert await ledger.keep(ended + timedelta(hours=1, seconds=1)) == [f"partition.compacted {day_of(0)}"]
    assert await ledger.keep(LATER) == []


WAITING = "datname = current_database() AND wait_event = 'virtualxid'"  # for an older transaction to end


async def until_waiting(ledger: Ledger, statement: str) -> None:
    while not ledger.ask(f"SELECT pid FROM pg_stat_activity WHERE {WAITING} AND query LIKE '{statement}%'"):
        await asyncio.sleep(0.02)


async def test_a_cancelled_keeper_ends_at_once_at_any_step(ledger: Ledger) -> None:
    await ledger.write(quotes_on(0, 10))
    await ledger.write(quotes_on(1, 1))
    async with asyncio.timeout(20), reading(ledger.dsn):
        keeping = asyncio.create_task(ledger.keep())
        await until_waiting(ledger, "REINDEX")
        keeping.cancel()
        await asyncio.wait(
            [keeping], timeout=15
        )  # its statement waits for a reader that stays: only the cancel ends it
        assert keeping.cancelled()
    while await ledger.keep() != [f"partition.compacted {day_of(0)}"]:  # the server may go on for a while
        await asyncio.sleep(0.1)


async def test_a_killed_rebuild_is_repaired_and_readers_and_writers_never_wait_for_it(ledger: Ledger) -> None:
    """An older transaction delays the rebuild; its server process is ended in the middle, and then again."""
    quotes = quotes_on(0, 1000)
    await ledger.write(quotes)
    await ledger.write(quotes_on(1, 1))
    for kill in range(2):
        async with asyncio.timeout(20), reading(ledger.dsn):
            keeping = asyncio.create_task(ledger.keep())
            await until_waiting(ledger, ("REINDEX", "DROP INDEX")[kill])
            assert await ledger.shard.after(COIN, None, 1000) == quotes
            await ledger.write(quotes_on(1, 1, first=2 + kill))
            ledger.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WAITING}")
            with pytest.raises(ShardUnavailableError):
                await keeping
        assert "_ccnew|" in ledger.keys(0)
    assert await ledger.keep() == [f"partition.compacted {day_of(0)}"]
    assert ledger.keys(0) == "quote_20240301_pkey|{fillfactor=100}|t"
    assert await ledger.shard.after(COIN, None, 1000) == quotes
    assert await ledger.keep() == []


async def test_expired_days_lose_their_rows_and_keep_candles_and_manifests_and_other_coins_stay(ledger: Ledger) -> None:
    held: list[Quote] = []
    for number in range(6):
        held += quotes_on(number, 100)
        await ledger.write(quotes_on(number, 100))
        if number < 3:
            await ledger.write(quotes_on(number, 50, coin=OTHER))
    candles = ledger.ask("SELECT * FROM candle ORDER BY coin_id, minutes, at")
    others = await ledger.shard.after(OTHER, None, 1000)
    ledger.retention[COIN] = 1
    said = await ledger.keep()
    assert [line for line in said if "dropped" in line] == [
        f"day.dropped {COIN} {day_of(number)} 100" for number in range(4)
    ]
    assert ledger.floors[-1] == (COIN, Position(14, 1))
    assert (await ledger.shard.fence(COIN)).floor == Position(14, 1)
    assert unchained(await ledger.shard.after(COIN, None, 1000)) == held[400:]
    assert unchained(await ledger.shard.last(COIN, 1000)) == held[400:]
    assert ledger.ask("SELECT count(*) FROM quote WHERE coin_id = 1") == "600"  # who reads them has begun before
    assert len(ledger.partitions()) == 6

    assert await ledger.keep(LATER) == [
        "partition.thinned 2024-03-01 100",
        "partition.thinned 2024-03-02 100",
        "partition.thinned 2024-03-03 100",
        "partition.dropped 2024-03-04",
        "partition.compacted 2024-03-01",
        "partition.compacted 2024-03-02",
    ]
    assert ledger.ask("SELECT count(*) FROM quote WHERE coin_id = 1") == "200"
    assert len(ledger.partitions()) == 5
    assert unchained(await ledger.shard.after(COIN, None, 1000)) == held[400:]
    assert await ledger.shard.after(OTHER, None, 1000) == others
    assert ledger.ask("SELECT * FROM candle ORDER BY coin_id, minutes, at") == candles
    assert ledger.ask("SELECT count(digest), count(dropped_at) FROM day WHERE coin_id = 1") == "5|4"
    vacuumed = "SELECT reltuples, relallvisible = relpages FROM pg_class WHERE relname = 'quote_20240301'"
    assert ledger.ask(vacuumed) == "50|t"
    assert await ledger.keep(LATER) == []


async def test_a_feed_that_stopped_loses_none_of_its_last_days(ledger: Ledger) -> None:
    for number in range(3):
        await ledger.write(quotes_on(number, 10))
    ledger.retention[COIN] = 2
    await ledger.keep(LATER)
    assert len(await ledger.shard.after(COIN, None, 100)) == 30
    ledger.retention[COIN] = 2_147_483_647  # the most that the directory takes
    await ledger.write(quotes_on(3, 10))
    await ledger.keep(LATER)
    assert len(await ledger.shard.after(COIN, None, 100)) == 40
    ledger.retention[COIN] = 2
    await ledger.keep(LATER)
    assert len(await ledger.shard.after(COIN, None, 100)) == 30


async def test_retention_never_drops_the_newest_day_or_coins_of_another_shard(ledger: Ledger) -> None:
    for coin in (COIN, OTHER):
        for number in range(3):
            await ledger.write(quotes_on(number, 10, coin=coin))
    await ledger.keep()
    ledger.ask("UPDATE day SET sum = 0, digest = 0, sealed_at = now() WHERE sealed_at IS NULL")  # by mistake
    async with PostgresDays("shard1", ledger.dsn) as days:
        for number in range(3):
            await days.drop(CoinDay(COIN, day_of(number)), 0)
            await days.drop(CoinDay(OTHER, day_of(number)), -5)
    assert ledger.ask("SELECT coin_id, count(dropped_at) FROM day GROUP BY 1 ORDER BY 1") == "1|2\n2|2"
    assert (await ledger.shard.fence(COIN)).floor == Position(12, 1)
    keeper = ledger.keeper()
    keeper._homes = lambda: {OTHER: Home(2, "shard2", 1, 1)}
    await keeper.maintain()
    assert ledger.ask("SELECT count(dropped_at) FROM day WHERE coin_id = 2") == "2"


async def test_a_partition_in_use_waits_for_the_next_round_and_blocks_no_query(ledger: Ledger) -> None:
    for number in range(4):
        await ledger.write(quotes_on(number, 10))
    ledger.retention[COIN] = 1
    await ledger.keep()
    async with asyncio.timeout(20), reading(ledger.dsn):
        # the reader stays: a keeper that waited for it, or a write behind such a keeper, would never end
        keeping = asyncio.create_task(ledger.keep(LATER))
        number = 10
        while not keeping.done():
            number += 1
            await ledger.write(quotes_on(3, 1, first=number))
        assert not [line for line in await keeping if "partition.dropped" in line]
    assert len(ledger.partitions()) == 4
    assert await ledger.keep(LATER) == ["partition.dropped 2024-03-01", "partition.dropped 2024-03-02"]


async def test_a_read_while_days_are_dropped_has_every_quote_from_the_old_floor_or_from_a_new_one(
    ledger: Ledger,
) -> None:
    held = [quote for number in range(8) for quote in quotes_on(number, 300)]
    for number in range(8):
        await ledger.write(held[number * 300 : number * 300 + 300])
    await ledger.keep()
    ledger.retention[COIN] = 1
    begins: set[int] = set()

    async def read(until: asyncio.Task[Any]) -> None:
        while not until.done():
            got = await ledger.shard.after(COIN, None, 10_000)
            begins.add(len(got))
            assert unchained(got) == held[-len(got) :]
            assert len(got) % 300 == 0
            await asyncio.sleep(0)

    for now in (SOON, LATER):
        keeping = asyncio.create_task(ledger.keep(now))
        await asyncio.gather(read(keeping), read(keeping))
        await keeping
    assert (max(begins), min(begins)) == (2400, 600)
    assert len(ledger.partitions()) < 8


async def test_only_one_of_two_keepers_maintains_a_shard(ledger: Ledger) -> None:
    await ledger.write(quotes_on(0, 10))
    await ledger.write(quotes_on(1, 10))
    async with PostgresDays("shard1", ledger.dsn) as days:
        assert await days.acquire()
        assert await ledger.keep() == []
        assert ledger.ask("SELECT to_regclass('quote_20240311')") == "quote_20240311"  # made ahead all the same
    assert len(await ledger.keep()) == 2


async def test_a_shard_of_another_schema_is_left_alone(ledger: Ledger) -> None:
    ledger.ask("UPDATE schema_migration SET version = 99 WHERE version = (SELECT max(version) FROM schema_migration)")
    with pytest.raises(ShardUnavailableError, match="schema version 99"):
        await ledger.keep()


class KilledError(BaseException):
    """Stands for the end of the process."""


class MortalDays(PostgresDays):
    """Days whose process is killed before its statement number `lives`."""

    lives = 0

    def live(self) -> None:
        if self.lives == 0:
            raise KilledError
        self.lives -= 1

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        self.live()
        return await super()._fetch(query, *arguments)

    async def _execute(self, sql: str) -> None:
        self.live()
        await super()._execute(sql)


async def test_a_keeper_killed_before_any_statement_leaves_work_but_never_a_wrong_ledger(
    placed: Placed,
) -> None:
    async with open_ledgers(placed) as ledgers:
        for ledger in ledgers:
            for number, coin in itertools.product(range(5), (COIN, OTHER)):
                await ledger.write(quotes_on(number, 20, coin=coin))
            ledger.retention = {COIN: 1, OTHER: 3}
        mortal, control = ledgers
        packed = "SELECT key_of(day)::oid FROM day WHERE coin_id = 2 AND day BETWEEN '2024-03-02' AND '2024-03-04'"
        first_keys = mortal.ask(packed).split()
        for now in (SOON, LATER):
            await control.keep(now)
            for lives in itertools.count():

                def open_days(shard: str, dsn: str, lives: int = lives) -> MortalDays:
                    days = MortalDays(shard, dsn)
                    days.lives = lives
                    return days

                try:
                    await mortal.keeper(now, open_days=open_days).maintain()
                    break
                except KilledError:
                    assert len(await mortal.shard.after(COIN, None, 1000)) in (100, 80, 60, 40)
        assert await mortal.keep(LATER) == []
        for sql in (
            "SELECT coin_id, day, count, sum, digest, dropped_at IS NULL FROM day ORDER BY 1, 2",
            "SELECT coin_id, floor_epoch, floor_seq, last_epoch, last_seq FROM fence ORDER BY 1",
            "SELECT coin_id, epoch, seq, price FROM quote ORDER BY 1, 2, 3",
        ):
            assert mortal.ask(sql) == control.ask(sql)
        assert mortal.partitions() == control.partitions()
        kept = range(1, 4)
        assert [mortal.keys(number) for number in kept] == [control.keys(number) for number in kept]
        assert not set(mortal.ask(packed).split()) & set(first_keys)  # each was really rebuilt
        assert mortal.keys(1) == "quote_20240302_pkey|{fillfactor=100}|t"
