"""Feeds: the state of each coin's feed on Redis, and what a message means for its consumer.

    message ──▶ decode, check ──▶ Recovery    ──▶ QuoteReceived, GapDetected, GapFilled, GapLost, Retracted, Dismissed
    history ────────────────────▶ Recovery    ──▶ the same
    time    ────────────────────▶ FeedSilence ──▶ Silent … Back

This module is pure: times are monotonic seconds, passed in. For silence the clock must stop while nobody listens, since
no feed is to blame for that. `consumer.py` drives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cotacoes.model.live_message import CHANNEL_PREFIX, Heartbeat, channel, decode_lines, require_valid
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub import recovery_events
from cotacoes.patterns.pub_sub.bus import MESSAGE_BYTES_MAX, FeedSilence
from cotacoes.patterns.pub_sub.recovery import Recovery
from cotacoes.patterns.pub_sub.recovery_events import Ignored

SILENT_AFTER_S = 5.0  # five heartbeats missed
FIRST_WORD_S = 30.0  # before the first heartbeat: the first start of a system took 20 s on a busy machine


@dataclass(frozen=True, slots=True)
class Silent:
    """A coin's feed has sent nothing for `SILENT_AFTER_S`, not even a heartbeat, or nothing since the start."""

    coin: str


@dataclass(frozen=True, slots=True)
class Back:
    """A silent feed has sent something again."""

    coin: str


FeedEvent = recovery_events.RecoveryEvent | Silent | Back


class IgnoredMessageError(ValueError):
    """A message is ignored: it does not come from the coin's own writer."""

    def __init__(self, detail: str, reason: Ignored = Ignored.MALFORMED) -> None:
        super().__init__(detail)
        self.reason = reason


class Feeds:
    """The feeds of several coins.

    A coin in `since` begins after that position, any other with its `start_quotes` newest quotes. `prefix` is that of
    the channels.
    """

    def __init__(
        self,
        coins: Iterable[str],
        now: float,
        *,
        since: Mapping[str, Position] | None = None,
        start_quotes: int = 1,
        prefix: str = CHANNEL_PREFIX,
    ) -> None:
        self._prefix = prefix
        self._since = since or {}
        self._start_quotes = start_quotes
        self._recoveries: dict[str, Recovery] = {}
        self._silences: dict[str, FeedSilence] = {}
        self._coins: dict[str, str] = {}
        self.add(coins, now)

    def add(self, coins: Iterable[str], now: float) -> list[str]:
        """Add coins, and return those that are new."""
        new = [coin for coin in dict.fromkeys(coins) if coin not in self._recoveries]
        self._recoveries |= {
            coin: Recovery(coin, self._since.get(coin), start_quotes=self._start_quotes) for coin in new
        }
        self._silences |= {coin: FeedSilence(SILENT_AFTER_S, now, FIRST_WORD_S) for coin in new}
        self._coins |= {self.channel(coin): coin for coin in new}
        return new

    def channel(self, coin: str) -> str:
        """The channel on which the coin's messages are published."""
        return channel(coin, self._prefix)

    def __getitem__(self, coin: str) -> Recovery:
        return self._recoveries[coin]

    def has_begun(self, coin: str) -> bool:
        """Whether the position of the coin's feed is known."""
        return coin in self._recoveries and self._recoveries[coin].has_begun

    @property
    def coins(self) -> list[str]:
        return list(self._recoveries)

    @property
    def silent(self) -> list[str]:
        """The coins whose feeds are silent now."""
        return [coin for coin, silence in self._silences.items() if silence.is_silent]

    def receive(self, from_channel: str, message: bytes, now: float) -> tuple[str, list[FeedEvent]]:
        """The coin of a message and its events. IgnoredMessageError if it is not ours; it then changes nothing."""
        coin = self._coins[from_channel]
        try:
            lines = _validated(coin, message)
        except IgnoredMessageError as error:
            self._recoveries[coin].ignored[error.reason] += 1
            raise
        recovery = self._recoveries[coin]
        ignored = recovery.ignored_lines
        events: list[FeedEvent] = []
        for line, text in lines:
            events += recovery.hear(line, text)
        is_alive = recovery.ignored_lines - ignored < len(lines)  # ignored lines are no sign of our own writer
        if is_alive and self._silences[coin].hear(now):
            events.insert(0, Back(coin))
        return coin, events

    @property
    def ignored(self) -> dict[tuple[str, Ignored], int]:
        """How many lines and messages were ignored since the start, by coin and reason."""
        return {
            (coin, reason): count
            for coin, recovery in self._recoveries.items()
            for reason, count in recovery.ignored.items()
        }

    def pardon(self) -> None:
        """Believe dismissed announcements again if they are repeated."""
        for recovery in self._recoveries.values():
            recovery.dismissals.pardon()

    def fall_silent(self, now: float) -> list[FeedEvent]:
        """The feeds that have become silent."""
        return [Silent(coin) for coin, silence in self._silences.items() if silence.fall_silent(now)]


def _validated(coin: str, message: bytes) -> list[tuple[Quote | Heartbeat, bytes | None]]:
    """The lines of a message, each checked, with its bytes as `decode_lines` gives them."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise IgnoredMessageError(f"a message of {len(message)} bytes, more than {MESSAGE_BYTES_MAX}")
    try:
        lines = decode_lines(message)
        for line, _ in lines:
            if line.coin != coin:
                raise IgnoredMessageError("a message about another coin", Ignored.OTHER_COIN)
            require_valid(line)
    except IgnoredMessageError:
        raise
    except RecursionError as error:
        raise IgnoredMessageError("not a live message: nested too deeply") from error
    except ValueError as error:
        raise IgnoredMessageError(str(error)) from error
    return lines
