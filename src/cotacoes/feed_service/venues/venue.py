"""What a venue's file gives: how to subscribe, and what each frame of the venue says. It does no input or output.

    Venue                    constant facts: address, heartbeat, lifetime, symbols
      └─ open(symbols) ──▶ Session             one for each connection, since some protocols have state
            ├─ opening()  ──▶ frames to send right after the connection is open
            └─ read(frame) ─▶ events: Book, ClockSeen, Alive, Subscribed, SubscriptionRefused, Leaving, SequenceGap

Every frame that a venue is known to send is read. One that cannot be read is a FrameError; it is counted and skipped.
Digits are taken from the bytes as they stand, by `read_price`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from cotacoes.errors import FrameError
from cotacoes.errors.values import explain_message
from cotacoes.model.quote import EPOCH_START, PRICE_TEXT_MAX, PriceError, parse_number, parse_price, parse_time
from cotacoes.model.venue_symbols import spell

_UNIX_DIGITS_MAX = 19
_REASON_MAX = 200


class Book(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask of a symbol. `exchange_at` is None if the venue gives no time.

    A snapshot answers a subscription, so it does not show that the stream is alive.
    """

    symbol: str
    bid: Decimal
    ask: Decimal
    exchange_at: datetime | None = None
    is_snapshot: bool = False


class ClockSeen(msgspec.Struct, frozen=True, gc=False):
    """The venue's own time, in a frame that holds no book."""

    exchange_at: datetime


class Alive(msgspec.Struct, frozen=True, gc=False):
    """A heartbeat, a pong, or any other frame without a book."""


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """The venue has confirmed a subscription."""


class SubscriptionRefused(msgspec.Struct, frozen=True, gc=False):
    """The venue refused a subscription; `symbol` is None if it does not say which."""

    symbol: str | None
    reason: str


class Leaving(msgspec.Struct, frozen=True, gc=False):
    """The venue is about to close the connection, or is under maintenance."""

    reason: str


class SequenceGap(msgspec.Struct, frozen=True, gc=False):
    """The venue's sequence number jumped: this many frames were lost."""

    frames: int


Event = Book | ClockSeen | Alive | Subscribed | SubscriptionRefused | Leaving | SequenceGap


class Session(Protocol):
    """One connection to a venue."""

    def opening(self) -> Sequence[str]:
        """The frames to send once the connection is open."""
        ...

    def read(self, frame: bytes) -> Sequence[Event]:
        """What the frame says, in its order; FrameError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Venue:
    """The constant facts of a venue.

    `heartbeat_s` is the longest silence on a healthy connection; None if the venue promises none.
    `lifetime_s` is after how long the venue itself ends a connection.
    `ping` is a text to send every `ping_s`, which the venue answers. `pause_s` is the shortest time between two frames
    to the venue; it disconnects clients that send faster.
    """

    name: str
    url: str
    session: Callable[[Sequence[str]], Session]
    heartbeat_s: float | None = None
    lifetime_s: float | None = None
    ping: str | None = None
    ping_s: float = 20.0
    pause_s: float = 0.0

    def symbol(self, base: str, currency: str) -> str:
        """The venue's symbol for a pair such as BTC, USDT."""
        return spell(self.name, base, currency)

    def open(self, symbols: Sequence[str]) -> Session:
        """A session that subscribes to these symbols."""
        return self.session(symbols)


ALIVE: Sequence[Event] = (Alive(),)
SUBSCRIBED: Sequence[Event] = (Subscribed(),)

_EMPTY = {"", '""', "null"}  # the price of a side without orders, beside zero
_T = TypeVar("_T")


def decode(decoder: msgspec.json.Decoder[_T], frame: bytes | msgspec.Raw) -> _T:
    """The frame, or a part of it; FrameError if it is not JSON of the expected shape."""
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the frame cannot be read: {explain_message(error)}") from error


def read_price(raw: msgspec.Raw | bytes) -> Decimal | None:
    """The price in a JSON string or number, with the digits that stand there; None for a side without orders.

    FrameError for anything else, a string with escapes included, since its digits do not stand in the frame.
    """
    return _read_token(bytes(memoryview(raw)[: PRICE_TEXT_MAX + 3]))  # one more than the longest price with quotes


@lru_cache(maxsize=1024)  # a venue's next book mostly has a price of the one before
def _read_token(token: bytes) -> Decimal | None:
    text = str(token, "ascii", "replace")
    if text in _EMPTY:
        return None
    try:
        return parse_price(text[1:-1]) if text[0] == '"' else parse_number(text)
    except PriceError as error:
        if error.reason == "zero":
            return None
        raise FrameError(f"a price cannot be read: {error}") from error


def read_book(
    symbol: str,
    bid: msgspec.Raw | bytes,
    ask: msgspec.Raw | bytes,
    *,
    exchange_at: datetime | None = None,
    is_snapshot: bool = False,
) -> Event:
    """The book, or Alive if one of its sides has no orders; FrameError if a price cannot be read."""
    best_bid, best_ask = read_price(bid), read_price(ask)
    if best_bid is None or best_ask is None:
        return ALIVE[0]
    return Book(symbol, best_bid, best_ask, exchange_at, is_snapshot)


def read_time(text: str) -> datetime:
    """An RFC 3339 time, cut to microseconds; FrameError for anything else."""
    try:
        return parse_time(text)
    except ValueError as error:
        raise FrameError(f"a time cannot be read: {error}") from error


def read_unix(count: int | str, unit: timedelta) -> datetime:
    """A time since 1970 in this unit, which some venues write as a string; FrameError for anything else."""
    if isinstance(count, str):
        if not (count.isascii() and count.isdigit() and len(count) <= _UNIX_DIGITS_MAX):
            raise FrameError("a time cannot be read: it is not a count")
        count = int(count)
    try:
        return EPOCH_START + count * unit
    except OverflowError as error:
        raise FrameError("a time cannot be read: it is out of range") from error


def symbol_in(text: str, symbols: Iterable[str]) -> str | None:
    """The symbol that a refusal names in its text, if it is one of these."""
    shown = text[:_REASON_MAX]
    return next((one for one in symbols if re.search(rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z0-9])", shown)), None)


def shorten(text: str) -> str:
    """A venue's own words, at a length and in characters that a log line can bear."""
    return ascii(text[:_REASON_MAX])[1:-1]
