"""ccxt reads the same frames as our adapters, to the digit: it is the oracle of what a frame means.

ccxt belongs to the peers of the benchmarks, so this is skipped without it; `make test-peers` installs it first.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice

import pytest
from benchmarks.made_frames import BOOKS, SYMBOLS
from benchmarks.peers.ccxt import Top, book_reader
from tests.harness_recordings import NEEDS_REAL
from tests.harness_simulated_venues import Rig
from tests.unit import harness_venue_frames as frames
from tests.unit.harness_venue_frames import books, session

from cotacoes.feed_service.venues.venue import Book

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore")
    importlib.import_module("ccxt.pro")
ccxt = pytest.importorskip("ccxt", reason="ccxt is not installed: it is a peer of the benchmarks (make test-peers)")

# ccxt has no reader of Gemini's present streams, but of the archived ones; it drops Kraken's time
WITHOUT_TIME = {"binance", "bitfinex", "kraken"}
# one exchange of ccxt takes half a second
their_reader = functools.cache(functools.partial(book_reader, number=str))
COMPARED = sorted(BOOKS.keys() - {"gemini"})
PRICES = (("63704.10", "63704.20"), ("0.00001234", "0.00001300"), ("7", "8.5"), ("123456789.12345678", "123456790"))


def assert_same(venue: str, ours: Book, theirs: Top | None) -> None:
    assert theirs is not None
    assert (ours.bid, ours.ask) == (Decimal(str(theirs.bid)), Decimal(str(theirs.ask)))
    if venue not in WITHOUT_TIME:
        assert ours.exchange_at is not None
        at = datetime.fromtimestamp((theirs.at_ms or 0) / 1000, UTC)
        assert 0 <= (ours.exchange_at - at).total_seconds() < 0.001  # ccxt's are in milliseconds


@pytest.mark.parametrize("venue", COMPARED)
@pytest.mark.parametrize(("bid", "ask"), PRICES)
def test_ccxt_reads_the_frames_of_our_tests_as_we_do(venue: str, bid: str, ask: str) -> None:
    frame = BOOKS[venue](bid, ask)
    (ours,) = books(session(venue).read(frame))
    assert_same(venue, ours, their_reader(venue)(frame))


@NEEDS_REAL
def test_ccxt_reads_the_recordings_of_2026_as_we_do() -> None:
    ours = {venue: session(venue) for venue in COMPARED}
    theirs = {venue: their_reader(venue) for venue in COMPARED}
    compared: set[str] = set()
    for venue, frame in frames.recorded_2026():
        if venue in ours and (found := books(ours[venue].read(frame))):
            assert_same(venue, found[0], theirs[venue](frame))
            compared.add(venue)
    assert compared == set(COMPARED) - {"bitstamp"}


def longer_recordings() -> Iterator[tuple[str, str, Iterator[bytes]]]:
    yield "binance", "BTCUSDT", islice(frames.recorded_by_hftbacktest("btcusdt_20240808.gz"), 5_000)
    yield "okx", "BTC-USDT", frames.recorded_by_cryptofeed("OKX.ws.1.0")
    diffs = frames.recorded_by_cryptofeed("BITSTAMP.ws.1.0")
    yield "bitstamp", "ethusd", (frame.replace(b'"diff_order_book_', b'"order_book_') for frame in diffs)


@NEEDS_REAL
def test_ccxt_reads_longer_recordings_as_we_do() -> None:
    for venue, symbol, recorded in longer_recordings():
        ours, theirs = session(venue, symbol), their_reader(venue)
        count = 0
        for frame in recorded:
            for book in books(ours.read(frame)):
                assert_same(venue, book, theirs(frame))
                count += 1
        assert count > (10 if venue == "bitstamp" else 20)


@pytest.mark.parametrize("venue", COMPARED)
def test_ccxt_reads_the_frames_of_the_simulated_venues_as_we_do(venue: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(SYMBOLS[venue])
    rig.run(10.0)
    ours, theirs = session(venue), their_reader(venue)
    count = 0
    for frame in client.take():
        if (found := books(ours.read(frame))) and stands_alone(venue, frame):
            _, _, rest = frame.partition(b",")  # after Bitfinex's channel, of which theirs knows one
            assert_same(venue, found[0], theirs(b"[104," + rest if venue == "bitfinex" else frame))
            count += 1
    assert count > 5


def stands_alone(venue: str, frame: bytes) -> bool:
    """A frame that says a whole book: ccxt does not give the book of a delta at once."""
    return venue != "bybit" or b'"type":"snapshot"' in frame
