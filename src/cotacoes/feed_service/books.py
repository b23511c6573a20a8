"""The newest book of each venue and coin, and how old it is. Pure; all times are seconds of the monotonic clock.

A book is as old as the venue's own time says, but clocks of venues are wrong by up to seconds. So only what is *added*
to the usual difference counts as a delay:

    delay = (received - exchange time) - usual        usual = the smallest difference of the last 5 minutes, at most 1 s
    as_of = received - delay

A clock that runs ahead makes the usual difference negative; one that is behind makes it larger, which is believed up to
1 s. Beyond that, the book is taken to be late: a price may look older than it is, never younger. The differences are
measured with the monotonic clock, and what our own wall clock said first is what the 1 s is held against, so setting it
changes no age. Only a wall clock that was wrong at first, and agrees with the venue later, is read anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cotacoes.model.quote import to_microseconds
from cotacoes.patterns.consensus import VenueBook

USUAL_WINDOW_S = 300.0
USUAL_STEP_S = 30.0  # the window moves in these steps
USUAL_MAX_S = 1.0  # no exchange is farther away; Bitstamp's first frames were 6.2 s old, and its clock was right
AHEAD_MAX_S = 5.0  # of a venue's clock that agrees with ours; one in a recording was 1.3 s ahead
DELAY_KEPT_S = 5.0  # for how long a delay that one frame showed is that of frames without a time


class VenueClock:
    """The clock of one venue, seen through what it sends. `wall_s` gives Unix seconds by our own clock."""

    def __init__(self, *, wall_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._lowest: deque[tuple[float, float]] = deque()  # (begin of the step, smallest difference in it), ascending
        self._to_wall_s: float | None = None  # from our monotonic clock to Unix seconds
        self._delay_s = 0.0
        self._delay_seen_s = float("-inf")
        self._untimed_as_of_s = float("-inf")
        self.skew_s: float | None = None  # ours minus the venue's, the way of the frames included

    def as_of_s(self, received_s: float, exchange_at: datetime | None) -> float:
        """The time that a frame is from. Without a time of its own, it is as late as the one before it."""
        if exchange_at is None:
            delay_s = self._delay_s if received_s - self._delay_seen_s <= DELAY_KEPT_S else 0.0
            # such frames come in their order: none is from before the last one
            self._untimed_as_of_s = max(self._untimed_as_of_s, received_s - delay_s)
            return self._untimed_as_of_s
        exchange_s = to_microseconds(exchange_at) / 1e6
        self._note(received_s, received_s - exchange_s)
        # not through the difference: two frames of the same time must not differ by a rounding error
        as_of_s = min(received_s, exchange_s + self._usual_s(received_s))
        self._delay_s, self._delay_seen_s = received_s - as_of_s, received_s
        return as_of_s

    def _usual_s(self, received_s: float) -> float:
        lowest_s = min(lowest for _, lowest in self._lowest)
        to_wall_s = self._wall_s() - received_s
        self.skew_s = lowest_s + to_wall_s
        if self._to_wall_s is None or (not _agrees(lowest_s + self._to_wall_s) and _agrees(self.skew_s)):
            self._to_wall_s = to_wall_s
        return min(lowest_s, USUAL_MAX_S - self._to_wall_s)

    def _note(self, received_s: float, difference_s: float) -> None:
        steps = self._lowest
        while steps and steps[0][0] < received_s - USUAL_WINDOW_S:
            steps.popleft()
        if steps and received_s - steps[-1][0] < USUAL_STEP_S:
            began_s, lowest_s = steps[-1]
            if difference_s < lowest_s:
                steps[-1] = began_s, difference_s
        else:
            steps.append((received_s, difference_s))


def _agrees(skew_s: float) -> bool:
    return -AHEAD_MAX_S <= skew_s <= USUAL_MAX_S


@dataclass(frozen=True, slots=True)
class HeldBook:
    """A book, and when it came."""

    book: VenueBook
    received_s: float

    @property
    def delay_s(self) -> float:
        """How late it came."""
        return self.received_s - self.book.as_of_s


class Books:
    """The newest book of each coin at each venue. Of two books of one venue and coin, the later one stays."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, HeldBook]] = {}  # by coin, then by venue
        self._moved: set[str] = set()

    def note(self, coin: str, book: VenueBook, *, received_s: float) -> None:
        """Hold a book of a coin."""
        held = self._held.setdefault(coin, {})
        before = held.get(book.venue)
        if before is None or book.as_of_s >= before.book.as_of_s:
            held[book.venue] = HeldBook(book, received_s)
            self._moved.add(coin)

    def of(self, coin: str) -> dict[str, HeldBook]:
        """The books of a coin, by venue."""
        return self._held.get(coin, {})

    def pop_moved(self) -> set[str]:
        """The coins that a book came for since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def heard_since(self, coin: str, since_s: float, *, besides: str) -> int:
        """How many other venues have sent this coin since then."""
        return sum(held.received_s > since_s for venue, held in self._held.get(coin, {}).items() if venue != besides)
