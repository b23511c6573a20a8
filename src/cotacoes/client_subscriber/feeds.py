"""What the subscriber knows of each coin's feed, and what a message means for whoever watches.

    message ──▶ decode, screen ──▶ FeedPosition ──▶ Missed, Seen
    time    ─────────────────────▶ FeedSilence  ──▶ Silent … Back

Pure: times are monotonic seconds, passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from cotacoes.live import Heartbeat, channel, decode_message
from cotacoes.patterns.pub_sub import MESSAGE_BYTES_MAX, FeedPosition, FeedSilence, Gap
from cotacoes.quote import CURRENCY_PATTERN, EPOCH_MAX, ORIGIN_PATTERN, SEQ_MAX, Position, Quote

SILENT_AFTER_S = 5.0  # five heartbeats missed


@dataclass(frozen=True, slots=True)
class Seen:
    """A new quote; `before` is the price seen before it, None on the first."""

    quote: Quote
    before: Decimal | None


@dataclass(frozen=True, slots=True)
class Missed:
    """Something was not received."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class Silent:
    """A coin's feed has said nothing for `SILENT_AFTER_S`, not even a heartbeat."""

    coin: str


@dataclass(frozen=True, slots=True)
class Back:
    """A silent feed says something again."""

    coin: str


Event = Seen | Missed | Silent | Back


class Feeds:
    """See the head of this file."""

    def __init__(self, coins: Iterable[str], now: float) -> None:
        self._positions: dict[str, FeedPosition] = {}
        self._silences: dict[str, FeedSilence] = {}
        self._prices: dict[str, Decimal] = {}
        self._coins: dict[str, str] = {}
        self.add(coins, now)

    def add(self, coins: Iterable[str], now: float) -> list[str]:
        """Know these coins as well, from now on; those that are new."""
        new = [coin for coin in dict.fromkeys(coins) if coin not in self._positions]
        self._positions |= {coin: FeedPosition(coin) for coin in new}
        self._silences |= {coin: FeedSilence(SILENT_AFTER_S, now) for coin in new}
        self._coins |= {channel(coin): coin for coin in new}
        return new

    @property
    def channels(self) -> list[str]:
        return list(self._coins)

    @property
    def known(self) -> dict[str, Position | None]:
        """By coin the last position accounted for; None where nothing was heard of it."""
        return {coin: position.known for coin, position in self._positions.items()}

    def take(self, from_channel: str, message: bytes, now: float) -> list[Event]:
        """What a message means; ValueError where it is none of ours, which changes nothing."""
        coin = self._coins[from_channel]
        lines = _screened(coin, message)
        events: list[Event] = [Back(coin)] if self._silences[coin].hear(now) else []
        for line in lines:
            events += self._take_line(coin, line)
        return events

    def _take_line(self, coin: str, line: Quote | Heartbeat) -> Iterator[Event]:
        heard = self._positions[coin].take(line)
        if heard.gap is not None:
            yield Missed(heard.gap)
        if heard.is_new and isinstance(line, Quote):
            yield Seen(line, self._prices.get(coin))
            self._prices[coin] = line.price

    def fall_silent(self, now: float) -> list[Event]:
        """Those feeds whose time is over."""
        return [Silent(coin) for coin, silence in self._silences.items() if silence.fall_silent(now)]

    def rearm(self, now: float) -> None:
        """Nobody listened until now, so no feed can be blamed for silence before."""
        for silence in self._silences.values():
            if not silence.is_silent:
                silence.hear(now)


def _screened(coin: str, message: bytes) -> list[Quote | Heartbeat]:
    """The lines of a message; its texts end up on a terminal, so they are screened like a source's."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {len(message)} bytes, more than {MESSAGE_BYTES_MAX}")
    try:
        lines = decode_message(message)
    except RecursionError as error:
        raise ValueError("not a live message: nested too deep") from error
    for line in lines:
        if line.coin != coin:
            raise ValueError("a message of another coin")
        if isinstance(line, Quote) and not (
            CURRENCY_PATTERN.match(line.currency) and ORIGIN_PATTERN.match(line.origin)
        ):
            raise ValueError("a currency or an origin that is none")
        if not _is_in_order(line.prev, line.position):
            raise ValueError("a position that is none")
    return lines


def _is_in_order(prev: Position | None, position: Position | None) -> bool:
    """Whether both are positions, where there are any, and of two eras, the earlier first."""
    if any(not (0 <= p.epoch <= EPOCH_MAX and 0 < p.seq <= SEQ_MAX) for p in (prev, position) if p is not None):
        return False
    return prev is None or (position is not None and prev.epoch < position.epoch)
