"""The window is what its definition says, to its edges, and as text without a rounding that was not asked for."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.model.payloads import SpanJson
from cotacoes.model.quote import Position, Quote, change_percent, format_time
from cotacoes.model.window import WINDOWS, Window, WindowJson, WindowView, window_of

NOW = datetime(2026, 11, 24, 12, 34, 56, 789, tzinfo=UTC)


def quote(seq: int, price: str, at: datetime, *, epoch: int = 5, origin: str = "sim") -> Quote:
    return Quote("bitcoin", "USD", Decimal(price), epoch, seq, at, at, origin)


def test_a_window_ends_with_the_last_full_minute_and_has_steps() -> None:
    assert msgspec.to_builtins(SpanJson.of(Window.until("24h", NOW))) == {
        "name": "24h",
        "from": "2026-11-23T12:34:00.000000Z",
        "to": "2026-11-24T12:34:00.000000Z",
        "closes_from": "2026-11-23T12:00:00.000000Z",
        "step_minutes": 60,
    }
    assert [len(Window.until(name, NOW).steps) for name in WINDOWS] == [60, 25, 43]
    on_the_hour = Window.until("24h", NOW.replace(minute=0))
    assert (len(on_the_hour.steps), on_the_hour.steps[0]) == (24, on_the_hour.start)


@given(
    st.sampled_from(sorted(WINDOWS)),
    st.integers(-(10**14), 10**14).map(lambda moved: NOW + timedelta(microseconds=moved)),
)
def test_minutes_and_the_whole_part_cover_a_window_once(name: str, now: datetime) -> None:
    window = Window.until(name, now)
    first, end = window.whole
    assert window.end <= now < window.end + timedelta(minutes=1)
    assert window.start <= first
    assert end <= window.end
    if window.step > 1:
        assert first <= end
        assert first.minute == end.minute == 0
        assert first - window.start < timedelta(hours=1) > window.end - end
    assert window.steps[0] <= window.start < window.steps[0] + timedelta(minutes=window.step)
    assert window.end - timedelta(minutes=window.step) <= window.steps[-1] < window.end


def test_a_window_includes_its_first_minute_and_excludes_its_end() -> None:
    window = Window.until("1h", NOW)
    moment = timedelta(microseconds=1)
    quotes = [
        quote(1, "9", window.start - moment),
        quote(2, "1.50", window.start),
        quote(3, "3", window.start + timedelta(minutes=1)),
        quote(4, "0.75", window.end - moment),
        quote(5, "9", window.end),
    ]
    view = window_of(quotes, window)
    shown = WindowJson.of(window, view, closed=True)
    assert (shown.open, shown.high, shown.low, shown.close) == ("1.50", "3", "0.75", "0.75")
    assert (shown.change_percent, shown.mean, shown.count, shown.minutes, shown.holes) == ("-50", "1.75", 3, 3, 0)
    assert shown.closes == ["1.50", "3", *[None] * 57, "0.75"]
    assert (shown.from_, shown.to, shown.complete) == (format_time(window.start), format_time(window.end), True)


@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_the_figures_of_a_short_history_name_their_range(name: str) -> None:
    """A "24h change" over 18 minutes is the change of those 18 minutes, and says so."""
    window = Window.until(name, NOW)
    first = window.end - timedelta(minutes=18)
    quotes = [quote(1, "100", first + timedelta(seconds=30)), quote(2, "101", window.end - timedelta(seconds=1))]
    shown = WindowJson.of(window, window_of(quotes, window), closed=True)
    assert (shown.change_percent, shown.complete) == ("1", False)
    assert (shown.from_, shown.to) == (format_time(first), format_time(window.end))
    begun = quote(1, "100", window.start)
    ended = WindowJson.of(window, window_of([begun], window), closed=True)
    assert (ended.to, ended.complete) == (format_time(window.start + timedelta(minutes=1)), False)


def test_a_history_of_another_origin_does_not_make_a_window_complete() -> None:
    window = Window.until("1h", NOW)
    quotes = [
        quote(1, "1", window.start, origin="replay:x"),
        quote(2, "2", window.end - timedelta(minutes=2)),
        quote(3, "2", window.end - timedelta(minutes=1)),
    ]
    shown = WindowJson.of(window, window_of(quotes, window), closed=True)
    assert (shown.from_, shown.complete) == (format_time(window.end - timedelta(minutes=2)), False)


def test_a_hole_belongs_to_the_window_in_which_it_ends() -> None:
    window = Window.until("1h", NOW)
    before, within = window.start - timedelta(hours=3), window.start
    assert window_of([quote(7, "1", within), quote(8, "1", within)], window).holes == 0
    assert window_of([quote(7, "1", before), quote(9, "1", within)], window).holes == 1
    assert window_of([quote(7, "1", before), quote(9, "1", before), quote(10, "1", within)], window).holes == 0
    assert window_of([quote(7, "1", within), quote(1, "1", within, epoch=6)], window).holes == 1
    shown = quote(1, "1", within, epoch=6)
    follows = Quote(shown.coin, "USD", shown.price, 6, 1, within, within, "sim", Position(5, 7))
    assert window_of([quote(7, "1", within), follows], window).holes == 0


def test_prices_of_another_origin_are_in_no_figure_of_a_window() -> None:
    window = Window.until("24h", NOW)
    quotes = [
        quote(1, "1", window.start),
        quote(2, "1000", window.start, origin="replay:x"),
        quote(3, "2", window.start),
    ]
    view = window_of(quotes, window)
    assert view.candle is not None
    assert (view.candle.high, view.candle.count, view.holes) == (Decimal(2), 2, 0)


def test_without_a_quote_there_is_no_price_and_every_close_is_null() -> None:
    window = Window.until("24h", NOW)
    shown = WindowJson.of(window, window_of([], window), closed=False)
    assert (shown.open, shown.mean, shown.change_percent, shown.count, shown.minutes) == (None, None, None, 0, 0)
    assert shown.closes == [None] * 25
    assert (shown.from_, shown.to, shown.complete) == (None, None, False)
    assert window_of([quote(1, "1", window.end)], window) == WindowView()


@pytest.mark.parametrize(
    ("first", "last", "percent"),
    [
        ("3", "4", "33.333333333333333333"),
        ("100", "100.00", "0"),
        ("8", "7", "-12.5"),
        ("3", "2.0", "-33.333333333333333333"),
    ],
)
def test_a_change_has_no_more_digits_than_it_needs(first: str, last: str, percent: str) -> None:
    assert format(change_percent(Decimal(first), Decimal(last)), "f") == percent


PRICES = st.builds(lambda number, places: Decimal(number).scaleb(-places), st.integers(1, 10**28), st.integers(0, 28))


@given(PRICES, PRICES)
def test_a_change_is_exact_before_it_is_rounded(first: Decimal, last: Decimal) -> None:
    exact = (Fraction(last) - Fraction(first)) / Fraction(first) * 100
    assert abs(Fraction(change_percent(first, last)) - exact) <= Fraction(1, 2 * 10**18)
