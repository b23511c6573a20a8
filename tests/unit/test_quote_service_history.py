"""Positions rise without holes within an epoch, epochs only rise, and quotes that a shard lacks are sent again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cotacoes.adapters.quote_log.rows import LoggedCoin
from cotacoes.model.quote import SEQ_MAX, Observation, Position, Quote, first_gap
from cotacoes.patterns.sharding.shard import BATCH_QUOTES_MAX, Fence
from cotacoes.quote_service.history import CoinHistory

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def seen(seconds: float = 0.0) -> Observation:
    return Observation("bitcoin", "USD", Decimal(100), NOON + timedelta(seconds=seconds), "sim")


def stored(epoch: int, seq: int, seconds: float = 0.0) -> Quote:
    at = NOON + timedelta(seconds=seconds)
    return Quote("bitcoin", "USD", Decimal(100), epoch, seq, at, at, "sim")


class Clocks:
    """The wall clock and the monotonic clock; both stand still until they are set."""

    def __init__(self) -> None:
        self.wall = NOON
        self.seconds = 0.0

    def history(self) -> CoinHistory:
        return CoinHistory("bitcoin", "shard1", now=lambda: self.wall, clock=lambda: self.seconds)


def record(history: CoinHistory, count: int = 1) -> list[Quote]:
    quotes = history.draft([seen(index) for index in range(count)])
    if quotes:
        history.note_recorded(quotes)
    return quotes


def new_history(epoch: int = 1000) -> CoinHistory:
    history = Clocks().history()
    history.begin_epoch(epoch)
    return history


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(-(10**6), 10**6), max_size=6))
def test_positions_have_no_hole_and_epochs_rise_whatever_the_clock_does(counts: list[int], drifts: list[int]) -> None:
    history = Clocks().history()
    quotes: list[Quote] = []
    for count, drift in zip(counts, [*drifts, *[0] * len(counts)], strict=False):
        history.begin_epoch(history.next_epoch(1_000_000 + drift))
        quotes += record(history, count)
    assert first_gap(quotes, None) is None
    assert [quote.position for quote in quotes] == sorted({quote.position for quote in quotes})


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20))
def test_at_never_falls_and_never_lies_ahead_of_both_clocks(moments: list[tuple[float, float]]) -> None:
    clocks = Clocks()
    history = clocks.history()
    history.begin_epoch(1000)
    previous = None
    for observed, now in moments:
        clocks.wall = NOON + timedelta(seconds=now)
        (quote,) = history.draft([seen(observed)])
        history.note_recorded([quote])
        assert previous is None or quote.at >= previous
        assert quote.at == (lowest := min(quote.observed_at, clocks.wall)) or (
            previous is not None and quote.at == previous > lowest
        )
        previous = quote.at


def test_an_age_never_falls_and_is_never_negative_even_if_the_clock_is_set_back() -> None:
    clocks = Clocks()
    history = clocks.history()
    history.begin_epoch(1000)
    history.note_recorded(history.draft([seen(-2)]))
    assert history.age_s == 2
    clocks.wall -= timedelta(minutes=10)
    clocks.seconds += 30
    assert history.age_s == 32
    clocks.wall = NOON + timedelta(minutes=5)
    assert history.age_s == 302
    history.note_recorded(history.draft([seen(400)]))
    assert history.age_s == 0


def test_an_epoch_begins_above_log_shard_and_clock() -> None:
    history = Clocks().history()
    history.load(LoggedCoin(5000, stored(4000, 7), None, None), pending=1)
    assert history.next_epoch(10) == 5001
    history.meet(Fence(1, 9000, None, None))
    assert history.next_epoch(10) == 9001
    assert history.next_epoch(10_000) == 10_000


def test_the_first_quote_of_an_epoch_names_the_last_position_before_it() -> None:
    history = Clocks().history()
    history.load(LoggedCoin(5000, stored(5000, 7), None, None), pending=1)
    history.begin_epoch(6000)
    first, second = record(history, 2)
    assert (first.prev, second.prev) == (Position(5000, 7), None)


def test_a_history_is_unknown_until_log_or_shard_has_answered() -> None:
    history = Clocks().history()
    assert not history.is_known
    history.meet(Fence(1, 0, None, None))
    assert history.is_known


def test_no_quote_is_drafted_beyond_the_last_position_of_an_epoch() -> None:
    history = new_history()
    history._seq = SEQ_MAX - 2
    assert history.can_draft
    assert [quote.seq for quote in record(history, 5)] == [SEQ_MAX - 1, SEQ_MAX]
    assert not history.can_draft


def test_opening_the_log_again_ends_the_epoch_and_delivery_goes_on_under_it() -> None:
    history = new_history(1000)
    history.note_writer(Fence(1, 1000, None, None), pending=0)
    history.note_delivered(record(history))
    history.load(LoggedCoin(1000, history.newest, None, None), pending=0)
    assert (history.can_draft, history.epoch, history.delivered) == (False, 1000, Position(1000, 1))
    assert history.fence == Fence(1, 1000, None, None)
    history.begin_epoch(2000)
    assert (history.can_draft, history.fence is None) == (True, True)


def test_the_first_quote_of_an_epoch_follows_a_newer_one_found_on_the_shard() -> None:
    history = Clocks().history()
    history.load(LoggedCoin(5000, stored(5000, 1), None, None), pending=0)
    history.begin_epoch(6000)
    history.meet(Fence(1, 5000, stored(5000, 4), None))
    assert record(history)[0].prev == Position(5000, 4)


def test_quotes_that_the_shard_may_lack_are_sent_again() -> None:
    history = Clocks().history()
    history.load(LoggedCoin(900, stored(900, 9), Position(900, 9), None), pending=0)
    assert history.resume_from(Fence(1, 0, None, None)) is None
    assert history.resume_from(Fence(1, 0, stored(900, 3), None)) == Position(900, 3)
    assert history.resume_from(Fence(1, 0, stored(950, 1), None)) == Position(900, 9)


def test_batches_come_from_memory_in_order_if_memory_holds_all_pending_quotes() -> None:
    history = new_history()
    quotes = record(history, BATCH_QUOTES_MAX + 5)
    first = history.tail_batch(BATCH_QUOTES_MAX)
    assert first == quotes[:BATCH_QUOTES_MAX]
    history.note_delivered(quotes[:BATCH_QUOTES_MAX])
    assert history.tail_batch(3) == quotes[BATCH_QUOTES_MAX:][:3]
    assert history.tail_batch(BATCH_QUOTES_MAX) == quotes[BATCH_QUOTES_MAX:]
    history.pending += 1  # one more, of an earlier process, that only the log has
    assert history.tail_batch(1) is None


def test_a_newer_quote_on_the_shard_becomes_the_current_one() -> None:
    history = Clocks().history()
    history.load(LoggedCoin(5000, stored(5000, 7), Position(5000, 7), None), pending=0)
    history.meet(Fence(1, 6000, stored(6000, 2), Position(1, 1)))
    assert history.position == Position(6000, 2)
    assert history.delivered == Position(6000, 2)
    assert history.floor == Position(1, 1)
