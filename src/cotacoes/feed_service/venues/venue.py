"""What a venue's file gives: how to subscribe, and what each frame of the venue says. It does no input or output.

    Venue                    constant facts: address, heartbeat, lifetime, symbols
      └─ open(symbols) ──▶ Session             one for each connection, since some protocols have state
            ├─ opening()  ──▶ frames to send right after the connection is open
            └─ read(frame) ─▶ events: Book, ClockSeen, Alive, Subscribed, SubscriptionRefused, Leaving, SequenceGap

Every frame that a venue is known to send is read. One that cannot be read is a FrameError; it is counted and skipped.
Digits are taken from the bytes as they stand, by `read_price`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from cotacoes.errors import FrameError
from cotacoes.model.quote import PRICE_TEXT_MAX, PriceError, parse_number, parse_price


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


class Venue(Protocol):
    """The constant facts of a venue.

    `heartbeat_s` is the longest silence that the venue promises on a healthy connection; None if it promises none.
    `lifetime_s` is after how long the venue itself ends a connection. `ping` is a text to send every `ping_s`.
    """

    name: str
    url: str
    heartbeat_s: float | None
    lifetime_s: float | None
    ping: str | None
    ping_s: float

    def symbol(self, base: str, currency: str) -> str:
        """The venue's symbol for a pair such as BTC, USDT."""
        ...

    def open(self, symbols: Sequence[str]) -> Session:
        """A session that subscribes to these symbols."""
        ...


_text = msgspec.json.Decoder(str)


def read_price(raw: msgspec.Raw) -> Decimal:
    """The price in a JSON string or number, with every digit; FrameError for anything else."""
    token = bytes(memoryview(raw)[: PRICE_TEXT_MAX + 3])
    try:
        if token[:1] == b'"':
            return parse_price(_text.decode(raw) if len(token) <= PRICE_TEXT_MAX + 2 else "")
        return parse_number(token.decode("ascii", "replace"))
    except (PriceError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"a price cannot be read ({error})") from error
