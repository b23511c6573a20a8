"""`frames`: microseconds to read a frame of each venue, beside ccxt.pro and, if it is installed, cryptofeed.

Each gets the bytes of the same frames, and gives its own idea of a book: ours exact decimals; ccxt as it is set up by
default, with floats; cryptofeed a ticker. In turns, in one process, in processor time. Nine of ten frames repeat their
prices, as in a real market. ccxt has no reader of Gemini's present streams. For Bitstamp its reader of a book over HTTP
is measured, since that of the stream wants such a book first.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.figure import Aim, Effort, Row
from benchmarks.http_ratio import ratios
from benchmarks.made_frames import BOOKS, SUBSCRIBED_CHANNEL, SYMBOLS
from benchmarks.peers import ccxt, cryptofeed
from benchmarks.recorded import REPEATS
from cotacoes.feed_service.venues.registry import VENUES

Read = Callable[[bytes], Any]

FRAMES = 2_000
AIM_US = Aim(10.0)
LONG_US = Aim(40.0)  # Bitstamp's frame has a hundred levels a side
CCXT = Aim(5.0, is_floor=True)
LEVELS = 100


def measure(effort: Effort) -> list[Row]:
    return [row for venue in BOOKS for row in _measure(venue, effort)]


def _measure(venue: str, effort: Effort) -> list[Row]:
    frames = _frames(venue)
    readers = _readers(venue)
    costs: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(effort.runs):
        for name, read in readers.items():
            started = time.process_time()
            for frame in frames:
                read(frame)
            costs[name].append((time.process_time() - started) / len(frames) * 1e6)
    ours = costs.pop("ours")
    rows = [Row(f"frames {venue}", "us", ours, LONG_US if venue == "bitstamp" else AIM_US)]
    if "ccxt" in costs:
        aim = None if venue == "bitstamp" else CCXT
        rows.append(Row(f"frames {venue}, of ccxt", "times ccxt", ratios(costs["ccxt"], ours), aim))
    return rows + [Row(f"frames {venue} {name}", "us", found) for name, found in costs.items()]


def _readers(venue: str) -> dict[str, Read]:
    session = VENUES[venue].open([SYMBOLS[venue]])
    if venue == "bitfinex":
        session.read(SUBSCRIBED_CHANNEL)
    readers: dict[str, Read] = {"ours": session.read}
    if venue != "gemini":
        readers["ccxt"] = ccxt.book_reader(venue)
    if (read := cryptofeed.book_reader(venue)) is not None:
        readers["cryptofeed"] = read
    return readers


def _frames(venue: str) -> Sequence[bytes]:
    dice = random.Random(1)
    cents = 6_370_400
    made = []
    for _ in range(FRAMES):
        if dice.random() > REPEATS:
            cents += dice.randrange(-200, 201)
        made.append(made_frame(venue, cents))
    return made


def made_frame(venue: str, cents: int) -> bytes:
    """A frame of Bitcoin with this bid, and an ask one cent above it; Bitstamp's has a hundred levels a side."""
    frame = BOOKS[venue](_price(cents), _price(cents + 1))
    if venue != "bitstamp":
        return frame
    bids, asks = (
        ",".join(f'["{_price(first + step * level)}","0.12636254"]' for level in range(LEVELS))
        for first, step in ((cents, -1), (cents + 1, 1))
    )
    before, _, _ = frame.partition(b'"bids"')
    _, _, after = frame.rpartition(b"]]")
    return before + f'"bids":[{bids}],"asks":[{asks}]'.encode() + after


def _price(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
