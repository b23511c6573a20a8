"""The watch ends a connection when a rule's limit is over, and not a moment before; a quiet market ends none."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.feed_service.watch import WATCH_LIMITS, Ending, EndReason, Rhythm, Watch, WatchLimits

COIN = "bitcoin"
BEGAN_S = 1_000.0
MOMENT_S = 0.001
TOP = (Decimal("67000.1"), Decimal("67000.2"))
OTHER_TOP = (Decimal("67000.2"), Decimal("67000.3"))
PRICE = Decimal(67_000)
MOVED = Decimal("67336")  # by more than 50 bps: 335 are the limit


class Market:
    """A watch over one connection that subscribes to `coins`, and how many other venues have sent lately."""

    def __init__(
        self, *coins: str, others: int = 5, heartbeat_s: float | None = None, limits: WatchLimits = WATCH_LIMITS
    ) -> None:
        self.others = others
        self.rhythms = {coin: Rhythm() for coin in coins or (COIN,)}
        self.watch = Watch(heartbeat_s, lambda _coin, _since_s: self.others, BEGAN_S, limits)
        self.watch.expect(self.rhythms.items())

    def books(
        self, *at_s: float, coin: str = COIN, top: tuple[Decimal, Decimal] = TOP, price: Decimal | None = PRICE
    ) -> bool:
        """Books come at these times; whether the coin is live after them."""
        is_live = False
        for now_s in at_s:
            self.watch.note_frame(now_s)
            is_live = self.watch.note_book(coin, now_s, top, price)
        return is_live

    def reason(self, now_s: float) -> EndReason | None:
        ending = self.watch.verdict(now_s)
        return None if ending is None else ending.reason


def test_a_coin_of_which_no_book_comes_ends_the_connection_after_ten_seconds() -> None:
    market = Market()
    assert market.watch.verdict(BEGAN_S + 10) is None
    assert market.watch.verdict(BEGAN_S + 10 + MOMENT_S) == Ending(EndReason.NEVER, "no book of bitcoin came", COIN)


def test_another_coin_is_no_proof_that_a_coin_comes() -> None:
    market = Market("ethereum", COIN)
    market.books(*(BEGAN_S + second for second in range(11)), coin="ethereum")
    ending = market.watch.verdict(BEGAN_S + 10.5)
    assert ending is not None
    assert (ending.reason, ending.coin) == (EndReason.NEVER, COIN)


@pytest.mark.parametrize(("heartbeat_s", "limit_s"), [(0.5, 5.0), (1.0, 5.0), (5.0, 15.0)])
def test_a_connection_is_silent_after_three_heartbeats_and_at_least_five_seconds(
    heartbeat_s: float, limit_s: float
) -> None:
    market = Market(heartbeat_s=heartbeat_s, others=0)
    market.books(BEGAN_S + 1, BEGAN_S + 2)
    market.watch.note_frame(BEGAN_S + 3)
    assert market.reason(BEGAN_S + 3 + limit_s) is None
    assert market.reason(BEGAN_S + 3 + limit_s + MOMENT_S) is EndReason.SILENT


def test_a_venue_that_promises_no_heartbeat_may_be_silent() -> None:
    market = Market(others=0)
    market.books(BEGAN_S + 1, BEGAN_S + 2)
    assert market.reason(BEGAN_S + 3_600) is None


def test_a_coin_stalls_after_ten_seconds_while_two_other_venues_send_it() -> None:
    market = Market(others=2)
    market.books(BEGAN_S, BEGAN_S + 0.1)
    assert market.reason(BEGAN_S + 10.1) is None
    assert market.reason(BEGAN_S + 10.1 + MOMENT_S) is EndReason.STALLED


@pytest.mark.parametrize("others", [0, 1])
def test_a_coin_that_fewer_than_two_others_send_is_quiet_and_not_stalled(others: int) -> None:
    market = Market(others=others)
    market.books(BEGAN_S, BEGAN_S + 0.1)
    assert market.reason(BEGAN_S + 3_600) is None


def test_heartbeats_do_not_hide_a_stall() -> None:
    market = Market(heartbeat_s=1.0)
    market.books(BEGAN_S, BEGAN_S + 0.1)
    for second in range(1, 11):
        market.watch.note_frame(BEGAN_S + second)
    assert market.reason(BEGAN_S + 10.2) is EndReason.STALLED


def test_a_snapshot_proves_nothing() -> None:
    """With a stalled stream, venues answer each new subscription with a snapshot: one book."""
    market = Market()
    assert not market.books(BEGAN_S + 0.1)
    assert market.reason(BEGAN_S + 10.1) is None
    assert market.reason(BEGAN_S + 10.1 + MOMENT_S) is EndReason.STALLED


def test_a_coin_is_live_from_its_second_book() -> None:
    market = Market(COIN, "ethereum")
    assert not market.books(BEGAN_S)
    assert not market.books(BEGAN_S + 1, coin="ethereum")
    assert market.books(BEGAN_S + 1)
    assert market.books(BEGAN_S + 2, coin="ethereum")


def test_a_book_of_a_coin_that_is_not_expected_is_never_live() -> None:
    market = Market()
    assert not market.books(BEGAN_S, BEGAN_S + 1, coin="ethereum")


def test_a_coin_that_was_given_up_ends_nothing() -> None:
    market = Market()
    market.watch.give_up(COIN)
    market.watch.give_up(COIN)
    assert market.reason(BEGAN_S + 3_600) is None


@pytest.mark.parametrize(
    ("gap_s", "least_s", "most_s"), [(0.02, 10.0, 10.0), (0.5, 10.0, 10.0), (1.0, 20.0, 30.0), (10.0, 60.0, 60.0)]
)
def test_the_stall_limit_follows_the_usual_gap_between_its_bounds(gap_s: float, least_s: float, most_s: float) -> None:
    rhythm = Rhythm()
    for number in range(200):
        rhythm.note_book(BEGAN_S + number * gap_s)
    if gap_s == 0.5:
        least_s, most_s = 20 * gap_s, 20 * gap_s * 1.5
    assert least_s <= rhythm.stalled_after_s() <= most_s


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=300))
def test_the_stall_limit_is_twenty_times_the_gap_that_one_in_a_hundred_exceeds(gaps_s: list[float]) -> None:
    rhythm, now_s = Rhythm(), BEGAN_S
    rhythm.note_book(now_s)
    for gap_s in gaps_s:
        now_s += gap_s
        rhythm.note_book(now_s)
    usual_s = sorted(gaps_s)[len(gaps_s) - 1 - len(gaps_s) // 100]
    exact_s = min(max(20 * usual_s, 10.0), 60.0)
    assert exact_s * (1 - 1e-9) <= rhythm.stalled_after_s() <= min(max(20 * usual_s * 1.5, 10.0), 60.0) * (1 + 1e-9)


def test_the_stall_limit_outlives_a_connection_and_the_pause_between_two_is_no_gap() -> None:
    rhythm = Rhythm()
    for number in range(50):
        rhythm.note_book(BEGAN_S + number)
    before_s = rhythm.stalled_after_s()
    rhythm.note_break()
    rhythm.note_book(BEGAN_S + 1_000)
    assert rhythm.stalled_after_s() == before_s > 10.0


def test_the_stall_limit_forgets_what_is_older_than_an_hour() -> None:
    rhythm = Rhythm()
    for number in range(50):
        rhythm.note_book(BEGAN_S + 3 * number)
    assert rhythm.stalled_after_s() == 60.0
    for number in range(80):
        rhythm.note_book(BEGAN_S + 150 + 60 * number)
        rhythm.note_book(BEGAN_S + 150 + 60 * number + 0.1)
        rhythm.note_break()
    assert rhythm.stalled_after_s() == 10.0


def frozen_since(market: Market, moved_at_s: float, until_s: float, price: Decimal = MOVED) -> None:
    """Books come each second with one price, while the consensus is `price` from a time on."""
    second = BEGAN_S
    while second <= until_s:
        market.books(second, price=PRICE if second < moved_at_s else price)
        second += 1


def test_a_price_is_frozen_a_minute_after_the_consensus_has_left_it() -> None:
    market = Market()
    frozen_since(market, BEGAN_S + 100, BEGAN_S + 160)
    assert market.reason(BEGAN_S + 160) is None
    assert market.reason(BEGAN_S + 160 + MOMENT_S) is EndReason.FROZEN


def test_a_price_that_rests_with_the_consensus_is_not_frozen() -> None:
    market = Market()
    frozen_since(market, BEGAN_S + 100, BEGAN_S + 400, price=PRICE * Decimal("1.005"))  # the limit itself
    assert market.reason(BEGAN_S + 400) is None


def test_without_a_consensus_no_price_is_frozen() -> None:
    market = Market()
    for second in range(400):
        market.books(BEGAN_S + second, price=None)
    assert market.reason(BEGAN_S + 400) is None


@pytest.mark.parametrize("ends_by", ["the venue moves", "the consensus comes back"])
def test_a_price_that_agrees_again_is_not_frozen(ends_by: str) -> None:
    market = Market()
    frozen_since(market, BEGAN_S + 100, BEGAN_S + 150)
    if ends_by == "the venue moves":
        market.books(BEGAN_S + 151, top=OTHER_TOP, price=MOVED)
        market.books(*(BEGAN_S + 152 + second for second in range(100)), top=OTHER_TOP, price=MOVED)
    else:
        market.books(*(BEGAN_S + 151 + second for second in range(100)))
    assert market.reason(BEGAN_S + 250) is None


def test_after_a_frozen_connection_the_next_one_lasts_at_least_a_minute() -> None:
    """The consensus of its own first book counts, not that of the connection before."""
    market = Market()
    for second in range(60):
        market.books(BEGAN_S + second, price=MOVED)
    assert market.reason(BEGAN_S + 60) is None


def test_eleven_gaps_within_a_minute_end_the_connection_and_ten_do_not() -> None:
    market = Market(others=0)
    market.books(BEGAN_S, BEGAN_S + 1)
    for number in range(10):
        market.watch.note_gap(BEGAN_S + number)
    assert market.reason(BEGAN_S + 10) is None
    market.watch.note_gap(BEGAN_S + 60)
    assert market.reason(BEGAN_S + 60) is EndReason.GAPPED


def test_eleven_gaps_in_more_than_a_minute_do_not() -> None:
    market = Market(others=0)
    market.books(BEGAN_S, BEGAN_S + 1)
    for number in range(11):
        market.watch.note_gap(BEGAN_S + 6.001 * number)
    assert market.reason(BEGAN_S + 6.001 * 10) is None


def test_the_limits_are_those_that_are_passed_in() -> None:
    limits = WatchLimits(silent_min_s=0.25, never_s=0.25, stalled_min_s=0.25, stalled_max_s=0.5, gaps_max=2)
    never = Market(limits=limits)
    assert never.reason(BEGAN_S + 0.25) is None
    assert never.reason(BEGAN_S + 0.375) is EndReason.NEVER
    stalled = Market(limits=limits)
    stalled.books(BEGAN_S, BEGAN_S + 1)
    assert stalled.reason(BEGAN_S + 1.5) is None
    assert stalled.reason(BEGAN_S + 1.625) is EndReason.STALLED
    for _ in range(3):
        stalled.watch.note_gap(BEGAN_S + 1)
    assert stalled.reason(BEGAN_S + 1.125) is EndReason.GAPPED
    silent = Market(heartbeat_s=0.0625, limits=limits)
    silent.books(BEGAN_S)
    assert silent.reason(BEGAN_S + 0.25) is None
    assert silent.reason(BEGAN_S + 0.375) is EndReason.SILENT
