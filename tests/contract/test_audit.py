"""The audit on PostgreSQL: a healthy ledger is right, each planted breach is named in its place, nothing is written."""

import asyncio
import json
import tempfile
import urllib.parse
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from msgspec.structs import replace
from tests.conftest import free_port
from tests.contract.conftest import Databases, psql
from tests.harness_agreements import agreement_of
from tests.harness_http_server import serving
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin import audit, discrepancies, migrate
from cotacoes.admin.audit_snapshot import CoinAudit
from cotacoes.cli.app import main
from cotacoes.cli.audit import show
from cotacoes.config import Settings
from cotacoes.errors import ShardUnavailableError, UnknownCoinError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.sharding.shard import Stored

MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
EVERY = timedelta(minutes=37)
COINS = "bitcoin:shard1,ethereum:shard1"


def history(coin: str, count: int, start: datetime) -> list[Quote]:
    """`count` quotes, one every 37 minutes, of two origins, in epochs of 50 whose numbers have holes."""
    quotes: list[Quote] = []
    for number in range(count):
        index, seq = divmod(number, 50)
        at = start + number * EVERY
        quotes.append(
            Quote(
                coin,
                "USD",
                Decimal(6_700_000 + number * 7919 % 1000).scaleb(-2),
                5 + 2 * index,
                seq + 1,
                at - timedelta(seconds=1),
                at,
                "replay:x" if number % 5 == 4 else "sim",
                quotes[-1].position if seq == 0 and quotes else None,
                agreement_of(number),
            )
        )
    return quotes


BITCOIN = history(
    "bitcoin", 155, MIDNIGHT
)  # four days: 24 is dropped, 25 sealed, 26 and 27 open; epochs 5, 7, 9 and 11
ETHEREUM = history("ethereum", 60, MIDNIGHT + timedelta(days=1))
SEAL = """
UPDATE day AS d SET (sum, digest, sealed_at) = (SELECT q.sum, q.digest, now() FROM digest_quotes(1, 0, 0, 99, 0) AS q
    WHERE q.day = d.day) WHERE coin_id = 1 AND day <= '2026-11-25';
"""
DROP = """
UPDATE day SET dropped_at = now() WHERE coin_id = 1 AND day = '2026-11-24';
DELETE FROM quote_20261124 WHERE coin_id = 1;
UPDATE fence SET (floor_epoch, floor_seq) = (SELECT first_epoch, first_seq FROM day
    WHERE coin_id = 1 AND day = '2026-11-25') WHERE coin_id = 1;
"""


async def store(name: str, dsn: str, coin: str, quotes: list[Quote]) -> None:
    async with PostgresShard(name, dsn, deadline_s=10.0) as shard:
        fence = await shard.become_writer(coin, 5, "a")
        for first, last in pairwise([*range(0, len(quotes), 23), len(quotes)]):
            await shard.append(coin, fence.placement, 5, quotes[first:last])


async def build(first: str, second: str) -> None:
    """Bitcoin on shard1; ethereum moved from shard1 to shard2, and its beginning still lies on shard1."""
    await migrate.main(config.load({}, shard1_dsn=first, shard2_dsn=second, coins=COINS))
    await store("shard1", first, "bitcoin", BITCOIN)
    psql(first, SEAL + DROP)
    await store("shard1", first, "ethereum", ETHEREUM[:40])
    psql(first, "UPDATE fence SET state = 'moved', moved_to = 'shard2' WHERE coin_id = 2")
    psql(first, "UPDATE directory SET shard = 'shard2', placement = 2 WHERE coin_id = 2")
    psql(second, "INSERT INTO fence (coin_id, coin, placement) VALUES (2, 'ethereum', 2)")
    await store("shard2", second, "ethereum", ETHEREUM)


@pytest.fixture(scope="module")
def healthy(templates: Databases) -> tuple[str, str]:
    """A healthy ledger, built once; each test takes a copy of its databases."""
    first, second = templates.make("healthy1"), templates.make("healthy2")
    asyncio.run(build(templates.dsn(first), templates.dsn(second)))
    return first, second


@pytest.fixture
def ledger(made: Databases, healthy: tuple[str, str]) -> Settings:
    first, second = (made.dsn(made.make("ledger", template)) for template in healthy)
    return config.load({}, shard1_dsn=first, shard2_dsn=second, coins=COINS, port_base=free_port())


async def run(settings: Settings, coin: str | None = None) -> tuple[audit.Audit, dict[str, CoinAudit]]:
    reported: list[CoinAudit] = []
    found = await audit.main(settings, coin=coin, on_coin=reported.append, say=lambda _: None, second_look_after_s=0)
    return found, {one.coin: one for one in reported}


def breaches(reported: dict[str, CoinAudit]) -> list[str]:
    return [f"{one.coin} {shard} {breach}" for one in reported.values() for shard, breach in one.breaches]


async def test_a_healthy_ledger_is_right_and_its_size_is_reported(ledger: Settings) -> None:
    found, reported = await run(ledger)
    assert breaches(reported) == []
    assert (found.verdict, found.coins, found.shards, found.unknown) == ("right", 2, 2, 2)
    held = [quote for quote in BITCOIN if quote.at >= MIDNIGHT + timedelta(days=1)]
    bitcoin = reported["bitcoin"]
    assert (bitcoin.shard, bitcoin.epochs, bitcoin.days, bitcoin.dropped_days) == ("shard1", 4, 4, 1)
    assert bitcoin.quotes == len(held)
    hours = {(quote.at.replace(minute=0), quote.origin) for quote in BITCOIN}
    assert bitcoin.candles == len(BITCOIN) + len(hours)
    assert (reported["ethereum"].shard, reported["ethereum"].quotes) == ("shard2", 60)
    assert reported["ethereum"].notes == [("shard1", "a copy that moved; days of it still held: 2")]


# what is done to shard1, and how the audit must name it: place, what, how it is, how it should be
PLANTED = {
    "a row in the middle is gone": (
        "DELETE FROM quote WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        "9-11  position after 9-9: 9-11, not 9-10",
        "2026-11-26  count of the day row: 39, not 38",
        "2026-11-26T19:13Z  candle of 1 min, replay:x USD: one of 1 quotes, not none",
    ),
    "the last row is gone": (
        "DELETE FROM quote WHERE coin_id = 1 AND epoch = 11 AND seq = 5",
        "fence  last position: 11-5, not 11-4",
        "fence  time of the last position: 2026-11-27T22:58:00.000000Z, not 2026-11-27T22:21:00.000000Z",
    ),
    "the last row is gone, and all traces of it but the fence": (
        (
            "DELETE FROM quote WHERE coin_id = 1 AND epoch = 11 AND seq = 5;"
            "UPDATE day SET last_seq = 4, count = count - 1 WHERE coin_id = 1 AND day = '2026-11-27';"
            "DELETE FROM candle WHERE coin_id = 1 AND minutes = 1 AND at = '2026-11-27 22:58Z'"
        ),
        "fence  last position: 11-5, not 11-4",
    ),
    "the first row of an epoch is gone": (
        "DELETE FROM quote WHERE coin_id = 1 AND epoch = 9 AND seq = 1",
        "9-2  first position of its epoch: 9-2, not 9-1",
    ),
    "the first row held is gone": (
        "DELETE FROM quote WHERE coin_id = 1 AND epoch = 5 AND seq = 40",
        "5-41  position after 5-39: 5-41, not 5-40",
        "fence  first position held: 5-40, not 5-41",
    ),
    "the rows of a day are gone": (
        "DELETE FROM quote_20261126 WHERE coin_id = 1",
        "2026-11-26  quotes held of the day: 0, not 39",
        "9-18  first position of its epoch: 9-18, not 9-1",
    ),
    "a day's partition is gone": (
        "DROP TABLE quote_20261126",
        "2026-11-26  quotes held of the day: 0, not 39",
        "9-18  first position of its epoch: 9-18, not 9-1",
    ),
    "a day is gone without a trace": (
        (
            "DELETE FROM quote_20261126 WHERE coin_id = 1; DELETE FROM day WHERE coin_id = 1 AND day = '2026-11-26';"
            "DELETE FROM candle WHERE coin_id = 1 AND utc_day(at) = '2026-11-26'"
        ),
        "9-18  first position of its epoch: 9-18, not 9-1",
    ),
    "an epoch is gone without a trace": (
        "DELETE FROM quote WHERE coin_id = 1 AND epoch = 9; DELETE FROM era WHERE coin_id = 1 AND epoch = 9",
        "11-1  position before its epoch: 9-50, not 7-50",
    ),
    "a price is another": (
        "UPDATE quote SET price = 67079.20 WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        (
            "2026-11-26T19:13Z  candle of 1 min, replay:x USD: open 67001.71 high 67001.71 low 67001.71 close 67001.71"
            " sum 67001.71, not open 67079.20 high 67079.20 low 67079.20 close 67079.20 sum 67079.20"
        ),
    ),
    "a price has another digit at its end": (
        "UPDATE quote SET price = price * 1.0 WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        "2026-11-26T19:13Z  candle of 1 min, replay:x USD: open 67001.71 ",
    ),
    "an observed_at of a sealed day is another": (
        "UPDATE quote SET observed_at = observed_at - interval '1 s' WHERE coin_id = 1 AND epoch = 7 AND seq = 20",
        "2026-11-25  digest of the sealed day: ",
    ),
    "an agreement of a sealed day is another": (
        "UPDATE quote SET agreement = '4/6 12.34' WHERE coin_id = 1 AND epoch = 7 AND seq = 20",
        "2026-11-25  digest of the sealed day: ",
    ),
    "an agreement of a sealed day is missing": (
        "UPDATE quote SET agreement = NULL WHERE coin_id = 1 AND epoch = 7 AND seq = 21",
        "2026-11-25  digest of the sealed day: ",
    ),
    "a time falls": (
        "UPDATE quote SET at = '2026-11-26 18:00Z' WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        "9-10  time, which falls after 9-9: 2026-11-26T18:00:00.000000Z, not 2026-11-26T18:36:00.000000Z or later",
    ),
    "a time is of another minute": (
        "UPDATE quote SET at = '2026-11-26 19:12Z' WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        "2026-11-26T19:12Z  candle of 1 min, replay:x USD: none, not one of 1 quotes",
        "2026-11-26T19:13Z  candle of 1 min, replay:x USD: one of 1 quotes, not none",
    ),
    "a time is of another day": (
        "UPDATE quote SET at = '2026-11-27 00:01Z' WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        "9-11  position after 9-9: 9-11, not 9-10",
        "9-10  position that should rise above 9-17 of the day before: 9-10, not 9-18",
        "2026-11-27  first position of the day row: 9-18, not 9-10",
    ),
    "a position is on two days": (
        (
            "INSERT INTO quote SELECT epoch, at + interval '1 day', observed_at, coin_id, seq, origin_id, price"
            " FROM quote WHERE coin_id = 1 AND epoch = 9 AND seq = 10"
        ),
        "9-10  position that should rise above 9-17 of the day before: 9-10, not 9-18",
        "2026-11-27  count of the day row: 38, not 39",
    ),
    "a position of an older epoch is on a later day": (
        (
            "INSERT INTO quote SELECT epoch, at + interval '2 days', observed_at, coin_id, seq, origin_id, price"
            " FROM quote WHERE coin_id = 1 AND epoch = 5 AND seq = 45"
        ),
        "5-45  position that should rise above 9-17 of the day before: 5-45, not 9-18",
    ),
    "a row is on a day of which nothing else is stored": (
        (
            "SELECT prepare_day('2026-11-29'); INSERT INTO quote"
            " VALUES (11, '2026-11-29 01:00Z', '2026-11-29 01:00Z', 1, 6, 1, 67000.00)"
        ),
        "2026-11-29  day row: none, not one of 1 from 11-6 to 11-6",
        "fence  last position: 11-5, not 11-6",
    ),
    "an origin has no name": (
        "UPDATE quote SET origin_id = 99 WHERE coin_id = 1 AND epoch = 9 AND seq = 10",
        "2026-11-26  quotes without a known origin: 1, not 0",
    ),
    "an epoch follows another position": (
        "UPDATE era SET prev_seq = 49 WHERE coin_id = 1 AND epoch = 9",
        "9-1  position before its epoch: 7-49, not 7-50",
    ),
    "an epoch follows nothing": (
        "DELETE FROM era WHERE coin_id = 1 AND epoch = 9",
        "9-1  position before its epoch: none, not 7-50",
    ),
    "the first epoch follows something": (
        "INSERT INTO era VALUES (1, 5, 3, 7)",
        "5-1  position before its epoch: 3-7, not none",
    ),
    "an epoch has no quotes": (
        "INSERT INTO era VALUES (1, 13, 11, 5)",
        "13-1  quotes of an epoch that follows a position: 0, not at least 1",
    ),
    "a minute is gone": (
        "DELETE FROM candle WHERE coin_id = 1 AND minutes = 1 AND at = '2026-11-26 19:13Z'",
        "2026-11-26T19:13Z  candle of 1 min, replay:x USD: none, not one of 1 quotes",
    ),
    "an hour is gone": (
        "DELETE FROM candle WHERE coin_id = 1 AND minutes = 60 AND at = '2026-11-26 19:00Z' AND origin_id = 1",
        "2026-11-26T19:00Z  candle of 60 min, sim USD: none, not one of 1 quotes",
    ),
    "a candle is too many": (
        (
            'INSERT INTO candle SELECT (jsonb_populate_record(c, \'{"at": "2026-11-30T00:00Z"}\')).* FROM candle AS c'
            " WHERE coin_id = 1 AND minutes = 1 AND at = '2026-11-26 19:13Z'"
        ),
        "2026-11-30T00:00Z  candle of 1 min, replay:x USD: one of 1 quotes, not none",
    ),
    "a day row counts another": (
        "UPDATE day SET count = 40 WHERE coin_id = 1 AND day = '2026-11-26'",
        "2026-11-26  count of the day row: 40, not 39",
    ),
    "a day row begins elsewhere": (
        "UPDATE day SET first_seq = 30 WHERE coin_id = 1 AND day = '2026-11-26'",
        "2026-11-26  first position of the day row: 7-30, not 7-29",
    ),
    "a day row ends elsewhere": (
        "UPDATE day SET last_seq = 16 WHERE coin_id = 1 AND day = '2026-11-26'",
        "2026-11-26  last position of the day row: 9-16, not 9-17",
    ),
    "a day has no row": (
        "DELETE FROM day WHERE coin_id = 1 AND day = '2026-11-26'",
        "2026-11-26  day row: none, not one of 39 from 7-29 to 9-17",
    ),
    "a day has a row and no quotes": (
        "INSERT INTO day VALUES (1, '2026-11-29', 11, 6, 11, 9, 4)",
        "2026-11-29  quotes held of the day: 0, not 4",
    ),
    "a digest is another": (
        "UPDATE day SET digest = digest + 1 WHERE coin_id = 1 AND day = '2026-11-25'",
        "2026-11-25  digest of the sealed day: ",
    ),
    "a sealed sum is another": (
        "UPDATE day SET sum = 1.50 WHERE coin_id = 1 AND day = '2026-11-25'",
        "2026-11-25  sum of the sealed day: 1.50, not ",
    ),
    "the fence ends earlier": (
        "UPDATE fence SET last_seq = 4 WHERE coin_id = 1",
        "fence  last position: 11-4, not 11-5",
    ),
    "the fence ends at another time": (
        "UPDATE fence SET last_at = '2026-11-27 22:59Z' WHERE coin_id = 1",
        "fence  time of the last position: 2026-11-27T22:59:00.000000Z, not 2026-11-27T22:58:00.000000Z",
    ),
    "the floor lies elsewhere": (
        "UPDATE fence SET floor_epoch = 5, floor_seq = 1 WHERE coin_id = 1",
        "fence  first position held: 5-1, not 5-40",
    ),
    "the directory names another shard": (
        "UPDATE directory SET shard = 'shard2' WHERE coin_id = 1",
        "directory  shard: shard2, not shard1",
    ),
    "the directory has another placement": (
        "UPDATE directory SET placement = 2 WHERE coin_id = 1",
        "directory  placement: 2, not 1",
    ),
    "the directory has another id": (
        "UPDATE directory SET coin_id = 9 WHERE coin_id = 1",
        "directory  id of the coin: 9, not 1",
    ),
    "the directory does not know the coin": (
        "DELETE FROM directory WHERE coin_id = 1",
        "directory  entry: none, not one for shard1, placement 1",
    ),
    "there is no home": (
        "UPDATE fence SET state = 'moved', moved_to = 'shard2' WHERE coin_id = 1",
        "fence  home of the coin: none, not one open fence",
    ),
    "a row of a dropped day is there": (
        "INSERT INTO quote VALUES (5, '2026-11-24 01:00Z', '2026-11-24 01:00Z', 1, 2, 1, 67000.00)",
        "2026-11-24  quotes held of a dropped day: 1, not 0",
    ),
    "the manifest of a dropped day counts another": (
        "UPDATE day SET count = 40 WHERE coin_id = 1 AND day = '2026-11-24'",
        "2026-11-24  count of the day row: 40, not 39",
        "2026-11-24  quotes of the candles of 1 min: 39, not 40",
        "2026-11-24  quotes of the candles of 60 min: 39, not 40",
    ),
    "the manifest of a dropped day is gone": (
        "DELETE FROM day WHERE coin_id = 1 AND day = '2026-11-24'",
        "5-40  first position of its epoch: 5-40, not 5-1",
    ),
    "a minute of a dropped day has another sum": (
        "UPDATE candle SET sum = 1.50 WHERE coin_id = 1 AND minutes = 1 AND at = '2026-11-24 00:37Z'",
        "2026-11-24  sum of the candles of 1 min: ",
        "2026-11-24T00:00Z  candle of 60 min, sim USD: sum 134009.19, not sum 67001.50",
    ),
    "an hour of a dropped day is gone": (
        "DELETE FROM candle WHERE coin_id = 1 AND minutes = 60 AND at = '2026-11-24 00:00Z'",
        "2026-11-24T00:00Z  candle of 60 min, sim USD: none, not one of 2 quotes",
        "2026-11-24  quotes of the candles of 60 min: 37, not 39",
    ),
} | {
    f"{field} of a candle is another": (
        (
            f"UPDATE candle SET {field} = {field} + 1 WHERE coin_id = 1 AND minutes = 60 AND at = '2026-11-26 19:00Z'"
            " AND origin_id = 1"
        ),
        f"2026-11-26T19:00Z  candle of 60 min, sim USD: {field.removesuffix('_seq').removesuffix('_epoch')} ",
    )
    for field in ("open", "high", "low", "close", "count", "sum", "first_seq", "last_seq", "first_epoch", "last_epoch")
}


@pytest.mark.parametrize("name", PLANTED)
async def test_each_breach_is_named_with_its_coin_and_place(ledger: Settings, name: str) -> None:
    sql, *expected = PLANTED[name]
    psql(ledger.dsn("shard1"), sql)
    found, reported = await run(ledger)
    named = breaches(reported)
    for words in expected:
        assert any(line.startswith(f"bitcoin shard1 {words}") for line in named), named
    assert found.verdict == "wrong"
    assert found.wrong_in == ["bitcoin"]
    assert found.wrong == len(named)


BESIDE = {
    "two homes": (
        "shard2",
        "INSERT INTO fence (coin_id, coin, placement) VALUES (1, 'bitcoin', 1)",
        "bitcoin shard2 fence  state beside the home: open, not moved to shard1",
    ),
    "a home under a lower placement than its copy": (
        "shard1",
        "UPDATE fence SET placement = 2 WHERE coin = 'ethereum'",
        "ethereum shard1 fence  placement of a copy that moved: 2, not less than 2, the home's",
    ),
    "a copy that moved elsewhere": (
        "shard1",
        "UPDATE fence SET moved_to = 'shard3' WHERE coin = 'ethereum'",
        "ethereum shard1 fence  shard it has moved to: shard3, not shard2",
    ),
    "a copy with another price": (
        "shard1",
        "UPDATE quote SET price = 1 WHERE coin_id = 2 AND epoch = 5 AND seq = 3",
        "ethereum shard1 2026-11-25  sum of the copy of shard2: ",
    ),
    "a copy that reaches further": (
        "shard1",
        "UPDATE fence SET last_epoch = 9 WHERE coin = 'ethereum'",
        "ethereum shard2 fence  last position, which the copy on shard1 has: 7-10, not 9-40 or later",
    ),
    "what belongs to no coin": (
        "shard2",
        "INSERT INTO era VALUES (7, 5, 3, 1)",
        "- shard2 coin id 7  fence of what is stored: none, not one",
    ),
    "rows of no coin": (
        "shard2",
        "INSERT INTO quote VALUES (5, '2026-11-25 01:00Z', '2026-11-25 01:00Z', 7, 2, 1, 67000.00)",
        "- shard2 coin id 7  fence of what is stored: none, not one",
    ),
    "a partition under another name": (
        "shard2",
        "ALTER TABLE quote_20261125 RENAME TO quote_20261199",
        "- shard2 quote_20261199  bounds and name of the partition: others, not those of one day",
    ),
    "a database under another name": (
        "shard2",
        "INSERT INTO identity (name) VALUES ('shard1') ON CONFLICT (only_row) DO UPDATE SET name = excluded.name",
        "- shard2 identity  name of the database: shard1, not shard2",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
async def test_each_breach_between_shards_and_beside_coins_is_named(ledger: Settings, name: str) -> None:
    shard, sql, expected = BESIDE[name]
    psql(ledger.dsn(shard), sql)
    found, reported = await run(ledger)
    assert any(line.startswith(expected) for line in breaches(reported)), breaches(reported)
    assert found.verdict == "wrong"


async def test_a_copy_that_is_being_purged_or_moved_is_noted_and_right(ledger: Settings) -> None:
    psql(ledger.dsn("shard1"), "DELETE FROM quote WHERE coin_id = 2 AND epoch = 5 AND seq <= 7")
    psql(
        ledger.dsn("shard2"), "INSERT INTO fence (coin_id, coin, placement, state) VALUES (1, 'bitcoin', 2, 'incoming')"
    )
    found, reported = await run(ledger)
    assert breaches(reported) == []
    assert found.verdict == "right"
    assert reported["bitcoin"].notes[0][1].startswith("a copy in the making")


async def test_a_dropped_day_that_is_not_erased_yet_is_noted_and_right(ledger: Settings) -> None:
    psql(
        ledger.dsn("shard2"),
        "UPDATE day SET (sum, digest, sealed_at, dropped_at) = (SELECT sum, digest, now(), now()"
        " FROM digest_quotes(2, 0, 0, 99, 0) AS q WHERE q.day = day.day) WHERE day = '2026-11-25';"
        "UPDATE fence SET (floor_epoch, floor_seq) = (SELECT first_epoch, first_seq FROM day WHERE day = '2026-11-26')",
    )
    found, reported = await run(ledger, "ethereum")
    assert breaches(reported) == []
    assert found.verdict == "right"
    assert ("shard2", "dropped days whose quotes are not erased yet: 1") in reported["ethereum"].notes


async def test_conflicts_are_noted_and_nothing_is_wrong(ledger: Settings) -> None:
    async with PostgresShard("shard1", ledger.dsn("shard1"), deadline_s=5.0) as shard:
        await shard.append("bitcoin", 1, 5, [replace(BITCOIN[-1], price=Decimal("1.5"))])
    found, reported = await run(ledger)
    assert (found.verdict, reported["bitcoin"].conflicts) == ("right", 1)


async def test_holes_and_orphans_are_wrong_until_they_are_accepted(ledger: Settings) -> None:
    """The shard lost its last epoch, and the history continues with a writer that has only its own quotes."""
    dsn = ledger.dsn("shard1")
    last = BITCOIN[-1]
    behind = [replace(last, seq=last.seq + 4 + n, at=last.at + n * EVERY, observed_at=last.at) for n in range(3)]
    lost = [
        replace(last, epoch=10, seq=n, price=Decimal(f"{n}.50"), prev=BITCOIN[-6].position if n == 1 else None)
        for n in (1, 2)
    ]
    async with PostgresShard("shard1", dsn, deadline_s=10.0) as shard:
        stored = await shard.append("bitcoin", 1, 5, [*lost, *behind], end=last.position)
        assert stored == Stored(3, refused=2)
    found, reported = await run(ledger)
    assert (found.verdict, found.wrong) == ("wrong", 2)
    named = breaches(reported)
    assert named[0].startswith("bitcoin shard1 11-9  hole after 11-5, noted 20")
    assert named[0].endswith("unaccepted, not accepted (`cotacoes ledger accept bitcoin`)")
    assert named[1] == (
        "bitcoin shard1 orphans  quotes that were recorded and are not in the history: 2 unaccepted, "
        "not accepted (`cotacoes ledger accept bitcoin`)"
    )
    assert (reported["bitcoin"].holes, reported["bitcoin"].orphans) == (1, 2)
    listed = await discrepancies.found(ledger, None)
    assert [(one.kind, one.first, one.last, one.count, one.accepted_at) for one in listed] == [
        ("orphan", Position(10, 1), Position(10, 2), 2, None),
        ("hole", Position(11, 5), Position(11, 9), None, None),
    ]
    orphans = [one async for one in discrepancies.orphans(ledger, "bitcoin")]
    assert [(one.quote.position, str(one.quote.price), one.quote.origin) for one in orphans] == [
        (Position(10, 1), "1.50", last.origin),
        (Position(10, 2), "2.50", last.origin),
    ]
    assert await discrepancies.accept(ledger, "bitcoin") == (1, 2)
    assert await discrepancies.accept(ledger, "bitcoin") == (0, 0)
    found, reported = await run(ledger)
    assert (found.verdict, breaches(reported)) == ("right", [])
    assert [note for _, note in reported["bitcoin"].notes] == [
        "accepted holes: 1",
        "accepted orphans: 2",
    ]
    assert all(one.accepted_at for one in await discrepancies.found(ledger, "bitcoin"))
    assert await discrepancies.found(ledger, "ethereum") == []
    psql(dsn, "UPDATE fence SET state = 'closed' WHERE coin_id = 1")
    with pytest.raises(ShardUnavailableError):
        await discrepancies.accept(ledger, "bitcoin")
    with pytest.raises(UnknownCoinError):
        await discrepancies.accept(ledger, "dogecoin")


async def test_undelivered_quotes_are_pending_and_delivered_quotes_must_be_stored(ledger: Settings) -> None:
    twin = QuoteServiceTwin({})
    positions = '{"coins": {"bitcoin": {"position": "11-9", "through": "%s", "pending": 4, "shard": "shard1"}}}'
    async with serving(twin) as port:
        settings = ledger.model_copy(update={"quote_url": f"http://127.0.0.1:{port}"})
        twin.faults["/v1/positions"] = (positions % "11-5").encode()
        found, _ = await run(settings)
        assert (found.verdict, found.pending, found.unknown) == ("right", 4, 1)
        twin.faults["/v1/positions"] = (positions % "11-6").encode()
        found, reported = await run(settings)
    assert breaches(reported) == [
        "bitcoin shard1 fence  last position, which quote_service knows to be stored: 11-5, not 11-6 or later"
    ]


async def test_a_shard_that_is_away_is_named_after_the_coins_of_the_other_shards(ledger: Settings) -> None:
    settings = ledger.model_copy(update={"shard2_dsn": f"postgresql://x:secret@127.0.0.1:{free_port()}/x"})
    found, reported = await run(settings)
    assert (list(reported), breaches(reported)) == (["bitcoin", "ethereum"], [])
    reason = "shard2 is not reachable (connection refused)"
    assert (reported["ethereum"].away, found.away) == (reason, {"shard2": reason})
    assert found.verdict == "incomplete"
    settings = ledger.model_copy(update={"shard1_dsn": f"postgresql://x:secret@127.0.0.1:{free_port()}/x"})
    found, reported = await run(settings)
    assert (list(reported), breaches(reported), found.verdict) == (["ethereum"], [], "incomplete")


async def test_a_shard_of_another_schema_is_away(ledger: Settings) -> None:
    psql(ledger.dsn("shard2"), "UPDATE schema_migration SET version = version + 90 WHERE version = 2")
    found, _ = await run(ledger)
    assert found.verdict == "incomplete"
    assert "has schema version 92" in found.away["shard2"]


async def test_one_coin_can_be_audited_alone(ledger: Settings) -> None:
    psql(ledger.dsn("shard1"), "DELETE FROM candle WHERE coin_id = 1")
    found, reported = await run(ledger, "ethereum")
    assert (list(reported), found.verdict) == (["ethereum"], "right")
    with pytest.raises(UnknownCoinError):
        await run(ledger, "dogecoin")


async def test_breaches_beyond_the_limit_are_counted(ledger: Settings) -> None:
    psql(ledger.dsn("shard1"), "UPDATE candle SET sum = 1 WHERE coin_id = 1 AND at >= '2026-11-25'")
    found, reported = await run(ledger)
    stored = int(psql(ledger.dsn("shard1"), "SELECT count(*) FROM candle WHERE coin_id = 1 AND at >= '2026-11-25'"))
    assert stored > 200
    assert (len(reported["bitcoin"].breaches), found.wrong) == (100, stored)


CONTENT = """
SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM (
    SELECT q::text FROM quote AS q UNION ALL SELECT c::text FROM candle AS c UNION ALL SELECT d::text FROM day AS d
    UNION ALL SELECT e::text FROM era AS e UNION ALL SELECT f::text FROM fence AS f
    UNION ALL SELECT d::text FROM directory AS d UNION ALL SELECT c::text FROM conflict AS c
    UNION ALL SELECT r.relname || r.relfilenode FROM pg_class AS r
) AS t
"""


@pytest.fixture
def reader(admin_dsn: str) -> Iterator[str]:
    """A role that may read everything and write nothing; its password is its name."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    psql(admin_dsn, f"CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE pg_read_all_data")
    yield name
    psql(admin_dsn, f"DROP ROLE {name}")


def as_role(dsn: str, name: str) -> str:
    parts = urllib.parse.urlsplit(dsn)
    return parts._replace(netloc=f"{name}:{name}@{parts.netloc.rpartition('@')[2]}").geturl()


async def test_the_audit_changes_nothing_and_needs_no_right_to_write(ledger: Settings, reader: str) -> None:
    """Breaches stay as they were, and a role that may write nothing can audit everything."""
    psql(ledger.dsn("shard1"), "DELETE FROM quote WHERE coin_id = 1 AND epoch = 9; UPDATE fence SET last_seq = 1")
    before = [psql(ledger.dsn(shard), CONTENT) for shard in config.SHARDS]
    found, _ = await run(
        ledger.model_copy(update={f"{shard}_dsn": as_role(ledger.dsn(shard), reader) for shard in config.SHARDS})
    )
    assert (found.verdict, found.away) == ("wrong", {})
    assert [psql(ledger.dsn(shard), CONTENT) for shard in config.SHARDS] == before


LOCKS = """
SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation JOIN pg_database AS d ON d.oid = l.database
WHERE d.datname = current_database() AND c.relname LIKE 'quote%'
"""


async def test_the_audit_holds_no_lock_on_quotes_between_two_days(ledger: Settings) -> None:
    """Otherwise years of days would fill the server's lock table, and dropping a day would make writers wait."""
    held: list[str] = []

    def look(text: str) -> None:
        if text.startswith("bitcoin shard1"):
            held.append(psql(ledger.dsn("shard1"), LOCKS))

    await audit.main(ledger, coin="bitcoin", on_coin=lambda _: None, say=look)
    assert held == ["0"] * 4


async def test_quotes_that_arrive_during_the_audit_are_no_breach(ledger: Settings) -> None:
    quotes = history("ethereum", 1500, ETHEREUM[0].at)
    done = asyncio.Event()

    async def write() -> None:
        async with PostgresShard("shard2", ledger.dsn("shard2"), deadline_s=10.0) as shard:
            for first in range(60, 1500, 3):
                await shard.append("ethereum", 2, 5, quotes[first : first + 3])
        done.set()

    writing = asyncio.create_task(write())
    looks = 0
    while not done.is_set():
        found, reported = await run(ledger)
        assert (found.verdict, breaches(reported)) == ("right", [])
        looks += 1
    await writing
    assert looks > 2


async def test_a_move_that_ends_between_two_looks_is_no_breach(ledger: Settings) -> None:
    """The directory is read before the fences, so the coin seems to have two homes or none until the second look."""
    first, second = ledger.dsn("shard1"), ledger.dsn("shard2")
    psql(second, "UPDATE fence SET state = 'closed' WHERE coin_id = 2")
    psql(first, "UPDATE fence SET state = 'open', moved_to = NULL, placement = 3 WHERE coin_id = 2")
    await store("shard1", first, "ethereum", ETHEREUM)
    reported: list[CoinAudit] = []

    def finish(text: str) -> None:
        if text.startswith("ethereum shard1"):
            psql(second, "UPDATE fence SET state = 'moved', moved_to = 'shard1' WHERE coin_id = 2")
            psql(first, "UPDATE directory SET shard = 'shard1', placement = 3 WHERE coin_id = 2")

    found = await audit.main(ledger, on_coin=reported.append, say=finish, second_look_after_s=0)
    assert (found.verdict, breaches({one.coin: one for one in reported})) == ("right", [])
    assert [one.coin for one in reported] == ["bitcoin", "ethereum"]


@pytest.fixture
def environment(ledger: Settings) -> dict[str, str]:
    names = ("shard1_dsn", "shard2_dsn", "coins", "port_base")
    return {f"COTACOES_{name.upper()}": str(getattr(ledger, name)) for name in names}


async def test_the_ledger_commands_list_export_and_accept_discrepancies(
    environment: dict[str, str], ledger: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = BITCOIN[-1]
    lost = replace(last, epoch=10, seq=1, price=Decimal("1.50"), prev=None)
    async with PostgresShard("shard1", ledger.dsn("shard1"), deadline_s=10.0) as shard:
        await shard.append("bitcoin", 1, 5, [lost, replace(last, seq=9)], end=last.position)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tempfile.mkdtemp())

    async def command(*words: str) -> list[str]:
        assert await asyncio.to_thread(main, ["ledger", *words]) == 0
        return capsys.readouterr().out.splitlines()

    assert [line.split()[1:3] for line in await command("list")] == [
        ["coin", "kind"],
        ["bitcoin", "orphan"],
        ["bitcoin", "hole"],
    ]
    orphan, hole = [json.loads(line) for line in await command("list", "--coin", "BITCOIN", "--json")]
    assert (hole["type"], hole["after"], hole["next"], hole["accepted_at"]) == ("hole", "11-5", "11-9", None)
    assert (orphan["first"], orphan["last"], orphan["quotes"], orphan["reason"]) == ("10-1", "10-1", 1, "superseded")
    head, row = await command("export", "bitcoin")
    assert (head.split(",")[:2], row.split(",")[:2], row.split(",")[4]) == (
        ["coin", "position"],
        ["bitcoin", "10-1"],
        "1.50",
    )
    (row,) = await command("export", "bitcoin", "--json")
    assert json.loads(row)["price"] == "1.50"
    assert (json.loads(row)["state"], json.loads(row)["used"]) == ("agreed", 3)
    assert head.endswith(",reason,noted_at,accepted_at")
    head, row = await command("export", "bitcoin", "--agreement")
    assert head.endswith(",accepted_at,state,confidence,used,of")
    assert row.endswith(",agreed,0,3,3")
    assert await command("accept", "bitcoin") == ["bitcoin: accepted 1 holes, 1 orphans"]
    assert await command("accept", "--all") == []
    assert await asyncio.to_thread(main, ["ledger", "accept"]) != 0


async def test_the_command_prints_a_line_for_each_coin_and_exits_with_the_verdict(
    environment: dict[str, str], ledger: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(show, environment, None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("bitcoin  shard1  4 epochs, 4 days (1 dropped), 116 quotes, ")
    assert lines[0].endswith("  ok, pending unknown")
    assert lines[-1].startswith("nothing is wrong: 176 quotes and ")
    psql(ledger.dsn("shard1"), "UPDATE fence SET last_seq = 4 WHERE coin_id = 1")
    assert await asyncio.to_thread(show, environment, "BitCoin", as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "1 wrong" in lines[0]
    assert lines[1] == "bitcoin  shard1  wrong  fence  last position: 11-4, not 11-5"
    assert lines[-1].startswith("1 thing wrong, in bitcoin: of 116 quotes and ")
    away = environment | {"COTACOES_SHARD2_DSN": f"postgresql://x:secret@127.0.0.1:{free_port()}/x"}
    psql(ledger.dsn("shard1"), "UPDATE fence SET last_seq = 5 WHERE coin_id = 1")
    assert await asyncio.to_thread(show, away, None, as_json=True) == 4
