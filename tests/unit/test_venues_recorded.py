"""Recorded frames of exchanges are read with the digits and times that stand in them, as another reading has them."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from benchmarks.made_frames import SYMBOLS
from tests.harness_recordings import NEEDS_REAL
from tests.unit import harness_venue_frames as frames
from tests.unit.harness_venue_frames import as_texts, books, session

from cotacoes.errors import FrameError
from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import Alive, Book, ClockSeen, Leaving, Subscribed, SubscriptionRefused
from cotacoes.model.quote import format_price

pytestmark = NEEDS_REAL


class Top(NamedTuple):
    """What a frame says in its own words."""

    symbol: str
    bid: str
    ask: str
    at: datetime | None


def since_1970(**count: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(**count)


def binance(frame: Any) -> Iterator[Top]:
    if str(frame.get("stream", "")).endswith("@bookTicker"):
        yield Top(frame["data"]["s"], frame["data"]["b"], frame["data"]["a"], None)


def coinbase(frame: Any) -> Iterator[Top]:
    if frame.get("channel") == "ticker":
        at = datetime.fromisoformat(frame["timestamp"][:26] + "Z")
        for event in frame["events"]:
            yield from (Top(one["product_id"], one["best_bid"], one["best_ask"], at) for one in event["tickers"])


def kraken(frame: Any) -> Iterator[Top]:
    if frame.get("channel") == "ticker":
        for one in frame["data"]:
            yield Top(one["symbol"], one["bid"], one["ask"], datetime.fromisoformat(one["timestamp"]))


def okx(frame: Any) -> Iterator[Top]:
    if frame.get("arg", {}).get("channel") == "tickers" and "event" not in frame:
        for one in frame["data"]:
            yield Top(one["instId"], one["bidPx"], one["askPx"], since_1970(milliseconds=int(one["ts"])))


def bybit(frame: Any) -> Iterator[Top]:
    if str(frame.get("topic", "")).startswith("orderbook.1."):
        data = frame["data"]
        yield Top(data["s"], data["b"][0][0], data["a"][0][0], since_1970(milliseconds=int(frame["ts"])))


def bitstamp(frame: Any) -> Iterator[Top]:
    symbol, data = frame["channel"].removeprefix("diff_order_book_"), frame["data"]
    if frame["event"] == "data" and data["bids"] and data["asks"]:
        at = since_1970(microseconds=int(data["microtimestamp"]))
        yield Top(symbol, data["bids"][0][0], data["asks"][0][0], at)


def bitfinex(frame: Any) -> Iterator[Top]:
    if isinstance(frame, list):
        yield Top("tBTCUSD", frame[1][0], frame[1][2], None)


ANOTHER_READING: dict[str, Callable[[Any], Iterator[Top]]] = {
    "binance": binance,
    "coinbase": coinbase,
    "kraken": kraken,
    "okx": okx,
    "bybit": bybit,
    "bitfinex": bitfinex,
}


def as_top(book: Book) -> Top:
    return Top(book.symbol, format_price(book.bid), format_price(book.ask), book.exchange_at)


def test_the_recordings_of_2026_are_read_as_another_reader_reads_them() -> None:
    sessions = {venue: session(venue) for venue in ANOTHER_READING}
    counts: Counter[str] = Counter()
    for venue, frame in frames.recorded_2026():
        if venue in sessions:
            found = [as_top(book) for book in books(sessions[venue].read(frame))]
            assert found == list(ANOTHER_READING[venue](as_texts(frame)))
            counts[venue] += len(found)
    assert counts == {"binance": 2, "coinbase": 2, "kraken": 2, "bybit": 2, "okx": 3, "bitfinex": 1}


def test_the_recordings_of_2026_mark_what_answers_a_subscription() -> None:
    sessions = {venue: session(venue) for venue in ANOTHER_READING}
    marks: dict[str, list[bool]] = {}
    for venue, frame in frames.recorded_2026():
        if venue in sessions:
            found = books(sessions[venue].read(frame))
            marks.setdefault(venue, []).extend(book.is_snapshot for book in found)
    assert marks == {
        "binance": [False, False],
        "coinbase": [True, False],
        "kraken": [True, False],
        "bybit": [True, False],
        "okx": [True, False, False],
        "bitfinex": [True],
    }


def test_bybit_and_coinbase_frames_without_a_book_are_signs_of_life_or_confirmations() -> None:
    kinds: dict[str, Counter[str]] = {venue: Counter() for venue in SYMBOLS}
    sessions = {venue: session(venue) for venue in SYMBOLS}
    for venue, frame in frames.recorded_2026():
        if venue in sessions:
            kinds[venue].update(type(event).__name__ for event in sessions[venue].read(frame))
    assert kinds["coinbase"] == {"Book": 2, "Subscribed": 1, "Alive": 1}
    assert kinds["kraken"] == {"Book": 2, "Subscribed": 1, "Alive": 2}
    assert kinds["binance"] == {"Book": 2, "Subscribed": 1, "Alive": 1}
    assert kinds["bybit"] == {"Book": 2, "Subscribed": 1, "Alive": 1}
    assert kinds["okx"] == {"Book": 3, "Subscribed": 1}
    assert kinds["bitstamp"] == {"Subscribed": 1}


@pytest.mark.parametrize(
    ("name", "symbol", "count", "trades"),
    [("btcusdt_20240808.gz", "BTCUSDT", 28_040, 9_757), ("ethusdt_20240808.gz", "ETHUSDT", 24_077, 6_106)],
)
@pytest.mark.slow
def test_six_minutes_of_binance_are_read_to_the_digit(name: str, symbol: str, count: int, trades: int) -> None:
    reader = session("binance", symbol)
    kinds: Counter[type] = Counter()
    for frame in frames.recorded_by_hftbacktest(name):
        events = reader.read(frame)
        kinds.update(map(type, events))
        if b"@bookTicker" in frame[:60]:
            assert [as_top(book) for book in books(events)] == list(binance(as_texts(frame)))
        elif b"@trade" in frame[:60]:
            at = since_1970(milliseconds=int(as_texts(frame)["data"]["E"]))
            assert list(events) == [ClockSeen(at)]
    assert kinds[Book] == count
    assert kinds[ClockSeen] >= trades


def test_thin_pairs_of_binance_are_read_to_the_digit() -> None:
    symbols = ("NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR")
    reader = session("binance", *symbols)
    found = [(books(reader.read(frame)), as_texts(frame)) for frame in frames.recorded_by_cryptofeed("BINANCE.ws.1.0")]
    assert [[as_top(book) for book in read] for read, _ in found] == [list(binance(texts)) for _, texts in found]
    assert {book.symbol for read, _ in found for book in read} <= set(symbols)
    assert sum(len(read) for read, _ in found) > 10


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("OKX.ws.1.0", ("BTC-USDT", "UNI-USD-SWAP", "BTC-USD-220527")),
        ("OKCOIN.ws.1.0", ("BTC-USD", "ETH-USD", "USDT-USD", "USDC-USDT")),
    ],
)
def test_okx_and_its_sister_are_read_to_the_digit(name: str, symbols: tuple[str, ...]) -> None:
    reader = session("okx", *symbols)
    tops = []
    for frame in frames.recorded_by_cryptofeed(name):
        events = reader.read(frame)
        found = [as_top(book) for book in books(events)]
        assert found == list(okx(as_texts(frame)))
        assert found or {type(event) for event in events} <= {Alive, Subscribed, SubscriptionRefused, Leaving}
        tops += found
    assert {top.symbol for top in tops} == set(symbols)


def test_bitstamps_levels_and_times_are_read_to_the_digit() -> None:
    """Recorded are diffs, which have the form of whole books but the order of changes."""
    symbols = {"ethusd", "usdtusd", "bateur", "adaeur", "usdteur", "xrpeur", "xlmgbp", "batbtc"}
    reader = session("bitstamp", *symbols)
    count = 0
    for recorded in frames.recorded_by_cryptofeed("BITSTAMP.ws.1.0"):
        found = books(reader.read(recorded.replace(b'"diff_order_book_', b'"order_book_')))
        expected = [top for top in bitstamp(as_texts(recorded)) if top.symbol in symbols]
        assert [as_top(book) for book in found] == expected
        count += len(found)
    assert count > 20


@pytest.mark.parametrize(("venue", "name"), [("coinbase", "COINBASE.ws.28.0"), ("kraken", "KRAKEN.ws.49.0")])
def test_frames_of_an_older_protocol_give_no_book(venue: str, name: str) -> None:
    reader = session(venue)
    for frame in frames.recorded_by_cryptofeed(name):
        try:
            assert books(reader.read(frame)) == []
        except FrameError:
            assert frame.startswith(b"[")  # Kraken's first version


def test_a_recording_of_each_of_the_six_venues_is_there() -> None:
    recorded = {venue for venue, _ in frames.recorded_2026()}
    assert set(VENUES) - recorded == {"gemini"}  # its frames are written after its documentation
