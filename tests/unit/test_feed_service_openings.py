"""A venue is never connected to more than ten times a minute, and never before the wait that it asked for is over."""

from collections import deque
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.errors import StreamRefusedError
from cotacoes.feed_service.closings import BANNED_S, closing_of
from cotacoes.feed_service.openings import FIRST_S, MOST_S, OPENINGS_MAX, WAIT_MAX_S, WINDOW_S, Openings

happenings = st.lists(
    st.tuples(
        st.sampled_from(["failed", "steady", "renewed"]),
        st.floats(0, 30),  # how long the connection lasted
        st.one_of(st.none(), st.floats(0, 100)),  # what the venue asked for
    ),
    min_size=20,
    max_size=80,
)


@pytest.mark.slow
@given(happenings, st.integers(0, 2**32))
def test_no_minute_has_more_than_ten_openings_whatever_happens(
    happened: list[tuple[str, float, float | None]], seed: int
) -> None:
    openings, now_s = Openings(Random(seed)), 0.0
    opened: deque[float] = deque()
    for what, lasted_s, asked_s in happened:
        now_s += openings.wait_s(now_s)
        assert openings.wait_s(now_s) <= 1e-9
        openings.note_opening(now_s)
        opened.append(now_s)
        while opened[0] <= now_s - WINDOW_S + 1e-6:
            opened.popleft()
        assert len(opened) <= OPENINGS_MAX
        now_s += lasted_s
        if what == "steady":
            openings.note_steady()
        if what != "renewed":
            openings.note_failure(now_s, asked_s)


def test_ten_connections_that_are_dropped_at_once_make_the_next_one_wait_for_the_minute_to_end() -> None:
    openings = Openings(Random(5))
    for number in range(OPENINGS_MAX):
        assert openings.wait_s(float(number)) == 0
        openings.note_opening(float(number))
    assert openings.wait_s(30.0) == 30.0
    assert openings.wait_s(60.0) == 0.0


@given(st.integers(0, 2**32))
def test_the_wait_doubles_up_to_half_a_minute_and_begins_again_after_a_steady_connection(seed: int) -> None:
    openings, now_s = Openings(Random(seed)), 0.0

    def failed() -> float:
        nonlocal now_s
        openings.note_failure(now_s, None)
        wait_s = openings.wait_s(now_s)
        now_s += 1_000
        return wait_s

    waits_s = [failed() for _ in range(12)]
    assert all(wait_s <= min(FIRST_S * 2**number, MOST_S) for number, wait_s in enumerate(waits_s))
    openings.note_steady()
    assert failed() <= FIRST_S


def test_venues_that_fail_together_do_not_come_back_together() -> None:
    waits_s = set()
    for seed in range(20):
        openings = Openings(Random(seed))
        openings.note_failure(0.0, None)
        waits_s.add(openings.wait_s(0.0))
    assert len(waits_s) == 20
    assert max(waits_s) > 2 * min(waits_s)


def wait_after(status: int, retry_after_s: float | None) -> float:
    openings = Openings(Random(5))
    openings.note_failure(0.0, closing_of(StreamRefusedError(status, retry_after_s=retry_after_s)).retry_after_s)
    return openings.wait_s(0.0)


def test_a_retry_after_is_obeyed_up_to_an_hour() -> None:
    assert wait_after(429, 47.0) == 47.0
    assert wait_after(503, 5.0) == 5.0
    assert wait_after(429, 1e9) == WAIT_MAX_S
    assert wait_after(429, 0.0) <= FIRST_S


def test_a_ban_lasts_as_long_as_the_venue_says_and_otherwise_two_minutes() -> None:
    assert wait_after(418, None) == BANNED_S == 120.0
    assert wait_after(418, 300.0) == 300.0


def test_a_later_failure_does_not_shorten_a_wait() -> None:
    openings = Openings(Random(5))
    openings.note_failure(0.0, 60.0)
    openings.note_failure(1.0, None)
    assert openings.wait_s(1.0) == 59.0
