"""What a venue's file gives: how it answers a client, and how it writes a book. It does no input or output.

    Session                       one for each connection
      ├─ welcome()     ──▶ frames right after the handshake
      ├─ on_message(…) ──▶ frames that answer a client; subscriptions begin and end here, with a snapshot if it has one
      ├─ frame(top)    ──▶ the book of a subscribed symbol
      ├─ beside(top)   ──▶ what it sends beside books, such as a trade
      ├─ heartbeat()   ──▶ the frame of each second, or None
      └─ farewell()    ──▶ frames that announce maintenance

A session asks its Floor for what all connections of the venue share: symbols, books, the clock, the faults.
"""

from __future__ import annotations

import abc
import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import ClassVar, Protocol, TypeVar

import msgspec

from cotacoes.external_service.venues.prices import Character

SUBSCRIPTIONS_MAX = 1_000  # of one connection; Binance allows 1,024 streams
TEXT_CHARACTERS_MAX = 100  # of what a client sent, when it is repeated to it

RequestT = TypeVar("RequestT")


@dataclass(frozen=True, slots=True)
class Top:
    """The best bid and ask of a symbol, each with its size. A side is None if the book lacks it.

    `at_ns` is the venue's time, in nanoseconds since 1970; `number` rises by one with each book of the venue.
    """

    symbol: str
    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal
    ask_size: Decimal
    last: Decimal
    unit: Decimal
    at_ns: int
    number: int


class Decision(enum.Enum):
    """What becomes of a subscription."""

    OPEN = enum.auto()
    UNKNOWN = enum.auto()
    REFUSED = enum.auto()
    IGNORED = enum.auto()


class Floor(Protocol):
    """What all connections of a venue share."""

    random: Random

    def decide(self, symbol: str) -> Decision:
        """What becomes of a subscription to the symbol."""
        ...

    def top(self, symbol: str, *, late_s: float = 0.0) -> Top:
        """The book of a known symbol, as it was `late_s` seconds ago."""
        ...

    def now_ns(self) -> int:
        """The venue's time, in nanoseconds since 1970."""
        ...


class Session(abc.ABC):
    """One connection to a venue. `symbols` are those whose books it gets."""

    name: ClassVar[str]
    character: ClassVar[Character]
    currencies: ClassVar[tuple[str, ...]]  # in which it quotes coins
    silence_s_max: ClassVar[float | None] = None  # after which it closes a connection
    ping_s: ClassVar[float | None] = None  # between two pings of its own
    beats_in_silence_only: ClassVar[bool] = False
    late_starts_s: ClassVar[tuple[float, ...]] = ()  # the ages of the first books after a subscription

    def __init__(self, floor: Floor, query: str = "") -> None:
        """`query` is that of the handshake's URL."""
        self.floor = floor
        self.symbols: dict[str, None] = {}  # in the order of subscription
        self.has_subscribed = False

    def welcome(self) -> Sequence[bytes]:
        return ()

    @abc.abstractmethod
    def on_message(self, text: bytes) -> Sequence[bytes]:
        """The answers to a message; one that cannot be read is answered as the venue does."""

    @abc.abstractmethod
    def frame(self, top: Top) -> bytes:
        """The book of a subscribed symbol."""

    def beside(self, top: Top) -> bytes | None:
        """A frame beside a book, with the prices of the book."""
        return None

    def missed(self, symbol: str) -> None:  # noqa: B027  # most venues have nothing to do
        """The client did not read, so it did not get the last frame of the symbol."""

    def heartbeat(self) -> bytes | None:
        return None

    def farewell(self) -> Sequence[bytes]:
        return ()

    def subscribe(self, symbol: str) -> Decision:
        """Decide, and subscribe if the symbol is open and there is room."""
        decision = self.floor.decide(symbol)
        if decision is Decision.OPEN:
            if symbol not in self.symbols and len(self.symbols) >= SUBSCRIPTIONS_MAX:
                return Decision.REFUSED
            self.symbols[symbol] = None
            self.has_subscribed = True
        return decision


def reader(request: type[RequestT]) -> Callable[[bytes], RequestT | None]:
    """A function that reads a client's message; None if it cannot be read."""
    decode = msgspec.json.Decoder(request).decode

    def read(text: bytes) -> RequestT | None:
        try:
            return decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    return read


def number(price: Decimal) -> Decimal:
    """The price as a venue writes JSON numbers: without trailing zeros and without an exponent."""
    short = price.normalize()
    exponent = short.as_tuple().exponent
    return short.quantize(Decimal(1)) if isinstance(exponent, int) and exponent > 0 else short


def plain(price: Decimal | None) -> str:
    """The digits as they stand; empty if there is no price."""
    return "" if price is None else f"{price:f}"


def utc_text(at_ns: int, places: int) -> str:
    """`2026-08-12T19:27:33.489674268Z` with nine places."""
    seconds, beyond = divmod(at_ns, 1_000_000_000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{beyond:09d}"[: len(whole) + 1 + places] + "Z"


encode = msgspec.json.Encoder(decimal_format="number").encode  # a price that is to be a string is formatted before
