"""Simulated venues under a clock moved by hand: their protocols, their faults, and their bounds."""

import itertools
import json
import re
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.harness_recordings import NEEDS_REAL, REAL
from tests.harness_simulated_venues import (
    BITCOIN,
    NAMES,
    NOON_NS,
    START,
    UNKNOWN,
    WITH_SNAPSHOT,
    Rig,
    Ticking,
    sides,
    spent_s,
    subscription,
)

from cotacoes.adapters.websocket_server import Handshake, Unanswered
from cotacoes.errors import NotFoundError, OverloadedError, ProblemError
from cotacoes.external_service.venues.connection import garbled
from cotacoes.external_service.venues.exchange import CONNECTIONS_MAX, FRAMES_PER_S_MAX, listed_pairs
from cotacoes.external_service.venues.faults import MarketShock, VenueFaults
from cotacoes.external_service.venues.prices import Pair
from cotacoes.external_service.venues.registry import KINDS
from cotacoes.external_service.venues.session import SUBSCRIPTIONS_MAX
from cotacoes.external_service.venues.stream import VenueStreams
from cotacoes.model.venue_symbols import VENUE_NAMES, rate_symbols_at, symbol_at

each_venue = pytest.mark.parametrize("venue", NAMES)

# The keys of recorded frames, by venue and kind: `data[].bid` is the field bid of each item of data.
KEYS: dict[tuple[str, str], str] = {
    ("coinbase", "ticker"): "channel events[].tickers[].best_ask events[].tickers[].best_ask_quantity "
    "events[].tickers[].best_bid events[].tickers[].best_bid_quantity events[].tickers[].high_24_h "
    "events[].tickers[].high_52_w events[].tickers[].low_24_h events[].tickers[].low_52_w events[].tickers[].price "
    "events[].tickers[].price_percent_chg_24_h events[].tickers[].product_id events[].tickers[].type "
    "events[].tickers[].volume_24_h events[].type sequence_num timestamp",
    ("coinbase", "subscriptions"): "channel events[].subscriptions.ticker[] sequence_num timestamp",
    ("kraken", "status"): "channel data[].api_version data[].connection_id data[].system data[].version type",
    ("kraken", "subscribe"): "method req_id result.channel result.event_trigger result.snapshot result.symbol success "
    "time_in time_out",
    ("kraken", "ticker"): "channel data[].ask data[].ask_qty data[].bid data[].bid_qty data[].change data[].change_pct "
    "data[].high data[].last data[].low data[].symbol data[].timestamp data[].trades data[].volume data[].vwap type",
    ("kraken", "heartbeat"): "channel",
    ("binance", "subscribe"): "id result",
    ("binance", "bookTicker"): "A B a b s u",
    ("bybit", "subscribe"): "conn_id op req_id ret_msg success",
    ("bybit", "orderbook"): "cts data.a[][] data.b[][] data.s data.seq data.u topic ts type",
    ("okx", "subscribe"): "arg.channel arg.instId connId event",
    ("okx", "tickers"): "arg.channel arg.instId data[].askPx data[].askSz data[].bidPx data[].bidSz data[].high24h "
    "data[].instId data[].instType data[].last data[].lastSz data[].low24h data[].open24h data[].sodUtc0 "
    "data[].sodUtc8 data[].ts data[].vol24h data[].volCcy24h",
    ("bitstamp", "subscribe"): "channel data event",
    ("bitfinex", "ticker"): "[] [][]",
}


def keys_of(frame: Any, at: str = "") -> set[str]:
    """The paths of all fields; an empty object is a field without any."""
    if isinstance(frame, dict) and frame:
        return {path for key, value in frame.items() for path in keys_of(value, f"{at}.{key}" if at else key)}
    if isinstance(frame, list) and frame:
        return {path for value in frame for path in keys_of(value, f"{at}[]")}
    return {at}


def kind_of(venue: str, frame: Any) -> str:
    """The kind of a frame, as KEYS names it."""
    if isinstance(frame, list):
        return "ticker"
    channel = str(frame.get("channel") or frame.get("arg", {}).get("channel", ""))
    if venue == "binance":
        return "bookTicker" if "b" in frame else "subscribe" if "result" in frame else "other"
    if venue == "bybit":
        return str(frame.get("topic", "subscribe")).partition(".")[0]
    if frame.get("event") == "data":
        return "order_book"
    is_answer = {"method", "event"} & frame.keys()
    return "subscribe" if is_answer else channel


def frames_of(venue: str) -> list[Any]:
    """Every frame of a short conversation with a simulated venue; those of Binance without the name of their stream."""
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    rig.run(3.0)
    rig.set(stall=True)
    rig.run(1.5)
    frames = [json.loads(frame) for frame in client.take()]
    return [frame["data"] if venue == "binance" and "stream" in frame else frame for frame in frames]


@pytest.mark.parametrize(("venue", "kind"), KEYS)
def test_a_rendered_frame_has_the_recorded_keys_and_no_other(venue: str, kind: str) -> None:
    found = [keys_of(frame) for frame in frames_of(venue) if kind_of(venue, frame) == kind]
    assert found
    empty = {"data.a", "data.b"}  # the sides that a delta of Bybit leaves out
    for keys in found:
        assert {key for key in keys if key not in empty} <= set(KEYS[venue, kind].split())
    assert set(KEYS[venue, kind].split()) in found


@NEEDS_REAL
def test_the_table_of_keys_is_that_of_the_recordings() -> None:
    lines = (REAL / "exchange_frames" / "ccxt_ws_frames_2026-08.jsonl").read_text().splitlines()
    received = [line for line in map(json.loads, lines) if line["direction"] == "received"]
    seen: set[tuple[str, str]] = set()
    for line in received:
        case = (line["venue"], kind_of(line["venue"], line["frame"]))
        if case in KEYS and "subscriptions" not in case:
            assert keys_of(line["frame"]) == set(KEYS[case].split()), case
            seen.add(case)
    assert seen == {case for case in KEYS if "subscriptions" not in case}


@each_venue
def test_a_subscription_brings_books_in_which_the_bid_is_below_the_ask(venue: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    rig.run(3.0)
    books = [book for book in rig.books(client) if None not in book]
    assert len(books) > 5
    assert all(Decimal(str(bid)) < Decimal(str(ask)) for bid, ask in books)
    assert len(set(books)) > 3


@pytest.mark.parametrize(
    ("venue", "field", "text"),
    [
        ("binance", "b", r'"b":"\d+\.\d{8}"'),
        ("coinbase", "timestamp", r'"timestamp":"2026-11-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"'),
        ("kraken", "timestamp", r'"timestamp":"2026-11-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"'),
        ("kraken", "bid", r'"bid":[1-9]\d*(\.\d*[1-9])?,'),  # a number without trailing zeros or an exponent
        ("bitstamp", "microtimestamp", r'"microtimestamp":"\d{16}"'),
        ("bitstamp", "asks", r'"asks":(\[\[|,\[|"[\d.]+","\d+\.\d{8}"\]){200}\]'),
        ("okx", "ts", r'"ts":"\d{13}"'),
        ("bybit", "ts", r'"ts":\d{13},'),
        ("gemini", "E", r'"E":\d{19},'),
    ],
)
def test_values_are_written_as_the_venue_writes_them(venue: str, field: str, text: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    rig.run(60.0)
    frames = [frame.decode() for frame in client.take() if sides(venue, frame) is not None]
    assert len(frames) > 100
    for frame in frames:
        assert f'"{field}":' in frame
        assert re.search(text, frame), frame[:300]


@each_venue
def test_a_snapshot_answers_a_subscription_if_the_venue_has_one(venue: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    assert len(rig.books(client)) == (1 if venue in WITH_SNAPSHOT else 0)


@each_venue
def test_an_unknown_symbol_is_refused_by_name_or_in_silence_as_at_the_venue(venue: str) -> None:
    rig = Rig(venue)
    client, connection = rig.connect()
    client.take()
    rig.send(connection, subscription(venue, UNKNOWN[venue]))
    answer = b"".join(client.take())
    rig.run(2.0)
    assert rig.books(client) == []
    if venue == "binance":
        assert json.loads(answer) == {"result": None, "id": 1}
    else:
        assert re.search(rb"error|not supported|[Ii]nvalid|Bad", answer)


@each_venue
def test_books_end_with_the_subscription(venue: str) -> None:
    rig = Rig(venue)
    client, connection = rig.connect(BITCOIN[venue])
    rig.run(1.0)
    words = {"subscribe": "unsubscribe", "SUBSCRIBE": "UNSUBSCRIBE", "bts:subscribe": "bts:unsubscribe"}
    message = {
        key: words.get(value, value) if isinstance(value, str) else value
        for key, value in subscription(venue, BITCOIN[venue]).items()
    }
    if venue == "bitfinex":
        channel = next(json.loads(frame)["chanId"] for frame in client.frames if b"chanId" in frame)
        message = {"event": "unsubscribe", "chanId": channel}
    rig.send(connection, message)
    client.take()
    rig.run(2.0)
    assert rig.books(client) == []
    assert rig.exchange.subscriptions == 0


def test_the_symbols_are_those_of_the_table_for_coins_and_rates() -> None:
    coins = ["bitcoin", "ethereum", "solana", "monero", "my-own-coin"]
    assert list(VENUE_NAMES) == NAMES
    for kind in KINDS:
        pairs = listed_pairs(kind, coins)
        for coin in [*coins, "tether", "usd-coin"]:
            named = symbol_at(kind.name, coin, {})
            if named is not None:
                assert pairs[named.symbol] == Pair(coin, named.currency)
        for symbol in rate_symbols_at(kind.name, {}).values():
            assert pairs[symbol].currency == "USD"
    assert not any(pair.coin == "monero" for pair in listed_pairs(KINDS[0], coins).values())
    assert listed_pairs(KINDS[2], coins)["MYOWNCOIN/USD"] == Pair("my-own-coin", "USD")


def test_a_coin_that_is_added_to_the_market_is_listed_at_once() -> None:
    rig = Rig("kraken")
    market = Ticking(rig.clock)
    rig.exchange._market = market
    assert "MYCOIN/USD" not in rig.exchange.pairs
    market.coins.append("my-coin")
    assert "MYCOIN/USD" in rig.exchange.pairs


def test_coinbase_numbers_all_frames_of_a_connection_in_one_row() -> None:
    rig = Rig("coinbase")
    client, connection = rig.connect("BTC-USD", "ETH-USD")
    rig.send(connection, {"type": "subscribe", "channel": "heartbeats"})
    rig.run(3.0)
    frames = [json.loads(frame) for frame in client.take()]
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    assert {frame["channel"] for frame in frames} == {"ticker", "subscriptions", "heartbeats"}


def test_bybit_counts_the_frames_of_a_symbol_and_begins_anew_for_a_client_that_did_not_read() -> None:
    rig = Rig("bybit")
    client, connection = rig.connect("BTCUSDT", "ETHUSDT")
    rig.run(5.0)
    books = [frame for frame in map(json.loads, client.take()) if frame.get("topic") == "orderbook.1.BTCUSDT"]
    updates = [book["data"]["u"] for book in books]
    assert updates == list(range(updates[0], updates[0] + len(updates)))
    assert {book["type"] for book in books} == {"snapshot", "delta"}
    for _ in range(10):
        client.is_full = True
        rig.run(1.0)
        client.is_full = False
        connection.serve()
        client.take()
        rig.run(1.0)
        first = next(frame for frame in map(json.loads, client.take()) if frame.get("topic") == "orderbook.1.BTCUSDT")
        assert first["type"] == "snapshot"


def test_coinbase_answers_a_product_in_usdc_as_the_one_in_usd() -> None:
    rig = Rig("coinbase")
    client, _ = rig.connect("BTC-USDC")
    ticker = json.loads(client.take()[0])["events"][0]["tickers"][0]
    assert ticker["product_id"] == "BTC-USD"


def test_the_first_books_of_bitstamp_are_old_and_later_ones_are_not() -> None:
    rig = Rig("bitstamp")
    client, _ = rig.connect("btcusd")
    ages = []
    for _ in range(200):
        rig.run(0.05)
        books = [frame["data"] for frame in map(json.loads, client.take()) if frame["event"] == "data"]
        ages += [(rig.wall_ns() // 1000 - int(book["microtimestamp"])) / 1e6 for book in books]
    assert [round(age) for age in ages[:4]] == [6, 4, 2, 0]
    assert max(ages[3:]) < 0.1


def test_okx_and_the_others_answer_the_pings_that_are_texts() -> None:
    for venue, ping, pong in (
        ("okx", b"ping", b"pong"),
        ("bybit", b'{"op":"ping"}', b'"ret_msg":"pong"'),
        ("bitstamp", b'{"event":"bts:heartbeat"}', b"bts:heartbeat"),
        ("gemini", b'{"id":0,"method":"ping"}', b'"status":200'),
        ("bitfinex", b'{"event":"ping","cid":7}', b'"cid":7'),
        ("kraken", b'{"method":"ping","req_id":3}', b'"pong"'),
    ):
        rig = Rig(venue)
        client, connection = rig.connect()
        client.take()
        connection.message(ping, rig.now)
        assert pong in client.take()[0]


@pytest.mark.slow
def test_all_venues_together_send_about_sixty_books_a_second_of_a_coin_and_six_times_as_many_at_full_pace() -> None:
    for pace, expected in ((1.0, 60), (6.0, 350)):
        sent = 0
        for venue in NAMES[:6]:
            rig = Rig(venue)
            rig.exchanges.shock.set(MarketShock(pace=pace))
            rig.connect(BITCOIN[venue])
            rig.run(10.0)
            sent += rig.outcomes.count("sent")
        assert 0.8 * expected < sent / 10 < 1.2 * expected


# Faults


@each_venue
def test_a_stall_stops_the_books_of_its_coins_alone_and_a_new_subscription_still_gets_its_snapshot(venue: str) -> None:
    rig = Rig(venue)
    client, connection = rig.connect(BITCOIN[venue], BITCOIN[venue].replace("BTC", "ETH").replace("btc", "eth"))
    rig.run(2.0)
    rig.set(stall=True, coins=["bitcoin"])
    client.take()
    rig.run(10.0)
    bids = [Decimal(str(bid)) for bid, _ in rig.books(client) if bid is not None]
    assert bids
    assert max(bids) < 10_000  # ether goes on
    rig.set(stall=True)
    client.take()
    rig.run(20.0)
    assert rig.books(client) == []
    rig.send(connection, subscription(venue, BITCOIN[venue]))
    assert len(rig.books(client)) == (1 if venue in WITH_SNAPSHOT else 0)
    rig.set()
    rig.run(3.0)
    assert rig.books(client)


@pytest.mark.parametrize(("venue", "heartbeat"), [("kraken", b"heartbeat"), ("coinbase", b"heartbeats")])
def test_heartbeats_go_on_during_a_stall(venue: str, heartbeat: bytes) -> None:
    rig = Rig(venue)
    client, connection = rig.connect(BITCOIN[venue])
    rig.send(connection, {"type": "subscribe", "channel": "heartbeats"})
    rig.set(stall=True)
    client.take()
    rig.run(10.0)
    assert 8 <= sum(heartbeat in frame for frame in client.take()) <= 11


def test_trades_of_binance_go_on_during_a_stall() -> None:
    rig = Rig("binance")
    client, connection = rig.connect("BTCUSDT")
    rig.send(connection, {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 2})
    rig.set(stall=True)
    client.take()
    rig.run(10.0)
    frames = client.take()
    assert frames
    assert all(b"@trade" in frame for frame in frames)


@each_venue
def test_a_frozen_venue_goes_on_sending_the_price_that_it_had(venue: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    rig.run(8.0)
    rig.set(freeze=True)
    client.take()
    rig.run(10.0)
    books = {book for book in rig.books(client) if None not in book}
    assert len(books) == 1
    rig.set(freeze=True)  # set again: another price
    rig.run(5.0)
    assert {book for book in rig.books(client) if None not in book} - books


@each_venue
def test_a_dead_venue_sends_nothing_and_hears_nothing_until_it_is_back(venue: str) -> None:
    rig = Rig(venue)
    client, connection = rig.connect(BITCOIN[venue])
    rig.run(1.0)
    rig.set(dead=True, for_s=30)
    muted = [client.is_muted]
    client.take()
    rig.run(29.0)
    rig.send(connection, subscription(venue, BITCOIN[venue]))
    assert client.take() == []
    assert client.pings == 0
    rig.run(3.0)
    assert [*muted, client.is_muted] == [True, False]
    assert rig.books(client)


def test_connections_are_cut_at_the_age_that_is_set() -> None:
    rig = Rig()
    old, _ = rig.connect("BTC/USD")
    rig.run(5.0)
    rig.set(cut_after_s=3)
    young, _ = rig.connect("BTC/USD")
    assert old.is_cut
    rig.run(2.8)
    assert not young.is_cut
    rig.run(0.4)
    assert young.is_cut


def test_connections_that_are_open_are_dropped_with_new_ones() -> None:
    rig = Rig()
    old, _ = rig.connect("BTC/USD")
    rig.set(accept_then_drop=True)
    young, _ = rig.connect()
    assert old.is_cut
    assert young.is_cut
    assert young.take() == []


@each_venue
def test_subscriptions_are_refused_or_ignored_on_request(venue: str) -> None:
    rig = Rig(venue)
    rig.set(sub_error=True)
    client, connection = rig.connect()
    client.take()
    rig.send(connection, subscription(venue, BITCOIN[venue]))
    assert re.search(rb"error|false|Bad", client.take()[0])
    rig.set(sub_ignore=True)
    rig.send(connection, subscription(venue, BITCOIN[venue]))
    rig.run(5.0)
    assert not [frame for frame in client.take() if b"heartbeat" not in frame]
    assert rig.exchange.subscriptions == 0


@each_venue
def test_maintenance_is_announced_if_the_venue_does_so_and_then_the_connection_is_closed(venue: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    client.take()
    rig.set(maintenance=True)
    assert client.closed == (1012, "maintenance")
    words = {
        "binance": b"serverShutdown",
        "kraken": b'"system":"maintenance"',
        "bitstamp": b"bts:request_reconnect",
        "okx": b"64008",
        "bitfinex": b"20060",
    }
    assert words.get(venue, b"") in b"".join(client.take())
    rig.run(2.0)
    assert client.take() == []


@each_venue
def test_a_lie_is_about_its_coins_alone(venue: str) -> None:
    rig = Rig(venue)
    rig.set(lie="0.10", coins=["bitcoin"])
    symbols = [BITCOIN[venue], BITCOIN[venue].replace("BTC", "ETH").replace("btc", "eth")]
    lying = [rig.exchange.top(symbol).bid or Decimal(0) for symbol in symbols]
    rig.set()
    honest = [rig.exchange.top(symbol).bid or Decimal(1) for symbol in symbols]
    assert abs(lying[0] / honest[0] - Decimal("1.1")) < Decimal("0.0001")
    assert lying[1] == honest[1]


@each_venue
@pytest.mark.parametrize("side", ["bid", "ask"])
def test_half_a_book_has_the_side_that_is_named(venue: str, side: str) -> None:
    rig = Rig(venue)
    rig.set(half=side)
    client, _ = rig.connect(BITCOIN[venue])
    rig.run(2.0)
    books = rig.books(client)
    assert books
    missing = 1 if side == "bid" else 0
    assert {book[missing] for book in books} == {None}
    assert None not in {book[1 - missing] for book in books}


def test_clocks_are_ahead_jump_or_stand_as_they_are_set() -> None:
    rig = Rig("kraken")
    assert rig.exchange.now_ns() == NOON_NS
    rig.set(skew_s=-1.3)
    assert rig.exchange.now_ns() == NOON_NS - 1_300_000_000
    rig.set(clock="jumping")
    seen = set()
    for _ in range(20):
        rig.now += 1.0
        seen.add(rig.exchange.now_ns() - rig.wall_ns())
    assert seen == {-1_300_000_000, 1_300_000_000}
    rig.set(clock="frozen")
    stood = rig.exchange.now_ns()
    rig.now += 10
    assert rig.exchange.now_ns() == stood
    assert rig.exchange.top("BTC/USD").at_ns == stood
    rig.set()
    assert rig.exchange.now_ns() == rig.wall_ns()


def test_late_books_have_the_price_and_the_time_that_they_are_late_by() -> None:
    rig = Rig("kraken")
    then = rig.exchange.top("BTC/USD")
    rig.now += 4.0
    rig.set(late_s=4)
    late = rig.exchange.top("BTC/USD")
    assert (late.bid, late.ask, late.at_ns) == (then.bid, then.ask, then.at_ns)


def test_lost_frames_keep_their_numbers() -> None:
    rig = Rig("coinbase")
    client, _ = rig.connect("BTC-USD")
    rig.set(lost=0.3)
    rig.run(20.0)
    numbers = [json.loads(frame)["sequence_num"] for frame in client.take()]
    missing = numbers[-1] + 1 - len(numbers)
    assert 0.2 < missing / numbers[-1] < 0.4
    assert missing - 5 <= rig.outcomes.count("lost") <= missing + 5


def test_a_slow_venue_sends_that_many_times_fewer_books() -> None:
    rig = Rig("okx")
    rig.connect("BTC-USDT")
    rig.set(slow=10)
    rig.run(60.0)
    assert 40 < rig.outcomes.count("sent") < 80


@each_venue
def test_garbage_comes_beside_good_books_and_none_of_it_has_a_price(venue: str) -> None:
    rig = Rig(venue)
    client, _ = rig.connect(BITCOIN[venue])
    good = rig.exchange.connections[0].session.frame(rig.exchange.top(BITCOIN[venue]))
    random = Random(1)
    assert not any(_has_price(venue, garbled(good, random)) for _ in range(100))
    rig.set(garbage=0.5)
    client.take()
    rig.run(20.0)
    assert 0.3 < rig.outcomes.count("garbage") / rig.outcomes.count("sent") < 0.7
    assert len(rig.books(client)) == rig.outcomes.count("sent")


def _has_price(venue: str, text: bytes) -> bool:
    book = sides(venue, text)
    return book is not None and book != (None, None)


def test_a_shock_reaches_every_venue_and_ends_by_itself() -> None:
    rig = Rig()
    before = [venue.top(BITCOIN[name]).bid for name, venue in rig.exchanges.by_name.items()]
    rig.exchanges.shock.set(MarketShock(shock="0.7", for_s=5))
    during = [venue.top(BITCOIN[name]).bid for name, venue in rig.exchanges.by_name.items()]
    assert all(abs(now / old - Decimal("0.7")) < Decimal("0.0001") for now, old in zip(during, before, strict=True))  # type: ignore[operator]
    rig.now += 5.0
    assert (rig.exchange.top("BTC/USD").bid or 0) > 60_000


def test_faults_with_an_end_give_way_to_those_without() -> None:
    rig = Rig()
    rig.set(lie="0.01")
    rig.set(stall=True, for_s=2)
    assert rig.exchange.faults.current().stall
    rig.now += 2.0
    assert rig.exchange.faults.current() == VenueFaults(lie="0.01")


@pytest.mark.parametrize(
    "given",
    [
        {"lying": 1},
        {"stall": 1},
        {"lie": "-1"},
        {"lie": "NaN"},
        {"refuse": 200},
        {"refuse": 451.5},
        {"half": "middle"},
        {"clock": "slow"},
        {"garbage": 1.1},
        {"late_s": 61},
        {"slow": 0.5},
        {"skew_s": 1e9},
        {"retry_after_s": -1},
        {"cut_after_s": -1},
        {"coins": ["BTC"]},
        {"for_s": 0},
    ],
)
def test_an_unknown_fault_or_an_impossible_value_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        VenueFaults(**given)
    assert {problem["loc"][0] for problem in caught.value.errors()} == set(given)


@pytest.mark.parametrize(
    "given",
    [{"shock": "0"}, {"shock": "NaN"}, {"shock": "1e9"}, {"peg": {"EURT": "1"}}, {"peg": {"USDT": "-1"}}, {"pace": 0}],
)
def test_an_impossible_shock_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        MarketShock(**given)
    assert {problem["loc"][0] for problem in caught.value.errors()} == set(given)


# Handshakes


def admit(rig: Rig, path: str) -> Any:
    return VenueStreams(rig.exchanges).admit(Handshake(path, {}, "127.0.0.1"))


def test_a_handshake_is_refused_with_the_status_that_is_set_or_not_answered_at_all() -> None:
    rig = Rig()
    path = "/venues/kraken/stream"
    assert callable(admit(rig, path))
    for status in (403, 418, 429, 451, 503):
        rig.set(refuse=status, retry_after_s=7)
        refusal = admit(rig, path)
        assert isinstance(refusal, ProblemError)
        assert (refusal.status, refusal.retry_after_s) == (status, 7)
        assert callable(admit(rig, "/venues/okx/stream"))
    rig.set(dead=True)
    assert isinstance(admit(rig, path), Unanswered)


@pytest.mark.parametrize("path", ["/", "/venues/nasdaq/stream", "/venues/kraken", "/venues/kraken/stream/x", "/v1/ws"])
def test_there_is_no_stream_at_another_path(path: str) -> None:
    assert isinstance(admit(Rig(), path), NotFoundError)


def test_binance_takes_the_streams_in_the_address_as_well() -> None:
    rig = Rig("binance")
    opened = admit(rig, "/venues/binance/stream?streams=btcusdt@bookTicker/ethusdt@trade")
    client_of = rig.connect()[0]
    connection = opened(client_of)
    assert list(connection.session.symbols) == ["BTCUSDT"]
    rig.run(1.0)
    assert rig.books(client_of)


# Bounds


def test_a_venue_takes_so_many_connections_and_no_more() -> None:
    rig = Rig()
    connections = [rig.connect()[1] for _ in range(CONNECTIONS_MAX)]
    assert isinstance(admit(rig, "/venues/kraken/stream"), OverloadedError)
    connections[0].lost(is_unanswered=False)
    assert callable(admit(rig, "/venues/kraken/stream"))


def test_a_connection_takes_so_many_subscriptions_and_no_more() -> None:
    rig = Rig("kraken")
    market = Ticking(rig.clock)
    market.coins = [f"coin{number}" for number in range(SUBSCRIPTIONS_MAX + 10)]
    rig.exchange._market = market
    client, _ = rig.connect(*[f"COIN{number}/USD" for number in range(SUBSCRIPTIONS_MAX + 10)])
    assert rig.exchange.subscriptions == SUBSCRIPTIONS_MAX
    assert sum(b'"success":false' in frame for frame in client.take()) == 10


@pytest.mark.slow
def test_the_books_of_a_venue_stay_below_a_limit_however_many_are_subscribed() -> None:
    rig = Rig("okx")
    market = Ticking(rig.clock)
    market.coins = [f"coin{number}" for number in range(500)]
    rig.exchange._market = market
    rig.exchanges.shock.set(MarketShock(pace=10))
    for _ in range(3):
        rig.connect(*[f"COIN{number}-USDT" for number in range(500)])
    rig.run(1.0)  # each symbol begins at once
    rig.outcomes.clear()
    rig.run(5.0)
    assert 0.7 * FRAMES_PER_S_MAX < rig.outcomes.count("sent") / 5 < 1.3 * FRAMES_PER_S_MAX


def test_a_client_that_does_not_read_misses_books_and_is_cut_in_the_end() -> None:
    rig = Rig()
    client, connection = rig.connect("BTC/USD")
    other, _ = rig.connect("BTC/USD")
    client.is_full = True
    client.take()
    other.take()
    rig.run(10.0)
    assert client.take() == []
    assert len(rig.books(other)) > 50
    client.is_full = False
    connection.serve()
    rig.run(1.0)
    assert rig.books(client)
    client.is_full = True
    rig.run(29.0)
    assert not client.is_cut
    rig.run(2.0)
    assert client.is_cut


def test_a_client_that_never_subscribes_is_closed() -> None:
    rig = Rig()
    client, _ = rig.connect()
    rig.run(29.0)
    assert client.closed is None
    rig.run(2.0)
    assert client.closed == (1008, "no subscription")


def test_okx_closes_a_connection_on_which_nothing_happens_for_half_a_minute() -> None:
    rig = Rig("okx")
    client, connection = rig.connect("BTC-USDT")
    rig.set(stall=True)
    rig.run(25.0)
    connection.message(b"ping", rig.now)
    rig.run(25.0)
    assert client.closed is None
    rig.run(6.0)
    assert client.closed == (4004, "no data in 30 s")


def test_symbols_that_nobody_has_any_more_cost_nothing() -> None:
    rig = Rig()
    _, connection = rig.connect("BTC/USD", "ETH/USD")
    rig.run(1.0)
    connection.lost(is_unanswered=False)
    rig.run(2.0)
    assert not rig.exchange._due
    assert not rig.exchange._scheduled
    rig.connect("BTC/USD")
    rig.run(1.0)
    assert rig.outcomes.count("sent") > 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
words = st.sampled_from(
    [
        *BITCOIN.values(),
        "subscribe",
        "SUBSCRIBE",
        "unsubscribe",
        "ping",
        "ticker",
        "tickers",
        "heartbeats",
        "bts:subscribe",
    ]
)


@pytest.mark.slow
@each_venue
@settings(max_examples=50)
@given(data=st.data())
def test_no_message_of_a_stranger_breaks_a_venue_or_is_answered_at_length(venue: str, data: st.DataObject) -> None:
    rig = Rig(venue)
    client, connection = rig.connect()
    fields = [
        "op",
        "method",
        "event",
        "type",
        "args",
        "params",
        "channel",
        "symbol",
        "product_ids",
        "id",
        "data",
        "chanId",
    ]
    message = st.dictionaries(st.sampled_from(fields), json_values | words | st.lists(words, max_size=5), max_size=8)
    text = st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode())
    for given_text in data.draw(st.lists(message.map(lambda value: json.dumps(value).encode()) | text, max_size=5)):
        client.take()
        connection.message(given_text or b" ", START)
        assert sum(map(len, client.take())) < 40_000
    rig.run(0.3)


@pytest.mark.slow
@each_venue
def test_a_long_and_a_deep_message_cost_little_and_are_answered_in_bounds(venue: str) -> None:
    rig = Rig(venue)
    client, connection = rig.connect()
    many = json.dumps(subscription(venue, "X")).replace("X", '", "'.join(["x"] * 10_000))
    for text in (b"[" * 65_536, b'{"a":' * 10_000, many.encode()[:65_536], b'"' + b"x" * 65_000 + b'"'):
        client.take()
        assert spent_s(lambda text=text: connection.message(text, rig.now)) < 0.3  # type: ignore[misc]
        assert sum(map(len, client.take())) < 600_000


def test_the_same_seed_gives_the_same_frames() -> None:
    runs = []
    for _ in range(2):
        rig = Rig("okx")
        client, _ = rig.connect("BTC-USDT")
        rig.run(5.0)
        runs.append(client.take())
    assert runs[0] == runs[1]
    assert len(runs[0]) > 20
    assert all(one != other for one, other in itertools.pairwise(runs[0]))
