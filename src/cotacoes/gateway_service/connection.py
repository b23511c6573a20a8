"""Connection: one open stream of either kind, with its subscriptions, and the rules by which it is ended.

subscribe, unsubscribe ──▶ one Member for each mode, in the channel of its coins
time ────────────────────▶ ended, if it is slow, too old, or has no subscription
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from cotacoes.client.modes import Mode
from cotacoes.config import Settings
from cotacoes.gateway_service.admission import Admission
from cotacoes.gateway_service.channel import Channel, Member, Outlet, StreamCursor
from cotacoes.gateway_service.encoders import Encoder, Positions
from cotacoes.gateway_service.hub import Hub
from cotacoes.model.quote import Position


class Ending(enum.Enum):
    """Why the gateway ends a stream: the close code of a WebSocket, and the reason in `bye`."""

    SHUTDOWN = (1001, "shutdown")
    AGE = (4000, "age")
    UNSUBSCRIBED = (4001, "unsubscribed")
    RATE = (4002, "rate")
    FLOOD = (1008, "flood")
    SLOW = (4003, "slow")

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def reason(self) -> str:
        return self.value[1]


UNANSWERED = "unanswered"  # ended by the kernel, since the client no longer answers
RETRY_MS_LEAST, RETRY_MS_MOST = 500, 5_000  # spread as far as there are clients, so that they do not come back together

OutletT = TypeVar("OutletT", bound=Outlet)
Subscribed = Callable[[Mapping[str, bool], Positions], None]


@dataclass(slots=True)
class _Pending:
    """A subscription that waits for the history; `subscribed` is called once every coin is resolved."""

    recovered: dict[str, bool]
    positions: Positions
    unresolved: set[str]
    subscribed: Subscribed


class Connection(abc.ABC, Generic[OutletT]):
    """One open stream of the kind `wire`. Times are monotonic seconds, passed in."""

    wire: ClassVar[Encoder]

    def __init__(
        self, hub: Hub, admission: Admission, settings: Settings, *, outlet: OutletT, address: str, now: float
    ) -> None:
        self._hub = hub
        self._admission = admission
        self.outlet = outlet
        self._settings = settings
        self._address = address
        self._opened_at = now
        self._age_max_s = settings.stream_age_max_s * hub.random.uniform(
            0.9, 1.0
        )  # so that connections do not all end together
        self._full_since: float | None = None
        self._has_subscribed = False
        self._has_ended = False
        self._members: dict[Mode, tuple[Channel, Member]] = {}
        self._pending: list[_Pending] = []

    def open(self) -> None:
        """Count the stream as open, and have it checked; `lost` undoes both."""
        self._admission.enter(self.wire.name, self._address)
        self._hub.watch(self)

    @property
    def coins(self) -> set[str]:
        """The coins that it is subscribed to."""
        return {coin for channel, _ in self._members.values() for coin in channel.coins}

    def positions(self) -> Positions:
        """How far the stream has come in each coin of which something may already be sent."""
        return {
            coin: channel.position_of(member, coin)
            for channel, member in self._members.values()
            for coin in channel.coins
            if coin not in member.held
        }

    def subscribe(
        self, coins: Collection[str], mode: Mode, since: Mapping[str, Position], subscribed: Subscribed
    ) -> None:
        """Begin these coins, or begin them anew.

        `subscribed` is called before any of their events is sent. Its arguments are, by coin, whether everything after
        `since` will come, and the position after which the stream begins.
        """
        self._has_subscribed = True
        self.unsubscribe(coins)
        cursor, recovered, unresolved = self._hub.begin(coins, mode, since)
        if unresolved:
            self._pending.append(_Pending(recovered, dict(cursor.positions), unresolved, subscribed))
        else:
            subscribed(recovered, cursor.positions)
        self._place(mode, cursor, set(coins) if unresolved else set())
        if unknown := unresolved - since.keys():
            self._hub.await_begin(self, unknown)

    def unsubscribe(self, coins: Collection[str]) -> list[str]:
        """End these coins, and return those that were subscribed."""
        had = sorted(self.coins.intersection(coins))
        for mode, (channel, _) in list(self._members.items()):
            if not set(channel.coins).isdisjoint(coins):
                self._place(mode, StreamCursor({}, {}), set(), without=coins)
        for pending in list(self._pending):
            for coin in pending.unresolved.intersection(coins):
                self._resolve(coin, False)
        return had

    def begin_at_newest(self, coin: str) -> None:
        """Begin the coin at its newest quote, which is known from now on."""
        for pending in self._pending:
            for mode, (_, member) in self._members.items():
                if coin in pending.unresolved and coin in member.held and member.cursor is not None:
                    cursor, _, _ = self._hub.begin([coin], mode, {})
                    pending.positions |= cursor.positions
                    member.cursor.positions |= cursor.positions
                    member.cursor.indexes |= cursor.indexes
        self._resolve(coin, False)

    def serve(self) -> None:
        """Serve all members, since the connection takes bytes again."""
        self._full_since = None
        for channel, member in list(self._members.values()):
            channel.serve(member)

    def leave(self) -> None:
        """Leave all channels; nothing is sent any more."""
        self._has_ended = True
        self._hub.forget(self)
        for channel, member in self._members.values():
            self._hub.leave(channel, member)
        self._members.clear()

    def check(self, now: float) -> None:
        """End the stream if it is too slow, too old or idle."""
        if self._has_ended:
            return
        if self.outlet.is_full:
            self._full_since = now if self._full_since is None else self._full_since
            if now - self._full_since >= self._settings.stream_stall_s:
                self.end(Ending.SLOW)
        elif now - self._opened_at >= self._age_max_s:
            self.end(Ending.AGE)
        elif not self._has_subscribed and now - self._opened_at >= self._settings.stream_subscribe_s:
            self.end(Ending.UNSUBSCRIBED)

    def end(self, ending: Ending) -> None:
        """Send the reason, and close."""
        self._admission.note_ended(self.wire.name, ending.reason)
        self.leave()
        spread_ms = RETRY_MS_LEAST + round(1000 * self._admission.reopening_s)
        self._close(ending, self._hub.random.randint(RETRY_MS_LEAST, min(spread_ms, RETRY_MS_MOST)))

    def shut_down(self) -> None:
        """End the stream, since the server stops."""
        self.end(Ending.SHUTDOWN)

    def lost(self, *, is_unanswered: bool) -> None:
        """Note that the connection has ended; `is_unanswered` if the kernel gave up on the client."""
        if is_unanswered and not self._has_ended:
            self._admission.note_ended(self.wire.name, UNANSWERED)
        self.leave()
        self._admission.leave(self.wire.name, self._address)

    @abc.abstractmethod
    def _close(self, ending: Ending, retry_ms: int) -> None:
        """Send the reason and when to come back, after everything written so far, and close."""

    def _place(self, mode: Mode, more: StreamCursor, held: set[str], without: Collection[str] = ()) -> None:
        """Move to the channel of all coins that this mode now has."""
        cursor = StreamCursor({}, {})
        if mode in self._members:
            channel, member = self._members.pop(mode)
            cursor = self._hub.leave(channel, member)
            held = held | member.held
        kept = [coin for coin in cursor.positions if coin not in without]
        positions = {coin: cursor.positions[coin] for coin in kept} | more.positions
        if not positions:
            return
        coins = sorted(positions)
        indexes = {coin: cursor.indexes[coin] for coin in kept} | more.indexes
        member = Member(
            self.outlet,
            StreamCursor({coin: positions[coin] for coin in coins}, {coin: indexes[coin] for coin in coins}),
            held.intersection(coins),
            self._resolve,
        )
        channel = self._hub.channel(coins, mode, self.wire)
        self._members[mode] = (channel, member)
        channel.join(member)
        for coin in member.held:  # the history must say whether everything will come
            if member.cursor is not None and member.cursor.indexes[coin] is None:
                self._hub.ask_history(channel, member, coin)

    def _resolve(self, coin: str, is_whole: bool) -> None:
        """Note whether everything of the coin will come, as the history has said."""
        for pending in list(self._pending):
            if coin in pending.unresolved:
                pending.unresolved.discard(coin)
                pending.recovered[coin] = is_whole
                if not pending.unresolved:
                    self._pending.remove(pending)
                    self._begin(pending)

    def _begin(self, pending: _Pending) -> None:
        begun = {coin: is_whole for coin, is_whole in pending.recovered.items() if coin in self.coins}
        pending.subscribed(begun, pending.positions)
        for channel, member in list(self._members.values()):
            if member.held.intersection(begun):
                member.held.difference_update(begun)
                channel.serve(member)
