"""Positions rise without holes within an era, eras only rise, and what a shard lacks is sent again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cotacoes.adapters.quote_log import LoggedCoin
from cotacoes.patterns.sharding import BATCH_QUOTES_MAX, Fence
from cotacoes.quote import SEQ_MAX, Observation, Position, Quote, first_gap
from cotacoes.quote_service.history import CoinHistory

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def seen(seconds: float = 0.0) -> Observation:
    return Observation("bitcoin", "USD", Decimal(100), NOON + timedelta(seconds=seconds), "sim")


def stored(epoch: int, seq: int, seconds: float = 0.0) -> Quote:
    at = NOON + timedelta(seconds=seconds)
    return Quote("bitcoin", "USD", Decimal(100), epoch, seq, at, at, "sim")


def record(history: CoinHistory, count: int = 1, start: int = 0) -> list[Quote]:
    quotes = []
    for index in range(count):
        quotes.append(history.draft(seen(start + index), NOON + timedelta(seconds=start + index)))
        history.note_recorded(quotes[-1])
    return quotes


def new_history(epoch: int = 1000) -> CoinHistory:
    history = CoinHistory("bitcoin", "shard1")
    history.begin_era(epoch)
    return history


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(-(10**6), 10**6), max_size=6))
def test_positions_have_no_hole_and_eras_rise_whatever_the_clock_does(counts: list[int], drifts: list[int]) -> None:
    history = CoinHistory("bitcoin", "shard1")
    quotes: list[Quote] = []
    for count, drift in zip(counts, [*drifts, *[0] * len(counts)], strict=False):
        history.begin_era(history.next_epoch(1_000_000 + drift))
        quotes += record(history, count)
    assert first_gap(quotes, None) is None
    assert [quote.position for quote in quotes] == sorted({quote.position for quote in quotes})


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20))
def test_at_never_falls_and_never_lies_ahead_of_both_clocks(moments: list[tuple[float, float]]) -> None:
    history = new_history()
    previous = None
    for observed, now in moments:
        quote = history.draft(seen(observed), NOON + timedelta(seconds=now))
        history.note_recorded(quote)
        assert previous is None or quote.at >= previous
        assert quote.at == (lowest := min(quote.observed_at, NOON + timedelta(seconds=now))) or (
            previous is not None and quote.at == previous > lowest
        )
        previous = quote.at


def test_an_era_begins_above_log_shard_and_clock() -> None:
    history = CoinHistory("bitcoin", "shard1")
    history.load(LoggedCoin(5000, stored(4000, 7), None, None), pending=1)
    assert history.next_epoch(10) == 5001
    history.meet(Fence(1, 9000, None, None))
    assert history.next_epoch(10) == 9001
    assert history.next_epoch(10_000) == 10_000


def test_the_first_quote_of_an_era_names_the_last_position_before_it() -> None:
    history = CoinHistory("bitcoin", "shard1")
    history.load(LoggedCoin(5000, stored(5000, 7), None, None), pending=1)
    history.begin_era(6000)
    first, second = record(history, 2)
    assert (first.prev, second.prev) == (Position(5000, 7), None)


def test_without_log_and_shard_no_era_can_begin() -> None:
    assert not CoinHistory("bitcoin", "shard1").has_local_state


def test_the_last_position_of_an_era_is_the_last_one_given() -> None:
    history = new_history()
    history._seq = SEQ_MAX - 1
    assert history.can_draft
    record(history)
    assert not history.can_draft


def test_what_the_shard_may_lack_is_sent_again() -> None:
    history = new_history()
    history.delivered = Position(900, 9)
    assert history.resume_from(Fence(1, 0, None, None)) is None
    assert history.resume_from(Fence(1, 0, stored(900, 3), None)) == Position(900, 3)
    assert history.resume_from(Fence(1, 0, stored(950, 1), None)) == Position(900, 9)


def test_batches_come_in_order_from_memory_as_long_as_memory_holds_all_that_is_pending() -> None:
    history = new_history()
    quotes = record(history, BATCH_QUOTES_MAX + 5)
    first = history.tail_batch()
    assert first == quotes[:BATCH_QUOTES_MAX]
    history.note_delivered(quotes[:BATCH_QUOTES_MAX])
    assert history.tail_batch() == quotes[BATCH_QUOTES_MAX:]
    history.pending += 1  # one more, of an earlier run, that only the log has
    assert history.tail_batch() is None


def test_a_quote_of_the_shard_that_is_newer_than_ours_becomes_the_current_one() -> None:
    history = CoinHistory("bitcoin", "shard1")
    history.load(LoggedCoin(5000, stored(5000, 7), Position(5000, 7), None), pending=0)
    history.meet(Fence(1, 6000, stored(6000, 2), Position(1, 1)))
    assert history.position == Position(6000, 2)
    assert history.delivered == Position(6000, 2)
    assert history.floor == Position(1, 1)
