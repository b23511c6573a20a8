"""A shard computes of a window what all its quotes in one place would give."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.conftest import SEED
from tests.contract.conftest import Placed, psql

from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.model.quote import Position, Quote
from cotacoes.model.window import WINDOWS, Window, WindowView, window_of
from cotacoes.patterns.sharding.shard import Shard
from cotacoes.testing.memory_shard import MemoryShard

COIN = "bitcoin"
FIRST = datetime(2026, 11, 16, 21, 47, 13, tzinfo=UTC)
HISTORIES = 6
QUOTES = 400


@pytest.fixture
def dsn(placed: Placed) -> str:
    return placed(f"{COIN}:shard1,other:shard1")[0]


@pytest.fixture(params=["memory", "postgres"])
async def shard(request: pytest.FixtureRequest) -> AsyncIterator[Shard]:
    if request.param == "memory":
        yield MemoryShard("shard1", [COIN, "other"])
        return
    async with PostgresShard("shard1", request.getfixturevalue("dsn"), deadline_s=5.0) as postgres:
        yield postgres


def history(dice: random.Random, *, coin: str = COIN, holes: bool = True) -> list[Quote]:
    """A history with epochs, two alternating origins, hours without a quote, prices of many digits, and holes."""
    quotes: list[Quote] = []
    at, epoch, seq, origin, prev = FIRST, 1_000, 0, "sim", None
    while len(quotes) < QUOTES:
        kind = dice.random()
        if kind < 0.03:
            prev, epoch, seq = Position(epoch, seq) if seq else prev, epoch + dice.randint(1, 9), 0
        elif kind < 0.05:
            origin = dice.choice(["sim", "replay:x"])
        elif kind < 0.08:
            at += timedelta(minutes=dice.choice([1, 59, 60, 61, 600]))
        elif kind < 0.11 and holes:
            seq += dice.randint(1, 3)
        at += timedelta(seconds=dice.choice([0, 0, 1, 7, 59.999999]))
        seq += 1
        price = Decimal(dice.randint(1, 10**9)).scaleb(-dice.randint(0, 28))
        quotes.append(Quote(coin, "USD", price, epoch, seq, at, at, origin, prev if seq == 1 else None))
    return quotes


async def hold(shard: Shard, quotes: Sequence[Quote]) -> None:
    coin = quotes[0].coin
    fence = await shard.become_writer(coin, quotes[-1].epoch, "writer")
    end: Position | None = None
    for quote in quotes:  # a batch is of one epoch; what is between two of them does not matter here
        await shard.append(coin, fence.placement, fence.writer_epoch, [quote], end=end)
        end = quote.position


def windows(dice: random.Random, quotes: Sequence[Quote]) -> list[Window]:
    ends = [quotes[-1].at + timedelta(minutes=1), quotes[-1].at.replace(minute=0), FIRST + timedelta(minutes=1)]
    ends += [dice.choice(quotes).at + timedelta(minutes=dice.randint(0, 90)) for _ in range(6)]
    return [Window.until(name, end) for name in WINDOWS for end in ends]


async def test_a_window_equals_that_of_all_quotes_in_one_place(shard: Shard, request: pytest.FixtureRequest) -> None:
    for number in range(HISTORIES):
        dice = random.Random(f"{SEED} {number}")
        quotes = history(dice, holes=number % 2 == 1)
        await hold(shard, quotes)
        counted = 0
        for window in windows(dice, quotes):
            (view,) = (await shard.newest([COIN], 2, window)).values()
            expected = window_of(quotes, window)
            assert view.window == expected, (number, window)
            assert view.quotes == quotes[-2:]
            assert (view.through, view.through_at) == (quotes[-1].position, quotes[-1].at)
            counted += expected.holes
        assert (counted > 0) == (number % 2 == 1)
        if isinstance(shard, MemoryShard):
            shard.copies[COIN] = type(shard.copies[COIN])()
        else:
            tables = "TRUNCATE quote, day, candle, era, hole; "
            nothing = "last_epoch = NULL, last_seq = NULL, last_at = NULL, floor_epoch = NULL, floor_seq = NULL"
            psql(request.getfixturevalue("dsn"), f"{tables} UPDATE fence SET writer_epoch = 0, writer = '', {nothing}")


async def test_one_call_returns_the_windows_of_all_coins_and_every_row_is_a_quote(shard: Shard) -> None:
    dice = random.Random(SEED)
    quotes = history(dice)
    await hold(shard, quotes)
    window = Window.until("24h", quotes[-1].at)
    views = await shard.newest([COIN, "other"], 100, window)
    assert views[COIN].window == window_of(quotes, window)
    assert views[COIN].quotes == quotes[-100:]
    assert (views["other"].window, views["other"].quotes) == (WindowView(), [])
    without_logs = await shard.newest([COIN], 0, window)
    assert (without_logs[COIN].quotes, without_logs[COIN].window) == ([], views[COIN].window)
    assert (await shard.newest([COIN], 1))[COIN].window is None


@pytest.mark.parametrize(
    ("positions", "prevs", "holes"),
    [
        ("1-1 1-2 1-3 2-1 2-2", {2: Position(1, 3)}, 0),
        ("1-1 1-2 1-3 2-4 2-5", {}, 1),  # as many as the numbers promise, in two epochs that are not linked
        ("1-1 1-2 1-3 3-1 3-2", {3: Position(2, 3)}, 1),  # as many, and an epoch between them is lost
        ("1-1 1-3 2-1 2-2 2-3", {2: Position(1, 4)}, 2),
        ("2-5 2-6", {}, 0),  # what was before the first that is held is no hole
    ],
)
async def test_a_hole_that_counting_alone_misses_is_found(
    shard: Shard, positions: str, prevs: dict[int, Position], holes: int
) -> None:
    quotes = [
        Quote(
            COIN,
            "USD",
            Decimal("1.10"),
            one.epoch,
            one.seq,
            FIRST,
            FIRST,
            "sim",
            prevs.get(one.epoch) if one.seq == 1 else None,
        )
        for one in map(Position.parse, positions.split())
    ]
    await hold(shard, quotes)
    window = Window.until("1h", FIRST + timedelta(minutes=1))
    (view,) = (await shard.newest([COIN], 0, window)).values()
    assert view.window == window_of(quotes, window)
    assert view.window.holes == holes
