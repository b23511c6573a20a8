"""Each venue's adapter reads its frames exactly: every digit, the right side, the right time, and what is no book."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from benchmarks import made_frames
from benchmarks.made_frames import BOOKS, SYMBOLS
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import harness_venue_frames as frames
from tests.unit.harness_venue_frames import NUMBERS, WITH_TIME, book, books, session

from cotacoes.errors import FrameError
from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import (
    Alive,
    Book,
    ClockSeen,
    Event,
    Leaving,
    SequenceGap,
    Subscribed,
    SubscriptionRefused,
)
from cotacoes.model.quote import format_price
from cotacoes.model.venue_symbols import VENUE_NAMES

EACH = sorted(BOOKS)
AT = datetime(2026, 8, 13, 9, 26, 14, 873_000, tzinfo=UTC)

each_venue = pytest.mark.parametrize("venue", EACH)
price_texts = st.from_regex(r"(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?", fullmatch=True).filter(
    lambda text: text.strip("0.") != ""
)


def test_every_venue_of_the_table_of_symbols_has_an_adapter_of_its_name() -> None:
    assert sorted(VENUES) == sorted(VENUE_NAMES) == EACH


@pytest.mark.slow
@given(bid=price_texts, ask=price_texts)
@each_venue
def test_any_price_keeps_every_digit(venue: str, bid: str, ask: str) -> None:
    found = book(venue, bid, ask)
    assert (format_price(found.bid), format_price(found.ask)) == (bid, ask)


@each_venue
def test_a_book_names_its_symbol_and_its_sides(venue: str) -> None:
    found = book(venue, "63704.10", "63704.20")
    assert (found.symbol, str(found.bid), str(found.ask)) == (SYMBOLS[venue], "63704.10", "63704.20")


@each_venue
def test_a_bid_above_the_ask_is_read_as_it_stands(venue: str) -> None:
    found = book(venue, "2", "1")
    assert (found.bid, found.ask) == (Decimal(2), Decimal(1))


@each_venue
def test_the_time_is_the_venues_own_cut_to_microseconds_or_absent(venue: str) -> None:
    found = book(venue, "1", "2").exchange_at
    if venue in WITH_TIME:
        assert found is not None
        assert found.replace(microsecond=873_000) == AT
        assert 873_000 <= found.microsecond <= 873_195
    else:
        assert found is None


@pytest.mark.parametrize("venue", sorted(set(EACH) - {"binance", "coinbase", "kraken"}))
def test_the_first_book_of_a_symbol_answers_the_subscription_if_no_frame_says_so(venue: str) -> None:
    opened = session(venue)
    frame = BOOKS[venue]("1", "2")
    assert [books(opened.read(frame))[0].is_snapshot for _ in range(3)] == [True, False, False]


def test_coinbase_and_kraken_mark_a_snapshot_and_binance_sends_none() -> None:
    for venue, frame in (("coinbase", made_frames.coinbase), ("kraken", made_frames.kraken)):
        assert books(session(venue).read(frame("1", "2", kind="snapshot")))[0].is_snapshot
        assert not books(session(venue).read(frame("1", "2", kind="update")))[0].is_snapshot
    assert not book("binance", "1", "2").is_snapshot


@each_venue
@pytest.mark.parametrize("side", ["bid", "ask"])
@pytest.mark.parametrize("empty", ["0", "0.00000000"])
def test_a_side_without_orders_gives_no_book(venue: str, side: str, empty: str) -> None:
    frame = BOOKS[venue](empty, "2") if side == "bid" else BOOKS[venue]("1", empty)
    assert session(venue).read(frame) in ((Alive(),), [Alive()])


NO_PRICES = (
    *("-1", "-0.5", "NaN", "nan", "Infinity", "+1", "1.", ".5", "1_000", " 1", "1 ", "0x10", "1,5", "٣", "1e400"),
    *("7" * 62, "true", "[]", "{}", "[1]", "01", "1.2.3", "\\u0031", "1\\n", "1\x00"),
)


@each_venue
@pytest.mark.parametrize("side", ["bid", "ask"])
@pytest.mark.parametrize("wrong", NO_PRICES)
def test_what_is_no_price_is_a_frame_error(venue: str, side: str, wrong: str) -> None:
    if venue in NUMBERS and wrong in {" 1", "1 ", "1,5"}:
        return  # white space between tokens of JSON, and one more element
    frame = BOOKS[venue](wrong, "2") if side == "bid" else BOOKS[venue]("1", wrong)
    with pytest.raises(FrameError):
        session(venue).read(frame)


@each_venue
def test_a_number_with_an_exponent_is_exact_and_a_text_with_one_is_refused(venue: str) -> None:
    if venue in NUMBERS:
        assert book(venue, "1.2e-7", "13E-8") == book(venue, "0.00000012", "0.00000013")
    else:
        with pytest.raises(FrameError):
            session(venue).read(BOOKS[venue]("1.2e-7", "1"))


@each_venue
def test_a_book_of_a_symbol_that_was_not_asked_for_is_not_given(venue: str) -> None:
    opened = VENUES[venue].open([VENUES[venue].symbol("DOGE", "USD")])
    assert books(opened.read(BOOKS[venue]("1", "2"))) == []


NO_FRAMES = (
    *(b"", b"\xff", b"{", b"nonsense", b"null", b"1", b'"text"', b"[]", b"[[]]", b'{"channel":1}'),
    *(
        b'{"stream":1,"event":1,"topic":1,"id":{}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"event":"data","data":' * 9_000,
    ),
)


@each_venue
@pytest.mark.parametrize("frame", NO_FRAMES, ids=range(len(NO_FRAMES)))
def test_a_frame_that_is_not_of_the_protocol_gives_nothing_or_is_a_frame_error(venue: str, frame: bytes) -> None:
    try:
        assert books(session(venue).read(frame)) == []
    except FrameError as error:
        assert str(error)
        assert len(str(error)) < 200


OTHERS: list[tuple[str, bytes, Event]] = [
    ("binance", b'{"result":null,"id":1}', Subscribed()),
    ("binance", b'{"error":{"code":2,"msg":"Invalid request"},"id":1}', SubscriptionRefused(None, "Invalid request")),
    ("binance", b'{"code":2,"msg":"Invalid request"}', SubscriptionRefused(None, "Invalid request")),
    ("binance", b'{"e":"serverShutdown","E":1786613174873}', Leaving("the server shuts down")),
    ("binance", b'{"stream":"","data":{"e":"serverShutdown","E":1}}', Alive()),
    ("binance", b'{"stream":"x","data":{"e":"serverShutdown","E":1}}', Leaving("the server shuts down")),
    (
        "binance",
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1786613174873,"s":"BTCUSDT","p":"1","T":1786613174872}}',
        ClockSeen(AT),
    ),
    ("coinbase", b'{"channel":"subscriptions","sequence_num":1,"events":[]}', Subscribed()),
    ("coinbase", b'{"channel":"heartbeats","sequence_num":1,"events":[{"heartbeat_counter":"3049"}]}', Alive()),
    ("coinbase", b'{"channel":"market_trades","sequence_num":1,"events":[{"trades":[{"price":"1"}]}]}', Alive()),
    (
        "coinbase",
        b'{"type":"error","message":"BTC-USD is not a valid product"}',
        SubscriptionRefused("BTC-USD", "BTC-USD is not a valid product"),
    ),
    ("coinbase", b'{"type":"error","message":"rate limit"}', SubscriptionRefused(None, "rate limit")),
    ("kraken", b'{"channel":"heartbeat"}', Alive()),
    ("kraken", b'{"channel":"status","type":"update","data":[{"system":"online","version":"2.0.10"}]}', Alive()),
    (
        "kraken",
        b'{"channel":"status","type":"update","data":[{"system":"maintenance"}]}',
        Leaving("the venue is under maintenance"),
    ),
    ("kraken", b'{"method":"subscribe","result":{"channel":"ticker"},"success":true}', Subscribed()),
    (
        "kraken",
        b'{"error":"Currency pair not supported BTC/USD","method":"subscribe","success":false,"symbol":"BTC/USD"}',
        SubscriptionRefused("BTC/USD", "Currency pair not supported BTC/USD"),
    ),
    (
        "kraken",
        b'{"error":"Currency pair not supported BTC/USD","method":"subscribe","success":false}',
        SubscriptionRefused("BTC/USD", "Currency pair not supported BTC/USD"),
    ),
    ("kraken", b'{"method":"pong","time_in":"2026-08-13T09:26:14.873195Z"}', Alive()),
    ("kraken", b'{"channel":"trade","type":"update","data":[{"price":1}]}', Alive()),
    ("bitstamp", b'{"event":"bts:subscription_succeeded","channel":"order_book_btcusd","data":{}}', Subscribed()),
    ("bitstamp", b'{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}', Alive()),
    (
        "bitstamp",
        b'{"event":"bts:request_reconnect","channel":"","data":""}',
        Leaving("the venue asks for a new connection"),
    ),
    (
        "bitstamp",
        b'{"event":"bts:error","channel":"","data":{"code":null,"message":"Bad subscription string."}}',
        SubscriptionRefused(None, "Bad subscription string."),
    ),
    (
        "bitstamp",
        b'{"event":"bts:error","channel":"order_book_btcusd","data":{"message":"unknown"}}',
        SubscriptionRefused("btcusd", "unknown"),
    ),
    ("bitstamp", b'{"event":"trade","channel":"live_trades_btcusd","data":{"price":1}}', Alive()),
    ("bitstamp", b'{"event":"data","channel":"diff_order_book_btcusd","data":{"bids":[],"asks":[]}}', Alive()),
    ("okx", b"pong", Alive()),
    ("okx", b'{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"}}', Subscribed()),
    (
        "okx",
        b'{"event":"error","code":"60018","msg":"Wrong URL or channel:tickers,instId:BTC-USDT doesn\'t exist."}',
        SubscriptionRefused("BTC-USDT", "Wrong URL or channel:tickers,instId:BTC-USDT doesn't exist."),
    ),
    (
        "okx",
        b'{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade."}',
        Leaving("The connection will soon be closed for a service upgrade."),
    ),
    ("okx", b'{"event":"notice","code":"1","msg":"hello"}', Alive()),
    ("okx", b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"px":"1"}]}', Alive()),
    ("bybit", b'{"success":true,"ret_msg":"subscribe","req_id":"1","op":"subscribe"}', Subscribed()),
    ("bybit", b'{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}', Alive()),
    (
        "bybit",
        b'{"success":false,"ret_msg":"Invalid symbol :[orderbook.1.BTCUSDT]","req_id":"","op":"subscribe"}',
        SubscriptionRefused("BTCUSDT", "Invalid symbol :[orderbook.1.BTCUSDT]"),
    ),
    (
        "bybit",
        b'{"success":false,"ret_msg":"no","req_id":"BTCUSDT","op":"subscribe"}',
        SubscriptionRefused("BTCUSDT", "no"),
    ),
    ("bybit", b'{"topic":"tickers.BTCUSDT","ts":1,"type":"snapshot","data":{"lastPrice":"1"}}', Alive()),
    ("gemini", b'{"id":1,"status":200}', Subscribed()),
    ("gemini", b'{"id":0,"status":200}', Alive()),
    (
        "gemini",
        b'{"id":1,"status":400,"error":{"code":-1013,"msg":"Invalid stream name: x@bookTicker"}}',
        SubscriptionRefused("btcusd", "Invalid stream name: x@bookTicker"),
    ),
    ("gemini", b'{"id":7,"status":429}', SubscriptionRefused(None, "status 429")),
    ("gemini", b'{"e":"depthUpdate","E":1,"s":"btcusd","b":[["7.4","1"]],"a":[]}', Alive()),
    ("bitfinex", made_frames.SUBSCRIBED_CHANNEL, Subscribed()),
    ("bitfinex", b'[104,"hb"]', Alive()),
    ("bitfinex", b"[105,[1,2,3]]", Alive()),
    ("bitfinex", b'{"event":"info","version":2,"platform":{"status":1}}', Alive()),
    ("bitfinex", b'{"event":"info","code":20051,"msg":"Stopping"}', Leaving("the server restarts")),
    ("bitfinex", b'{"event":"info","code":20060,"msg":"Entering"}', Leaving("the venue is under maintenance")),
    (
        "bitfinex",
        b'{"event":"error","channel":"ticker","symbol":"tBTCUSD","msg":"symbol: invalid","code":10300}',
        SubscriptionRefused("tBTCUSD", "symbol: invalid"),
    ),
]


@pytest.mark.parametrize(("venue", "frame", "event"), OTHERS)
def test_a_frame_without_a_book_says_what_it_means(venue: str, frame: bytes, event: Event) -> None:
    assert list(session(venue).read(frame)) == [event]


def test_what_a_venue_says_is_shortened_and_made_printable() -> None:
    (event,) = session("okx").read(b'{"event":"error","msg":"\\u001b[31m\\n' + b"x" * 1000 + b'"}')
    assert isinstance(event, SubscriptionRefused)
    assert event.reason.startswith("\\x1b[31m\\nxxx")
    assert len(event.reason) < 250


def test_a_symbol_is_not_found_inside_a_longer_one() -> None:
    (event,) = session("okx", "BTC-USD").read(b'{"event":"error","msg":"instId:BTC-USDT doesn\'t exist"}')
    assert event == SubscriptionRefused(None, "instId:BTC-USDT doesn't exist")


# one unknown symbol must not spoil the others: venues that refuse a whole message get one message for each symbol
MESSAGES = {"binance": 1, "kraken": 1, "coinbase": 4}  # Coinbase: the heartbeats come first


@each_venue
def test_a_symbol_is_subscribed_by_itself_if_a_venue_refuses_whole_messages(venue: str) -> None:
    symbols = [VENUES[venue].symbol(base, "USD") for base in ("BTC", "ETH", "SOL")]
    opening = VENUES[venue].open(symbols).opening()
    assert len(opening) == MESSAGES.get(venue, 3)
    for symbol in symbols:
        spelled = symbol.lower() if venue == "binance" else symbol
        assert sum(spelled in message for message in opening) == 1


def test_binance_is_asked_for_many_symbols_in_messages_that_it_accepts() -> None:
    opening = VENUES["binance"].open([f"COIN{number}USDT" for number in range(120)]).opening()
    assert [len(frames.as_texts(message.encode())["params"]) for message in opening] == [100, 100, 40]
    assert max(map(len, opening)) < 4_096
    assert VENUES["binance"].pause_s >= 0.2


def test_kraken_is_asked_for_each_change_of_the_book() -> None:
    (message,) = VENUES["kraken"].open(["BTC/USD"]).opening()
    assert '"event_trigger": "bbo"' in message


def test_coinbase_counts_its_frames_over_all_channels() -> None:
    opened = session("coinbase")
    heartbeat = b'{"channel":"heartbeats","sequence_num":%d,"events":[]}'
    assert list(opened.read(heartbeat % 7)) == [Alive()]
    assert list(opened.read(heartbeat % 8)) == [Alive()]
    first, second = opened.read(made_frames.coinbase("1", "2", number=12))
    assert (first, isinstance(second, Book)) == (SequenceGap(3), True)
    assert list(opened.read(heartbeat % 13)) == [Alive()]
    assert list(opened.read(heartbeat % 5)) == [Alive()]  # a new count, which no frame announces
    assert list(opened.read(heartbeat % 6)) == [Alive()]


def test_a_frame_of_coinbase_that_cannot_be_read_is_not_lost() -> None:
    opened = session("coinbase")
    opened.read(made_frames.coinbase("1", "2", number=1))
    with pytest.raises(FrameError):
        opened.read(made_frames.coinbase("one", "2", number=2))
    assert len(opened.read(made_frames.coinbase("1", "2", number=3))) == 1  # no gap


def test_a_book_of_bybit_without_a_time_is_a_frame_error() -> None:
    with pytest.raises(FrameError):
        session("bybit").read(made_frames.bybit("1", "2").replace(b'"ts":', b'"t":'))


def test_coinbase_answers_for_a_product_in_usdc_as_for_the_one_in_usd() -> None:
    opened = session("coinbase", "BTC-USDC")
    assert "BTC-USD" in opened.opening()[1]
    assert books(opened.read(made_frames.coinbase("1", "2")))[0].symbol == "BTC-USDC"


def test_a_delta_of_bybit_changes_one_side_and_a_snapshot_both() -> None:
    opened = session("bybit")

    def top(bid: str, ask: str, kind: str) -> tuple[str, str]:
        (found,) = books(opened.read(made_frames.bybit(bid, ask, kind=kind)))
        return str(found.bid), str(found.ask)

    assert top("10.0", "11.0", "snapshot") == ("10.0", "11.0")
    assert top("10.5", "", "delta") == ("10.5", "11.0")
    assert top("", "11.5", "delta") == ("10.5", "11.5")
    assert top("9.0", "9.5", "snapshot") == ("9.0", "9.5")


def test_a_delta_of_bybit_may_remove_a_level() -> None:
    opened = session("bybit")
    opened.read(made_frames.bybit("10.0", "11.0"))
    removed = made_frames.bybit("10.0", "", kind="delta").replace(b"2.045546", b"0.000")
    moved = made_frames.bybit("10.0", "", kind="delta").replace(b'["10.0","2.045546"]', b'["10.0","0"],["9.9","1"]')
    (found,) = books(opened.read(moved))
    assert (found.bid, found.ask) == (Decimal("9.9"), Decimal("11.0"))
    assert books(opened.read(removed)) == [found]  # a level that is not the best one
    assert books(opened.read(removed.replace(b"10.0", b"9.9"))) == []


def test_a_delta_of_bybit_before_a_snapshot_or_after_a_frame_that_cannot_be_read_gives_no_book() -> None:
    opened = session("bybit")
    delta = made_frames.bybit("10.0", "11.0", kind="delta")
    assert books(opened.read(delta)) == []
    opened.read(made_frames.bybit("10.0", "11.0"))
    assert len(books(opened.read(delta))) == 1
    with pytest.raises(FrameError):
        opened.read(made_frames.bybit("ten", "", kind="delta"))
    assert books(opened.read(delta)) == []
    assert len(books(opened.read(made_frames.bybit("10.0", "11.0")))) == 1


def test_a_new_channel_of_bitfinex_replaces_the_one_of_its_symbol() -> None:
    opened = session("bitfinex")
    opened.read(made_frames.SUBSCRIBED_CHANNEL.replace(b"104", b"205"))
    assert books(opened.read(made_frames.bitfinex("1", "2"))) == []
    assert len(books(opened.read(made_frames.bitfinex("1", "2").replace(b"104", b"205")))) == 1


@each_venue
def test_a_venue_that_answers_pings_promises_no_longer_silence_than_their_interval(venue: str) -> None:
    facts = VENUES[venue]
    assert facts.url.startswith("wss://")
    if facts.ping is not None:
        assert facts.heartbeat_s == facts.ping_s < 30
