"""Candles of parts, merged in any order and any partition, are the candles of the whole; every digit is kept."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.model.candle import (
    INTERVALS,
    STORED_MINUTES,
    Candle,
    CandleJson,
    candles_of,
    interval_start,
    interval_starts,
    merged,
    stored_minutes,
)
from cotacoes.model.quote import Quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PRICES = st.decimals(min_value="0.000000000000000000000000000001", max_value=10**29, places=30)
ORIGINS = st.sampled_from([("sim", "USD"), ("sim", "BRL"), ("replay:x", "USD")])


@st.composite
def histories(draw: st.DrawFn) -> list[Quote]:
    """A coin's history over some hours, of several origins and eras."""
    rows = draw(st.lists(st.tuples(st.integers(0, 4000), PRICES, ORIGINS, st.booleans()), min_size=1, max_size=30))
    quotes: list[Quote] = []
    at, epoch, seq = NOON, 1, 0
    for seconds, price, (origin, currency), is_new_era in rows:
        at += timedelta(seconds=seconds)
        epoch, seq = (epoch + 1, 1) if is_new_era else (epoch, seq + 1)
        prev = quotes[-1].position if seq == 1 and quotes else None
        quotes.append(Quote("bitcoin", currency, price, epoch, seq, at, at, origin, prev))
    return quotes


@given(histories(), st.data())
def test_any_partition_merged_in_any_order_is_the_whole(quotes: list[Quote], data: st.DataObject) -> None:
    minutes = data.draw(st.sampled_from(list(INTERVALS.values())))
    parts: list[list[Quote]] = [[] for _ in range(data.draw(st.integers(1, 4)))]
    for quote in quotes:
        data.draw(st.sampled_from(parts)).append(quote)
    pieces = [candle for part in parts for candle in candles_of(part, data.draw(st.sampled_from([1, minutes])))]
    whole = candles_of(quotes, minutes)
    assert merged(data.draw(st.permutations(pieces)), minutes) == whole
    assert merged(merged(pieces[:3], minutes) + pieces[3:], minutes) == whole
    assert sum(candle.count for candle in whole) == len(quotes)


@given(histories())
def test_a_candle_equals_its_quotes_digit_for_digit(quotes: list[Quote]) -> None:
    for candle in candles_of(quotes, 60):
        own = [
            quote
            for quote in quotes
            if interval_start(quote.at, 60) == candle.at
            and (quote.origin, quote.currency) == (candle.origin, candle.currency)
        ]
        prices = [quote.price for quote in own]
        with localcontext(prec=300):
            total = sum(prices, Decimal(0))
        assert candle == Candle(
            candle.at,
            own[0].currency,
            own[0].origin,
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            len(own),
            total,
            own[0].position,
            own[-1].position,
        )
        assert CandleJson.of(candle, closed=True).open == format(prices[0], "f")


def test_each_origin_and_currency_has_its_own_candle() -> None:
    def quote(seq: int, origin: str, currency: str) -> Quote:
        return Quote("bitcoin", currency, Decimal(seq), 1, seq, NOON, NOON, origin)

    found = candles_of([quote(1, "sim", "USD"), quote(2, "replay:x", "USD"), quote(3, "sim", "BRL")], 1)
    assert [(one.origin, one.currency, one.count) for one in found] == [
        ("replay:x", "USD", 1),
        ("sim", "BRL", 1),
        ("sim", "USD", 1),
    ]


@pytest.mark.parametrize(("minutes", "stored"), [(1, 1), (5, 1), (15, 1), (30, 1), (60, 60), (240, 60), (1440, 60)])
def test_each_interval_is_made_of_the_longest_stored_one_that_divides_it(minutes: int, stored: int) -> None:
    assert minutes in INTERVALS.values()
    assert stored_minutes(minutes) == stored
    assert stored in STORED_MINUTES


def test_intervals_begin_at_full_minutes_hours_and_days_before_2000_too() -> None:
    at = datetime(1999, 3, 7, 17, 38, 59, 999999, UTC)
    starts = {name: interval_start(at, minutes).strftime("%d %H:%M:%S") for name, minutes in INTERVALS.items()}
    assert starts == {
        "1m": "07 17:38:00",
        "5m": "07 17:35:00",
        "15m": "07 17:30:00",
        "30m": "07 17:30:00",
        "1h": "07 17:00:00",
        "4h": "07 16:00:00",
        "1d": "07 00:00:00",
    }
    assert interval_start(NOON, 1440) == datetime(2026, 11, 24, tzinfo=UTC)


def test_interval_starts_include_the_start_and_exclude_the_end() -> None:
    def seconds(found: Sequence[datetime]) -> list[float]:
        return [(one - NOON).total_seconds() for one in found]

    assert seconds(list(interval_starts(NOON, NOON + timedelta(minutes=10), 5))) == [0, 300]
    assert list(interval_starts(NOON, NOON, 5)) == []


def test_an_empty_candle_has_no_price() -> None:
    assert CandleJson.empty(NOON, closed=True) == CandleJson(
        "2026-11-24T12:00:00.000000Z", None, None, None, None, None, 0, True
    )
