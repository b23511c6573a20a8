"""A book is never from the future and never younger than it is, whatever the clock of its venue or ours does."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.feed_service.books import DELAY_KEPT_S, USUAL_MAX_S, USUAL_WINDOW_S, Books, VenueClock
from cotacoes.model.quote import EPOCH_START
from cotacoes.patterns.consensus import VenueBook

WALL_S = 1_800_000_000.0  # our Unix seconds when the monotonic clock was 0
BEGAN_S = 5_000.0
ROUNDING_S = 2e-6  # of exchange times, which are whole microseconds, and of floats of this size
gaps_s = st.floats(0.0005, 20)
latencies_s = st.floats(0, 8)


class Venue:
    """A venue whose clock is `ahead_s` ahead of ours, and whose frames take `latency_s` to come."""

    def __init__(self, ahead_s: float = 0.0, *, ours_ahead_s: float = 0.0) -> None:
        self.now_s = BEGAN_S
        self.ahead_s = ahead_s
        self.ours_ahead_s = ours_ahead_s  # our wall clock is wrong by this
        self.frozen_at_s: float | None = None
        self.clock = VenueClock(wall_s=lambda: WALL_S + self.now_s + self.ours_ahead_s)

    def frame(self, latency_s: float, *, after_s: float = 1.0) -> float:
        """The age, when it comes, of a frame that is sent `after_s` after the last one came."""
        sent_s = self.now_s + after_s
        self.now_s = sent_s + latency_s
        exchange_s = self.frozen_at_s if self.frozen_at_s is not None else sent_s + self.ahead_s
        as_of_s = self.clock.as_of_s(self.now_s, _exchange_time(exchange_s))
        return self.now_s - as_of_s

    def untimed(self, *, after_s: float = 1.0) -> float:
        self.now_s += after_s
        return self.now_s - self.clock.as_of_s(self.now_s, None)


def _exchange_time(at_s: float) -> datetime:
    return EPOCH_START + timedelta(seconds=WALL_S + at_s)


@pytest.mark.parametrize("ahead_s", [-1.3, -0.5, 0.0, 0.5, 1.3, 1_000.0])
def test_what_is_usual_at_a_venue_is_no_age_up_to_one_second(ahead_s: float) -> None:
    venue = Venue(ahead_s)
    ages = [venue.frame(0.05) for _ in range(10)]
    assert ages == pytest.approx([max(0.0, -ahead_s + 0.05 - USUAL_MAX_S)] * 10, abs=ROUNDING_S)
    assert venue.clock.skew_s == pytest.approx(0.05 - ahead_s, abs=ROUNDING_S)


@pytest.mark.parametrize("ahead_s", [-0.5, 0.0, 1.3])
def test_what_is_late_beyond_the_usual_counts_as_age(ahead_s: float) -> None:
    venue = Venue(ahead_s)
    venue.frame(0.05)
    assert venue.frame(3.05) == pytest.approx(3.0, abs=ROUNDING_S)
    assert venue.frame(0.05) == pytest.approx(0.0, abs=ROUNDING_S)


def test_first_frames_that_are_six_seconds_old_are_not_taken_for_the_usual() -> None:
    venue = Venue()
    assert venue.frame(6.2) == pytest.approx(5.2, abs=ROUNDING_S)
    assert venue.frame(0.2) == pytest.approx(0.0, abs=ROUNDING_S)


def test_a_frozen_clock_makes_every_book_older() -> None:
    venue = Venue()
    venue.frame(0.05)
    venue.frozen_at_s = venue.now_s - 0.05
    ages = [venue.frame(0.05, after_s=0.95) for _ in range(20)]
    assert ages == pytest.approx([1.0 + second for second in range(20)], abs=ROUNDING_S)


def test_a_clock_that_jumps_ahead_and_back_makes_no_book_younger() -> None:
    venue = Venue()
    venue.frame(0.1)
    venue.ahead_s = 1.3
    assert venue.frame(0.1) == pytest.approx(0.0, abs=ROUNDING_S)
    venue.ahead_s = -1.3
    assert venue.frame(0.1) == pytest.approx(2.6, abs=ROUNDING_S)
    venue.ahead_s = 0.0
    assert venue.frame(0.1) == pytest.approx(1.3, abs=ROUNDING_S)


def test_what_is_usual_is_that_of_the_last_five_minutes() -> None:
    venue = Venue()
    venue.frame(0.1)
    while venue.now_s <= BEGAN_S + 250:
        assert venue.frame(0.6, after_s=9.4) == pytest.approx(0.5, abs=ROUNDING_S)
    while venue.now_s <= BEGAN_S + USUAL_WINDOW_S + 60:
        venue.frame(0.6, after_s=9.4)
    assert venue.frame(0.6) == pytest.approx(0.0, abs=ROUNDING_S)


@given(st.lists(st.tuples(gaps_s, latencies_s), min_size=1, max_size=60), st.floats(-1.3, 1.3))
def test_no_book_is_from_the_future_or_younger_than_it_is(
    frames: Sequence[tuple[float, float]], ahead_s: float
) -> None:
    """Beyond the shortest way of any frame so far, which no clock can tell from an offset, and which 1 s bounds."""
    venue = Venue(ahead_s)
    shortest_s = float("inf")
    for after_s, latency_s in frames:
        age_s = venue.frame(latency_s, after_s=after_s)
        shortest_s = min(shortest_s, latency_s)
        assert age_s >= 0
        assert age_s >= latency_s - min(shortest_s, USUAL_MAX_S + ahead_s) - ROUNDING_S


jumps_s = st.sampled_from([-1.3, 0.0, 1.3])


@given(st.lists(st.tuples(gaps_s, latencies_s, jumps_s), min_size=1, max_size=60))
def test_a_jumping_clock_hides_no_more_than_the_shortest_way_since_it_jumped_ahead(
    frames: Sequence[tuple[float, float, float]],
) -> None:
    venue = Venue()
    shortest_s: dict[float, float] = {}
    for after_s, latency_s, ahead_s in frames:
        venue.ahead_s = ahead_s
        shortest_s[ahead_s] = min(latency_s, shortest_s.get(ahead_s, latency_s))
        age_s = venue.frame(latency_s, after_s=after_s)
        assert age_s >= 0
        assert age_s >= latency_s - shortest_s[ahead_s] - ROUNDING_S


settings_of_our_clock = st.lists(
    st.tuples(gaps_s, st.floats(0, 0.9), st.sampled_from([-86_400.0, -3.0, 0.0, 0.5, 100.0, 86_400.0])), max_size=40
)


@given(settings_of_our_clock, st.floats(-0.05, 1.3))
def test_setting_our_clock_forward_or_back_changes_no_age(
    frames: Sequence[tuple[float, float, float]], ahead_s: float
) -> None:
    steady, altered = Venue(ahead_s), Venue(ahead_s)
    for venue in (steady, altered):
        venue.frame(0.05)
    for after_s, latency_s, ours_ahead_s in frames:
        altered.ours_ahead_s = ours_ahead_s
        assert altered.frame(latency_s, after_s=after_s) == steady.frame(latency_s, after_s=after_s)


@pytest.mark.parametrize("wrong_by_s", [-100.0, 100.0])
def test_a_wall_clock_that_was_wrong_at_the_start_is_believed_once_it_is_set(wrong_by_s: float) -> None:
    venue = Venue(ours_ahead_s=wrong_by_s)
    assert venue.frame(0.05) == pytest.approx(max(0.0, wrong_by_s + 0.05 - USUAL_MAX_S), abs=ROUNDING_S)
    assert venue.clock.skew_s == pytest.approx(wrong_by_s + 0.05, abs=ROUNDING_S)
    venue.ours_ahead_s = 0.0
    assert venue.frame(0.05) == pytest.approx(0.0, abs=ROUNDING_S)
    assert venue.frame(5.05) == pytest.approx(5.0, abs=ROUNDING_S)


def test_a_frame_without_a_time_is_as_late_as_the_one_before_it() -> None:
    venue = Venue()
    assert venue.untimed() == 0.0
    venue.frame(0.05)
    venue.frame(2.05)
    assert venue.untimed(after_s=DELAY_KEPT_S) == pytest.approx(2.0, abs=ROUNDING_S)
    assert venue.untimed(after_s=DELAY_KEPT_S + 0.001) == 0.0


def test_frames_without_a_time_stay_in_their_order() -> None:
    """A trade that came late does not make the next book older than the one before it."""
    venue = Venue()
    venue.frame(0.05)
    age_s = venue.untimed(after_s=0.1)
    first_s = venue.now_s - age_s
    venue.frame(2.05, after_s=-2.0)  # it was sent long before that book
    age_s = venue.untimed(after_s=0.1)
    assert venue.now_s - age_s >= first_s


@given(st.floats(0, 1e6), st.floats(0, 1), st.lists(st.floats(0, 0.001), max_size=10))
def test_books_of_one_exchange_time_are_equally_old(began_s: float, latency_s: float, after_s: list[float]) -> None:
    """So the later one of a busy millisecond is not taken for the older one."""
    clock = VenueClock(wall_s=lambda: WALL_S + began_s)
    received_s = began_s
    times = []
    for gap_s in [0.0, *after_s]:
        received_s += gap_s
        times.append(clock.as_of_s(received_s, _exchange_time(began_s - latency_s)))
    assert times == sorted(times)


def book(venue: str, bid: str, as_of_s: float) -> VenueBook:
    return VenueBook(venue, "USD", Decimal(bid), Decimal(bid) + 1, as_of_s)


def test_the_later_book_of_a_venue_and_coin_stays() -> None:
    books = Books()
    books.note("bitcoin", book("kraken", "5", 10.0), received_s=10.5)
    books.note("bitcoin", book("kraken", "6", 9.9), received_s=10.6)
    assert books.of("bitcoin")["kraken"].book.bid == 5
    assert books.of("bitcoin")["kraken"].delay_s == 0.5
    books.note("bitcoin", book("kraken", "7", 10.0), received_s=10.7)
    assert books.of("bitcoin")["kraken"].book.bid == 7
    assert books.of("ethereum") == {}


def test_a_coin_has_moved_once_for_all_books_since_it_was_priced() -> None:
    books = Books()
    books.note("bitcoin", book("kraken", "5", 10.0), received_s=10.0)
    books.note("bitcoin", book("okx", "5", 10.0), received_s=10.0)
    assert books.pop_moved() == {"bitcoin"}
    assert books.pop_moved() == set()
    books.note("bitcoin", book("okx", "5", 9.0), received_s=11.0)
    assert books.pop_moved() == set()


def test_other_venues_are_heard_by_when_their_book_came() -> None:
    books = Books()
    for venue, received_s in {"kraken": 10.0, "okx": 11.0, "bybit": 12.0}.items():
        books.note("bitcoin", book(venue, "5", 1.0), received_s=received_s)
    assert books.heard_since("bitcoin", 10.0, besides="bybit") == 1
    assert books.heard_since("bitcoin", 9.0, besides="bybit") == 2
    assert books.heard_since("bitcoin", 12.0, besides="kraken") == 0
    assert books.heard_since("ethereum", 0.0, besides="kraken") == 0
