"""Each adapter talks with the simulated venue of its name, written from recordings and apart from the adapter."""

import json
from decimal import Decimal

import pytest
from benchmarks.made_frames import SYMBOLS
from tests.harness_simulated_venues import NAMES, UNKNOWN, WITH_SNAPSHOT, Client, Rig, sides
from tests.unit.harness_venue_frames import books

from cotacoes.errors import FrameError
from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import (
    Alive,
    Book,
    ClockSeen,
    Event,
    Leaving,
    SequenceGap,
    Session,
    Subscribed,
    SubscriptionRefused,
)

each_venue = pytest.mark.parametrize("venue", NAMES)


class Talk:
    """A session and the venue that it talks with; `read` gives what came since the last time."""

    def __init__(self, venue: str, *symbols: str) -> None:
        self.rig = Rig(venue)
        self.session: Session = VENUES[venue].open(symbols or [SYMBOLS[venue]])
        self.client: Client
        self.client, self._connection = self.rig.connect()
        self.malformed = 0
        for message in self.session.opening():
            self.say(message)

    def say(self, message: str) -> None:
        self._connection.message(message.encode(), self.rig.now)

    def read(self, seconds: float = 0.0) -> list[Event]:
        self.rig.run(seconds)
        events: list[Event] = []
        for frame in self.client.take():
            try:
                events += self.session.read(frame)
            except FrameError:
                self.malformed += 1
        return events


@each_venue
def test_a_subscription_is_confirmed_and_brings_books_with_the_digits_of_their_frames(venue: str) -> None:
    talk = Talk(venue)
    talk.rig.run(5.0)
    frames = talk.client.take()
    events = [event for frame in frames for event in talk.session.read(frame)]
    expected = [pair for frame in frames if (pair := sides(venue, frame)) is not None]
    assert Subscribed() in events
    found = books(events)
    assert len(found) == len(expected) > 5
    for book, (bid, ask) in zip(found, expected, strict=True):
        assert book.symbol == SYMBOLS[venue]
        assert bid is None or book.bid == Decimal(bid)  # a delta of Bybit may lack a side
        assert ask is None or book.ask == Decimal(ask)
    assert not any(isinstance(event, SequenceGap | SubscriptionRefused | Leaving) for event in events)


@each_venue
def test_a_snapshot_is_marked_and_what_follows_is_not(venue: str) -> None:
    found = books(Talk(venue).read(5.0))
    assert found[0].is_snapshot is (venue in WITH_SNAPSHOT | {"bitstamp"})
    assert not any(book.is_snapshot for book in found[1:])


@each_venue
def test_an_unknown_symbol_is_refused_and_the_others_are_followed(venue: str) -> None:
    talk = Talk(venue, UNKNOWN[venue], SYMBOLS[venue])
    events = talk.read(5.0)
    refused = [event.symbol for event in events if isinstance(event, SubscriptionRefused)]
    assert {book.symbol for book in books(events)} == {SYMBOLS[venue]}
    if venue == "binance":
        assert refused == []  # it says nothing
    elif venue == "bitstamp":
        assert refused in ([None], [UNKNOWN[venue]])
    else:
        assert refused == [UNKNOWN[venue]]


@each_venue
def test_times_are_close_to_the_venues_own_clock(venue: str) -> None:
    talk = Talk(venue)
    times = [
        event.exchange_at
        for event in talk.read(10.0)
        if isinstance(event, Book | ClockSeen) and event.exchange_at is not None
    ]
    if venue == "bitfinex":
        assert times == []
    else:
        assert times
        seconds = [talk.rig.wall_ns() / 1e9 - at.timestamp() for at in times]
        assert min(seconds) > -5
        assert max(seconds) < 20


@each_venue
def test_a_ping_in_the_venues_own_words_is_answered(venue: str) -> None:
    talk = Talk(venue)
    talk.rig.set(stall=True)
    talk.read(1.0)
    ping = VENUES[venue].ping
    if ping is not None:
        talk.say(ping)
        assert Alive() in talk.read()


@each_venue
def test_garbage_is_a_frame_error_and_good_books_go_on(venue: str) -> None:
    talk = Talk(venue)
    talk.rig.set(garbage=Decimal("0.5"))
    found = books(talk.read(20.0))
    assert talk.malformed > 0
    assert len(found) > 5
    assert all(book.bid < book.ask for book in found)


def test_lost_frames_of_coinbase_are_counted() -> None:
    talk = Talk("coinbase")
    talk.read(1.0)
    talk.rig.set(lost=Decimal("0.5"))
    assert any(isinstance(event, SequenceGap) for event in talk.read(10.0))


@pytest.mark.parametrize("venue", ["binance", "kraken", "bitstamp", "okx", "bitfinex"])
def test_a_planned_end_is_announced(venue: str) -> None:
    talk = Talk(venue)
    talk.rig.set(maintenance=True)
    assert any(isinstance(event, Leaving) for event in talk.read(5.0))


def test_what_an_adapter_sends_is_json() -> None:
    for venue in VENUES.values():
        assert all(json.loads(message) for message in venue.open([SYMBOLS[venue.name]]).opening())
