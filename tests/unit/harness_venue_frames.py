"""Frames of each venue: written here with the keys of recorded ones, and the recordings beside the checkout, if any."""

import gzip
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from benchmarks.made_frames import BOOKS, SUBSCRIBED_CHANNEL, SYMBOLS
from tests.harness_recordings import REAL

from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import Book, Event, Session

FRAMES = REAL / "exchange_frames"
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
    """A received frame, byte for byte if the recording kept it so."""

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
