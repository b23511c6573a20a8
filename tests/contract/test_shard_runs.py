"""A batch goes to PostgreSQL as runs of positions, and is stored as it was sent, whatever its shape."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.contract.test_shard import COIN, spread_quotes
from tests.contract.test_shard_faults import DEADLINE_S, EPOCH, wrong_with

from cotacoes.adapters.postgres.rows import columns_of
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.model.candle import Candle, candles_of
from cotacoes.model.quote import SEQ_MAX, Quote
from cotacoes.patterns.sharding.shard import Stored

KINDS = [("sim", "USD"), ("replay:x", "USD"), ("replay:x", "EUR")]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shard(migrated: str) -> AsyncIterator[PostgresShard]:
    async with PostgresShard("shard1", migrated, deadline_s=DEADLINE_S) as shard:
        await shard.become_writer(COIN, EPOCH, "a")
        yield shard


def mixed() -> list[Quote]:
    """Quotes of two alternating origins, with a hole and a second epoch, over two days."""
    first = spread_quotes(EPOCH, 8, every_s=9_000)
    later = [
        replace(quote, epoch=EPOCH + 1, at=first[-1].at, prev=None) for quote in spread_quotes(EPOCH, 3, every_s=1)
    ]
    later[0] = replace(later[0], prev=first[-1].position)
    first[2], first[3] = replace(first[2], origin="replay:x"), replace(first[3], origin="replay:x", currency="EUR")
    return [*first[:5], *first[6:], *later]


def key(candle: Candle) -> tuple[datetime, str, str]:
    return candle.at, candle.origin, candle.currency


def test_values_that_all_quotes_share_are_sent_once() -> None:
    epochs, seqs, counts, origins, *_ = columns_of(spread_quotes(EPOCH, 8, every_s=1))
    assert (epochs, seqs, counts, origins) == ([EPOCH], [1], [8], [1])
    assert columns_of(mixed())[2] == [1] * len(mixed())


async def test_a_batch_of_many_runs_is_stored_as_sent_and_part_of_it_again_changes_nothing(
    migrated: str, shard: PostgresShard
) -> None:
    quotes = mixed()
    assert await shard.append(COIN, 1, EPOCH, quotes[:4]) == Stored(4)
    again = await shard.append(COIN, 1, EPOCH, quotes[2:], end=quotes[3].position)
    assert again == Stored(len(quotes) - 4, already=2)
    assert await shard.append(COIN, 1, EPOCH, quotes) == Stored(0, already=len(quotes))
    assert await shard.after(COIN, None, 100) == quotes
    assert set(await wrong_with(migrated, quotes)) <= {"candles"}  # it looks at those of the newest origin alone
    ends = quotes[0].at - timedelta(hours=1), quotes[-1].at + timedelta(hours=1)
    for minutes in (1, 60):
        views = [await shard.candles(COIN, minutes, *ends, 100, kind) for kind in KINDS]
        expected = candles_of(quotes, minutes)
        assert sorted((one for view in views for one in view.candles), key=key) == sorted(expected, key=key)


async def test_a_partly_stored_run_is_completed(migrated: str, shard: PostgresShard) -> None:
    quotes = spread_quotes(EPOCH, 40, every_s=20)
    assert await shard.append(COIN, 1, EPOCH, quotes[:25]) == Stored(25)
    assert await shard.append(COIN, 1, EPOCH, quotes[10:]) == Stored(15, already=15)
    assert await wrong_with(migrated, quotes) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda quote: replace(quote, price=quote.price + 1),
        lambda quote: replace(quote, price=Decimal(f"{quote.price}0")),
        lambda quote: replace(quote, observed_at=quote.observed_at + timedelta(microseconds=1)),
        lambda quote: replace(quote, at=quote.at + timedelta(microseconds=1)),
        lambda quote: replace(quote, origin="replay:x"),
    ],
    ids=["price", "digits of the price", "observed_at", "at", "origin"],
)
async def test_a_run_sent_again_with_one_quote_changed_is_noted(
    shard: PostgresShard, change: Callable[[Quote], Quote]
) -> None:
    quotes = spread_quotes(EPOCH, 10, every_s=20)
    await shard.append(COIN, 1, EPOCH, quotes)
    again = [*quotes[1:4], change(quotes[4]), *quotes[5:]]  # without the first of the epoch, like most batches
    assert await shard.append(COIN, 1, EPOCH, again) == Stored(0, already=8, conflicts=1)
    assert await shard.after(COIN, None, 100) == quotes


async def test_the_last_position_of_an_epoch_can_be_stored_and_sent_again(shard: PostgresShard) -> None:
    quotes = [replace(quote, seq=SEQ_MAX - 3 + quote.seq, prev=None) for quote in spread_quotes(EPOCH, 3, every_s=1)]
    assert [await shard.append(COIN, 1, EPOCH, quotes) for _ in range(2)] == [Stored(3), Stored(0, already=3)]
    assert await shard.last(COIN, 3) == quotes


async def test_times_and_prices_of_any_size_keep_every_digit(shard: PostgresShard) -> None:
    prices = ["0.00000010", "0.000000000000000000000000000001", "9" * 30 + "." + "9" * 30, "1E+3", "67000.10"]
    first = datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    last = datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    quotes = [
        replace(quote, price=Decimal(price), observed_at=first, at=last)
        for quote, price in zip(spread_quotes(EPOCH, len(prices), every_s=1), prices, strict=True)
    ]
    await shard.append(COIN, 1, EPOCH, quotes)
    held = await shard.after(COIN, None, 10)
    assert [format(quote.price, "f") for quote in held] == [format(Decimal(price), "f") for price in prices]
    assert [(quote.observed_at, quote.at) for quote in held] == [(first, last)] * len(prices)
