"""StreamState: what a stream of several coins has received so far, and what its next frame means.

    frame ──▶ StreamState ──▶ the coin's Continuity ──▶ events
                          └─▶ the coin's Freshness  ──▶ stale_due

`continuity.py` handles quotes and gaps. Here is decided when a coin is stale: its newest quote is older than the caller
accepts. An older quote does not count while newer ones are on their way, as after a recovery from `since`:

    received                                          the coin becomes stale
    nothing yet                                       `max_age_s` after the start
    a quote, young enough                             when it is `max_age_s` old
    the answer to a subscription after a position     not before it is known what comes after that
    a quote too old, while recovering                 the same; if the link is lost, `max_age_s` from now
    a quote too old, otherwise                        now
    a heartbeat that says nothing is behind           when the last quote is `max_age_s` old
    a heartbeat that does not say, twice without news the same

This module is pure: times are monotonic seconds, passed in; `at` is the time of day. `stream.py` drives it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from cotacoes.client.continuity import Continuity, StreamEvent
from cotacoes.client.frames import Bye, Frame, QuoteFrame, StreamHeartbeat, Subscribed, subscribe_message
from cotacoes.errors import ProblemError, StaleQuote, StreamMalformedError
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap

UNANSWERED_BEATS_MAX = 6  # half a minute; the gateway's answer waits while the history is away


class Freshness:
    """The freshness of one coin."""

    def __init__(self, max_age_s: float, now: float) -> None:
        self._max_age_s = max_age_s
        self._born_at = now  # when the newest quote was observed; before the first, the start
        self._due = now + max_age_s
        self._is_recovering = False
        self._has_moved = False  # since the last heartbeat

    @property
    def due(self) -> float:
        """When the coin becomes stale if nothing comes."""
        return math.inf if self._is_recovering else self._due

    def age(self, now: float) -> float:
        """The age of the newest quote in seconds, or how long there has been none."""
        return now - self._born_at

    def recover(self) -> None:
        """Note that everything after a position is on its way, if there is anything."""
        self._is_recovering = self._has_moved = True

    def hear(self, age_s: float, now: float) -> None:
        """Note a quote that was observed `age_s` ago."""
        self._born_at, self._has_moved = now - age_s, True
        if self._is_recovering and age_s > self._max_age_s:
            self._due = now + self._max_age_s
        else:
            self._catch_up()

    def beat(self, *, is_behind: bool | None) -> None:
        """Note a heartbeat; `is_behind` if it says that more is on its way, None if it does not say."""
        if self._is_recovering and not (self._has_moved if is_behind is None else is_behind):
            self._catch_up()
        self._has_moved = False

    def lose(self) -> None:
        """Note that the link is lost: nothing is on its way."""
        self._is_recovering = False

    def _catch_up(self) -> None:
        self._is_recovering, self._due = False, self._born_at + self._max_age_s


class StreamState:
    """The state of a stream. A coin in `since` begins after that position; without `max_age_s` nothing becomes stale.

    `events` wait for the caller; `bye` is the goodbye of a server that is about to close.
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
        """The first message on a new connection."""
        asked = {coin: continuity.ask() for coin, continuity in self._coins.items()}
        self._asked = {coin: position for coin, position in asked.items() if position is not None}
        self._unanswered_beats = 0
        return subscribe_message(list(self._coins), self._mode, self._asked)

    def lose(self) -> None:
        """Note that the connection is lost."""
        self.bye = None
        for freshness in self._freshness.values():
            freshness.lose()

    @property
    def stale_due(self) -> float:
        """When the first coin becomes stale if nothing comes."""
        return min((freshness.due for freshness in self._freshness.values()), default=math.inf)

    def stale(self, now: float) -> StaleQuote:
        """The error for the coin that becomes stale first."""
        coin, freshness = min(self._freshness.items(), key=lambda item: item[1].due)
        return StaleQuote(coin, freshness.age(now))

    def apply(self, frame: Frame, now: float, at: datetime) -> None:
        """Apply the next frame; raise the problem in it, or StreamMalformedError if the connection is useless."""
        match frame:
            case QuoteFrame():
                self._receive_quote(frame, now, at)
            case Gap():
                self.events += self._coin(frame.coin).miss(frame)
            case Subscribed():
                self._begin(frame)
            case StreamHeartbeat():
                self._beat(frame)
            case Bye():
                self.bye = frame
            case ProblemError():
                raise frame
            case None:
                pass

    def _receive_quote(self, frame: QuoteFrame, now: float, at: datetime) -> None:
        quote = frame.quote
        if frame.is_newest == (self._mode == "every"):
            raise StreamMalformedError(f"{quote.coin}: the quote belongs to another mode")
        events = self._coin(quote.coin).hear(frame)
        self.events += events
        if self._freshness and events and isinstance(events[-1], Quote):
            age_s = max(0.0, (at - quote.observed_at).total_seconds())
            self._freshness[quote.coin].hear(age_s, now)

    def _begin(self, answer: Subscribed) -> None:
        if answer.mode != self._mode:
            raise StreamMalformedError("the answer has another mode than the request")
        for coin, begun in answer.coins.items():
            continuity = self._coin(coin)
            if self._freshness and coin in self._asked and not continuity.is_answered:
                self._freshness[coin].recover()
            self.events += continuity.begin(begun)

    def _beat(self, beat: StreamHeartbeat) -> None:
        for coin, continuity in self._coins.items():
            if coin in beat.positions:
                position = beat.positions[coin]
                self.events += continuity.beat(position)
                if self._freshness and continuity.is_at(position):
                    self._freshness[coin].beat(is_behind=None if beat.behind is None else coin in beat.behind)
            elif continuity.is_answered:
                raise StreamMalformedError(f"{coin}: missing in a heartbeat, although it was requested")
        if not all(continuity.is_settled for continuity in self._coins.values()):
            self._unanswered_beats += 1
            if self._unanswered_beats > UNANSWERED_BEATS_MAX:
                raise StreamMalformedError(
                    "the answer to the subscription, or the gap that it announced, does not come"
                )

    def _coin(self, coin: str) -> Continuity:
        if coin not in self._coins:
            raise StreamMalformedError("a coin that was not requested")
        return self._coins[coin]
