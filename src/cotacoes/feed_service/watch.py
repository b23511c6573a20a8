"""Whether a connection to a venue is alive: rules over what it sends. Pure; times are seconds of the monotonic clock.

A connection that is open, and even one that sends, can be dead. Each rule ends the connection, with its reason:

    silent    no frame for three times the longest silence that the venue promises, at least 5 s
    never     a coin is subscribed to, and no book of it came within 10 s
    stalled   no book of a coin for 10 s, or 20 times its usual gap, at most 60 s; and two other venues sent the coin
    frozen    for 60 s a coin has kept its price although the consensus has moved by more than 50 bps since
    gapped    more than 10 jumps of the venue's sequence number within a minute

If no other venue sends the coin either, the market is quiet: the age of the price grows, and nothing is done. A
snapshot answers a subscription, so it proves nothing: a coin is live from its second book.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

LIVE_BOOKS = 2

RHYTHM_STEPS = 32  # of a gap's length, each half as long again as the one before: from 10 ms to over an hour
RHYTHM_FIRST_S, RHYTHM_FACTOR = 0.01, 1.5
RHYTHM_KEPT_S = 1800.0  # the last hour, in two halves


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """The limits of the rules; names end in their unit."""

    silent_heartbeats: int = 3
    silent_min_s: float = 5.0
    never_s: float = 10.0
    stalled_min_s: float = 10.0
    stalled_max_s: float = 60.0
    stalled_gaps: float = 20.0  # of the gap that only one in a hundred exceeds
    stalled_others: int = 2  # venues that must have sent the coin meanwhile
    frozen_move: Decimal = Decimal("0.005")  # 50 bps
    frozen_s: float = 60.0
    gaps_max: int = 10
    gaps_window_s: float = 60.0

    def __post_init__(self) -> None:
        assert 0 < self.stalled_min_s <= self.stalled_max_s
        assert min(self.silent_min_s, self.never_s, self.frozen_s, self.gaps_window_s) > 0


WATCH_LIMITS = WatchLimits()


class EndReason(enum.StrEnum):
    """Why the watch ends a connection."""

    SILENT = "silent"
    NEVER = "never"
    STALLED = "stalled"
    FROZEN = "frozen"
    GAPPED = "gapped"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection must end; `coin` is the one that shows it, None if it is the connection as a whole."""

    reason: EndReason
    text: str
    coin: str | None = None


class Rhythm:
    """The gaps between the books of one coin at one venue within the last hour; it outlives connections."""

    def __init__(self) -> None:
        self._halves: deque[list[int]] = deque([[0] * RHYTHM_STEPS], maxlen=2)
        self._half_began_s: float | None = None
        self._last_s: float | None = None

    def note_book(self, now_s: float) -> None:
        """A book has come."""
        if self._half_began_s is None or now_s - self._half_began_s > RHYTHM_KEPT_S:
            self._half_began_s = now_s
            self._halves.append([0] * RHYTHM_STEPS)
        if self._last_s is not None:
            self._halves[-1][_step_of(now_s - self._last_s)] += 1
        self._last_s = now_s

    def note_break(self) -> None:
        """The connection has ended: the next gap is not the venue's."""
        self._last_s = None

    def stalled_after_s(self, limits: WatchLimits = WATCH_LIMITS) -> float:
        """After how long without a book the coin counts as stalled."""
        counts = [sum(half[step] for half in self._halves) for step in range(RHYTHM_STEPS)]
        beyond = sum(counts) // 100  # the longest gaps, one in a hundred
        for step in reversed(range(RHYTHM_STEPS)):
            beyond -= counts[step]
            if beyond < 0:
                usual_s = RHYTHM_FIRST_S * RHYTHM_FACTOR**step
                return min(max(limits.stalled_min_s, limits.stalled_gaps * usual_s), limits.stalled_max_s)
        return limits.stalled_min_s


def _step_of(gap_s: float) -> int:
    step, bound_s = 0, RHYTHM_FIRST_S
    while gap_s > bound_s and step < RHYTHM_STEPS - 1:
        step, bound_s = step + 1, bound_s * RHYTHM_FACTOR
    return step


@dataclass(slots=True)
class _Coin:
    rhythm: Rhythm
    since_s: float  # of the subscription, then of the last book
    books: int = 0
    top: tuple[Decimal, Decimal] | None = None
    price_then: Decimal | None = None  # the consensus when the book last changed
    frozen_since_s: float | None = None


@dataclass
class Watch:
    """The watch over one connection. `heard_since` counts the other venues that have sent a coin since a time.

    `heartbeat_s` is the longest silence that the venue promises; None if it promises nothing.
    """

    heartbeat_s: float | None
    heard_since: Callable[[str, float], int]
    opened_s: float
    limits: WatchLimits = WATCH_LIMITS
    _coins: dict[str, _Coin] = field(default_factory=dict)
    _frame_s: float = 0.0
    _gaps: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._frame_s = self.opened_s
        self._gaps = deque(maxlen=self.limits.gaps_max + 1)

    def expect(self, coins: Iterable[tuple[str, Rhythm]]) -> None:
        """These coins are subscribed to."""
        for coin, rhythm in coins:
            rhythm.note_break()
            self._coins[coin] = _Coin(rhythm, self.opened_s)

    def give_up(self, coin: str) -> None:
        """The venue does not have this coin."""
        self._coins.pop(coin, None)

    def note_frame(self, now_s: float) -> None:
        """A frame of any kind has come."""
        self._frame_s = now_s

    def note_book(self, coin: str, now_s: float, top: tuple[Decimal, Decimal], price: Decimal | None) -> bool:
        """A book has come, while the consensus is `price`; returns whether the coin is live by now."""
        seen = self._coins.get(coin)
        if seen is None:
            return False
        seen.rhythm.note_book(now_s)
        seen.since_s = now_s
        seen.books += 1
        if top != seen.top or seen.price_then is None:
            seen.top, seen.price_then, seen.frozen_since_s = top, price, None
        elif price is not None and abs(price - seen.price_then) > self.limits.frozen_move * seen.price_then:
            seen.frozen_since_s = now_s if seen.frozen_since_s is None else seen.frozen_since_s
        else:
            seen.frozen_since_s = None
        return seen.books >= LIVE_BOOKS

    def note_gap(self, now_s: float) -> None:
        """The venue's sequence number has jumped."""
        self._gaps.append(now_s)

    def verdict(self, now_s: float) -> Ending | None:
        """Why the connection must end; None if it need not."""
        limits, silence_s = self.limits, now_s - self._frame_s
        if self.heartbeat_s is not None and silence_s > max(
            limits.silent_heartbeats * self.heartbeat_s, limits.silent_min_s
        ):
            return Ending(EndReason.SILENT, f"no frame for {silence_s:.0f} s")
        if len(self._gaps) > limits.gaps_max and now_s - self._gaps[0] <= limits.gaps_window_s:
            return Ending(
                EndReason.GAPPED,
                f"more than {limits.gaps_max} gaps in the sequence within {limits.gaps_window_s:.0f} s",
            )
        for coin, seen in self._coins.items():
            if ending := self._verdict_on(coin, seen, now_s):
                return ending
        return None

    def _verdict_on(self, coin: str, seen: _Coin, now_s: float) -> Ending | None:
        limits, waited_s = self.limits, now_s - seen.since_s
        if not seen.books:
            return Ending(EndReason.NEVER, f"no book of {coin} came", coin) if waited_s > limits.never_s else None
        if waited_s > seen.rhythm.stalled_after_s(limits) and (
            self.heard_since(coin, seen.since_s) >= limits.stalled_others
        ):
            return Ending(EndReason.STALLED, f"no book of {coin} for {waited_s:.0f} s", coin)
        if seen.frozen_since_s is not None and now_s - seen.frozen_since_s > limits.frozen_s:
            return Ending(EndReason.FROZEN, f"{coin} keeps its price while the market moves", coin)
        return None
