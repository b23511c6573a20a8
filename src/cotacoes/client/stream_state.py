"""What a stream of several coins has told so far, and what its next frame means.

    frame ──▶ StreamState ──▶ the coin's Continuity ──▶ events
                          └─▶ the coin's Freshness  ──▶ stale_due

Quotes and gaps are in `continuity.py`. Here is decided when a coin is stale: the newest quote is older than the caller
takes. That is not so while an older quote has a successor on its way, as those have that are recovered after `since`:

    what comes                                        when the coin is stale
    nothing yet                                       `max_age_s` after the start
    a quote, young enough                             when it is `max_age_s` old
    the answer to a subscription after a position     not before it is known what comes after that
    a quote too old, recovered                        the same; if the link is lost, `max_age_s` from now
    a quote too old, not recovered                    now
    a heartbeat that says that nothing is behind      when the last quote is `max_age_s` old
    a heartbeat that does not say, two without news   the same

Pure: times are monotonic seconds, passed in, `at` is the time of day. `streaming.py` drives it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from cotacoes.client.continuity import Continuity, StreamEvent
from cotacoes.client.frames import Bye, Frame, Heartbeat, QuoteFrame, Subscribed, subscribe_message
from cotacoes.errors import ProblemError, StaleQuote, StreamMalformedError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap

UNANSWERED_BEATS_MAX = 6  # half a minute; the gateway has to wait with its answer while the history is away


class Freshness:
    """One coin; see the head of this file."""

    def __init__(self, max_age_s: float, now: float) -> None:
        self._max_age_s = max_age_s
        self._born_at = now  # when the newest quote was observed; before the first one the start
        self._due = now + max_age_s
        self._is_recovering = False
        self._has_moved = False  # since the last heartbeat

    @property
    def due(self) -> float:
        """When it is stale if nothing comes."""
        return math.inf if self._is_recovering else self._due

    def age(self, now: float) -> float:
        """Of the newest quote in seconds, or how long there was none."""
        return now - self._born_at

    def recover(self) -> None:
        """What comes after a position is on its way, or there is nothing."""
        self._is_recovering = self._has_moved = True

    def hear(self, age_s: float, now: float) -> None:
        """A quote came that was observed so long ago."""
        self._born_at, self._has_moved = now - age_s, True
        if self._is_recovering and age_s > self._max_age_s:
            self._due = now + self._max_age_s
        else:
            self._catch_up()

    def beat(self, *, is_behind: bool | None) -> None:
        """A heartbeat came: whether it says that more is on its way, None where it does not say."""
        if self._is_recovering and not (self._has_moved if is_behind is None else is_behind):
            self._catch_up()
        self._has_moved = False

    def lose(self) -> None:
        """The link is gone: nothing is on its way."""
        self._is_recovering = False

    def _catch_up(self) -> None:
        self._is_recovering, self._due = False, self._born_at + self._max_age_s


class StreamState:
    """See the head of this file. `since` is by coin what is known already; without `max_age_s` nothing is stale.

    `events` are to be taken from it; `bye` is what the server said before it closes.
    """

    def __init__(
        self,
        coins: Sequence[str],
        now: float,
        *,
        since: Mapping[str, Position] | None = None,
        mode: str = "every",
        max_age_s: float | None = None,
    ) -> None:
        since = since or {}
        self.events: deque[StreamEvent] = deque()
        self.bye: Bye | None = None
        self._mode = mode
        self._max_age_s = max_age_s
        self._coins = {coin: Continuity(coin, since.get(coin)) for coin in coins}
        self._freshness = {} if max_age_s is None else {coin: Freshness(max_age_s, now) for coin in coins}
        self._asked: dict[str, Position] = {}
        self._unanswered_beats = 0

    def subscribe(self) -> str:
        """The first message of a new connection."""
        asked = {coin: continuity.ask() for coin, continuity in self._coins.items()}
        self._asked = {coin: position for coin, position in asked.items() if position is not None}
        self._unanswered_beats = 0
        return subscribe_message(list(self._coins), self._mode, self._asked)

    def lose(self) -> None:
        """The connection is gone."""
        self.bye = None
        for freshness in self._freshness.values():
            freshness.lose()

    @property
    def stale_due(self) -> float:
        """When the first coin is stale if nothing comes."""
        return min((freshness.due for freshness in self._freshness.values()), default=math.inf)

    def stale(self, now: float) -> StaleQuote:
        """The coin that is stale first, as an error."""
        coin, freshness = min(self._freshness.items(), key=lambda item: item[1].due)
        return StaleQuote(coin, freshness.age(now))

    def apply(self, frame: Frame, now: float, at: datetime) -> None:
        """The next frame. StreamMalformedError where the connection is no good; a problem that was told is raised."""
        match frame:
            case QuoteFrame():
                self._hear(frame, now, at)
            case Gap():
                self.events += self._coin(frame.coin).miss(frame)
            case Subscribed():
                self._begin(frame)
            case Heartbeat():
                self._beat(frame)
            case Bye():
                self.bye = frame
            case ProblemError():
                raise frame
            case None:
                pass

    def _hear(self, told: QuoteFrame, now: float, at: datetime) -> None:
        quote = told.quote
        if told.is_newest == (self._mode == "every"):
            raise StreamMalformedError(f"{quote.coin}: a quote of another mode")
        events = self._coin(quote.coin).hear(told)
        self.events += events
        if self._freshness and events and isinstance(events[-1], Quote):
            age_s = max(0.0, (at - quote.observed_at).total_seconds())
            self._freshness[quote.coin].hear(age_s, now)

    def _begin(self, answer: Subscribed) -> None:
        if answer.mode != self._mode:
            raise StreamMalformedError("another mode than was asked for")
        for coin, begun in answer.coins.items():
            continuity = self._coin(coin)
            if self._freshness and coin in self._asked and not continuity.is_answered:
                self._freshness[coin].recover()
            self.events += continuity.begin(begun)

    def _beat(self, beat: Heartbeat) -> None:
        for coin, continuity in self._coins.items():
            if coin in beat.positions:
                position = beat.positions[coin]
                self.events += continuity.beat(position)
                if self._freshness and continuity.is_at(position):
                    self._freshness[coin].beat(is_behind=None if beat.behind is None else coin in beat.behind)
            elif continuity.is_answered:
                raise StreamMalformedError(f"{coin}: a heartbeat does not know that it was asked for")
        if not all(continuity.is_settled for continuity in self._coins.values()):
            self._unanswered_beats += 1
            if self._unanswered_beats > UNANSWERED_BEATS_MAX:
                raise StreamMalformedError("the subscription, or the gap that its answer announced, does not come")

    def _coin(self, coin: str) -> Continuity:
        if coin not in self._coins:
            raise StreamMalformedError("a coin that was not asked for")
        return self._coins[coin]
