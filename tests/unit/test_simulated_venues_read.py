"""What a simulated venue writes, feed_service's adapter of that venue reads: the same digits, times and faults.

`test_venues_simulated.py` holds the protocol between the two.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from tests.harness_simulated_venues import BITCOIN, NAMES, NOON_NS, WITH_SNAPSHOT, Client, Rig

from cotacoes.external_service.venues.connection import Connection
from cotacoes.external_service.venues.session import Top
from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import (
    Book,
    ClockSeen,
    Event,
    SequenceGap,
    Session,
    SubscriptionRefused,
)
from cotacoes.model.quote import EPOCH_START
from cotacoes.model.venue_symbols import BASES, rate_symbols_at, symbol_at

each_venue = pytest.mark.parametrize("venue", NAMES)
UNIT_NS = {"okx": 1_000_000, "bybit": 1_000_000}  # of the others' times: a microsecond, as far as we keep
WITHOUT_TIME = {"binance", "bitfinex"}


class Read:
    """An adapter's session, connected to a simulated venue."""

    def __init__(self, venue: str, *symbols: str) -> None:
        self.rig = Rig(venue)
        self.adapter: Session = VENUES[venue].open(symbols or [BITCOIN[venue]])
        self.client: Client
        self.connection: Connection
        self.client, self.connection = self.rig.connect()

    def subscribe(self) -> list[Event]:
        """What the adapter reads once it has subscribed."""
        for frame in self.adapter.opening():
            self.connection.message(frame.encode(), self.rig.now)
        return self.events()

    def events(self) -> list[Event]:
        """What the adapter reads of all that came since the last time."""
        return [event for frame in self.client.take() for event in self.adapter.read(frame)]

    def run(self, seconds: float) -> list[Event]:
        self.rig.run(seconds)
        return self.events()


def books(events: Sequence[Event]) -> list[Book]:
    return [event for event in events if isinstance(event, Book)]


def time_of(venue: str, top: Top) -> datetime | None:
    if venue in WITHOUT_TIME:
        return None
    unit_ns = UNIT_NS.get(venue, 1_000)
    return EPOCH_START + timedelta(microseconds=top.at_ns // unit_ns * unit_ns // 1_000)


@each_venue
def test_bid_ask_and_time_are_read_as_they_were_written(venue: str) -> None:
    read = Read(venue)
    read.subscribe()
    symbol = BITCOIN[venue]
    for _ in range(300):
        read.rig.now += 0.137
        top = read.rig.exchange.top(symbol)
        (book,) = books(read.adapter.read(read.connection.session.frame(top)))
        assert (book.symbol, book.bid, book.ask) == (symbol, top.bid, top.ask)
        assert book.exchange_at == time_of(venue, top)
        assert not book.is_snapshot or venue not in WITH_SNAPSHOT


@pytest.mark.slow
@each_venue
def test_every_coin_and_rate_of_the_table_is_subscribed_and_read(venue: str) -> None:
    named = [pair.symbol for coin in BASES if (pair := symbol_at(venue, coin, {})) is not None]
    symbols = list(dict.fromkeys([*named, *rate_symbols_at(venue, {}).values()]))
    read = Read(venue, *symbols[:25])  # as many as a connection to Bitfinex takes
    events = [*read.subscribe(), *read.run(6.0)]
    assert not [event for event in events if isinstance(event, SubscriptionRefused)]
    assert {book.symbol for book in books(events)} == set(symbols[:25])


@each_venue
def test_a_refusal_is_read_as_one_and_silence_as_nothing(venue: str) -> None:
    read = Read(venue)
    read.rig.set(sub_error=True)
    assert any(isinstance(event, SubscriptionRefused) for event in read.subscribe())
    ignored = Read(venue)
    ignored.rig.set(sub_ignore=True)
    events = [*ignored.subscribe(), *ignored.run(3.0)]
    assert not books(events)
    assert not any(isinstance(event, SubscriptionRefused) for event in events)


@each_venue
@pytest.mark.parametrize("side", ["bid", "ask"])
def test_half_a_book_is_no_book_and_no_error(venue: str, side: str) -> None:
    read = Read(venue)
    read.subscribe()
    read.run(1.0)
    read.rig.set(half=side)
    assert books(read.run(3.0)) == []
    read.rig.set()
    assert books(read.run(3.0))


def test_frames_that_coinbase_numbers_and_loses_are_read_as_gaps() -> None:
    read = Read("coinbase")
    assert not any(isinstance(event, SequenceGap) for event in [*read.subscribe(), *read.run(5.0)])
    read.rig.outcomes.clear()
    read.rig.set(lost=0.3)
    events = read.run(20.0)
    read.rig.set()
    events += read.run(2.0)
    lost = sum(event.frames for event in events if isinstance(event, SequenceGap))
    assert lost == read.rig.outcomes.count("lost") > 20


def test_the_clock_of_binance_is_read_from_its_trades() -> None:
    read = Read("binance")
    read.rig.set(skew_s=1.27)
    read.subscribe()
    seen = [event.exchange_at for event in read.run(5.0) if isinstance(event, ClockSeen)]
    start = EPOCH_START + timedelta(microseconds=NOON_NS // 1_000)
    assert seen
    assert all(1.27 <= (at - start).total_seconds() <= 6.3 for at in seen)


@each_venue
def test_a_lost_frame_leaves_no_price_of_long_ago_behind(venue: str) -> None:
    read = Read(venue)
    read.subscribe()
    read.rig.set(lost=0.5)
    for _ in range(100):
        read.rig.run(0.2)
        for book in books(read.events()):
            now = read.rig.exchange.top(BITCOIN[venue])
            assert now.bid is not None
            assert book.bid < book.ask or venue == "bybit"  # until its next snapshot
            assert abs(book.bid / now.bid - 1) < Decimal("0.002")
