"""Frames of each venue: written here with the keys of recorded ones, and the recordings beside the checkout, if any."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from tests.harness_recordings import REAL

from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import Book, Event, Session

FRAMES = REAL / "exchange_frames"
SYMBOLS = {
    "binance": "BTCUSDT",
    "coinbase": "BTC-USD",
    "kraken": "BTC/USD",
    "bitstamp": "btcusd",
    "okx": "BTC-USDT",
    "bybit": "BTCUSDT",
    "gemini": "btcusd",
    "bitfinex": "tBTCUSD",
}
AT_MS = 1_786_613_174_873  # 2026-08-13T09:26:14.873Z
SUBSCRIBED_CHANNEL = b'{"event":"subscribed","channel":"ticker","chanId":104,"symbol":"tBTCUSD","pair":"BTCUSD"}'


def binance(bid: str, ask: str) -> bytes:
    ticker = f'{{"u":98494969448,"s":"BTCUSDT","b":"{bid}","B":"4.77471000","a":"{ask}","A":"11.33198000"}}'
    return f'{{"stream":"btcusdt@bookTicker","data":{ticker}}}'.encode()


def coinbase(bid: str, ask: str, *, kind: str = "update", number: int = 2) -> bytes:
    ticker = (
        '{"type":"ticker","product_id":"BTC-USD","price":"63320.73","volume_24_h":"6629.927726",'
        '"low_24_h":"63235.88","high_24_h":"64416.3","low_52_w":"57717.55","high_52_w":"126296",'
        f'"price_percent_chg_24_h":"0.03813791548644","best_bid":"{bid}","best_ask":"{ask}",'
        '"best_bid_quantity":"0.2275291","best_ask_quantity":"0.49990114"}'
    )
    return (
        f'{{"channel":"ticker","timestamp":"2026-08-13T09:26:14.873058895Z","sequence_num":{number},'
        f'"events":[{{"type":"{kind}","tickers":[{ticker}]}}]}}'
    ).encode()


def kraken(bid: str, ask: str, *, kind: str = "update") -> bytes:
    ticker = (
        f'{{"symbol":"BTC/USD","bid":{bid},"bid_qty":5.75119051,"ask":{ask},"ask_qty":0.36977971,"last":63297.8,'
        '"volume":1020.88387727,"vwap":63685.7,"low":63250,"high":64409.2,"change":0.7,"change_pct":0,"trades":47535,'
        '"timestamp":"2026-08-13T09:26:14.873195Z"}'
    )
    return f'{{"channel":"ticker","type":"{kind}","data":[{ticker}]}}'.encode()


def bitstamp(bid: str, ask: str) -> bytes:
    sides = f'"bids":[["{bid}","0.12636254"],["0.01","1"]],"asks":[["{ask}","0.5"],["99999999","1"]]'
    data = f'{{"timestamp":"1786613174","microtimestamp":"1786613174873195",{sides}}}'
    return f'{{"data":{data},"channel":"order_book_btcusd","event":"data"}}'.encode()


def okx(bid: str, ask: str) -> bytes:
    ticker = (
        '{"instType":"SPOT","instId":"BTC-USDT","last":"63707.3","lastSz":"0.00164251",'
        f'"askPx":"{ask}","askSz":"0.15455902","bidPx":"{bid}","bidSz":"1.70080521","open24h":"63958.9",'
        '"high24h":"64496.9","low24h":"63309.4","sodUtc0":"63484.7","sodUtc8":"63445.9",'
        f'"volCcy24h":"229576048.730317321","vol24h":"3601.1585121","ts":"{AT_MS}"}}'
    )
    return f'{{"arg":{{"channel":"tickers","instId":"BTC-USDT"}},"data":[{ticker}]}}'.encode()


def bybit(bid: str, ask: str, *, kind: str = "snapshot") -> bytes:
    """An empty text leaves a side out, as a delta does."""
    bids, asks = (f'[["{price}","2.045546"]]' if price else "[]" for price in (bid, ask))
    data = f'{{"s":"BTCUSDT","b":{bids},"a":{asks},"u":72212457,"seq":112603120278}}'
    return f'{{"topic":"orderbook.1.BTCUSDT","ts":{AT_MS},"type":"{kind}","data":{data},"cts":{AT_MS - 1}}}'.encode()


def gemini(bid: str, ask: str) -> bytes:
    return (
        f'{{"u":1751505576085,"E":{AT_MS}195809,"s":"btcusd","b":"{bid}","B":"1.25000000",'
        f'"a":"{ask}","A":"0.75000000"}}'
    ).encode()


def bitfinex(bid: str, ask: str) -> bytes:
    sizes = "89.39691507", "95.67402604"
    return f"[104,[{bid},{sizes[0]},{ask},{sizes[1]},13.5,0.00541864,2504.9,22581.92240769,2533.2,2461.4]]".encode()


BOOKS: dict[str, Callable[[str, str], bytes]] = {
    "binance": binance,
    "coinbase": coinbase,
    "kraken": kraken,
    "bitstamp": bitstamp,
    "okx": okx,
    "bybit": bybit,
    "gemini": gemini,
    "bitfinex": bitfinex,
}
WITH_TIME = sorted(BOOKS.keys() - {"binance", "bitfinex"})
NUMBERS = ("kraken", "bitfinex")  # those that write prices as JSON numbers


def session(venue: str, *symbols: str) -> Session:
    """A session for bitcoin, or for these symbols, in which Bitfinex has confirmed the subscription."""
    opened = VENUES[venue].open(symbols or [SYMBOLS[venue]])
    if venue == "bitfinex":
        opened.read(SUBSCRIBED_CHANNEL)
    return opened


def books(events: Sequence[Event]) -> list[Book]:
    return [event for event in events if isinstance(event, Book)]


def book(venue: str, bid: str, ask: str) -> Book:
    """The book that a frame with these texts gives."""
    (found,) = books(session(venue).read(BOOKS[venue](bid, ask)))
    return found


class RecordedFrame(NamedTuple):
    """A frame that was received, byte for byte where the recording kept it so."""

    venue: str
    frame: bytes


class _Line(msgspec.Struct):
    venue: str
    direction: str
    frame: msgspec.Raw


def recorded_2026() -> Iterator[RecordedFrame]:
    """What was received of the present protocols; Binance's frames as its combined stream wraps them."""
    for line in (FRAMES / "ccxt_ws_frames_2026-08.jsonl").read_bytes().splitlines():
        read = msgspec.json.decode(line, type=_Line)
        if read.direction == "received":
            frame = bytes(read.frame)
            is_book_ticker = read.venue == "binance" and b'"u":' in frame
            wrapped = b'{"stream":"btcusdt@bookTicker","data":%b}' % frame
            yield RecordedFrame(read.venue, wrapped if is_book_ticker else frame)


def recorded_by_cryptofeed(name: str) -> Iterator[bytes]:
    with gzip.open(FRAMES / f"cryptofeed_{name}.gz", "rb") as lines:
        for line in lines:
            time, _, frame = line.partition(b": ")
            if time.replace(b".", b"").isdigit():
                yield frame.rstrip(b"\n")


def recorded_by_hftbacktest(name: str) -> Iterator[bytes]:
    with gzip.open(REAL / "binance_spot_2024-08-08" / name, "rb") as lines:
        for line in lines:
            yield line.partition(b" ")[2].rstrip(b"\n")


def as_texts(frame: bytes) -> Any:
    """Another reading of a frame: every number stays the text that it is."""
    return json.loads(frame, parse_float=str, parse_int=str)
