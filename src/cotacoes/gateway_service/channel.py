"""Channels: a channel serves all connections that want the same coins in the same mode, and knows where each stands.

    ring ──▶ flush ──▶ bytes, encoded once ──▶ every live member
                                               a member that does not take them falls behind
    ring, or the history ──▶ serve ──▶ the members behind, each from its own cursor, until they are live again

There is no queue for a client. A live member has no state at all: it stands where the channel stands. A member whose
connection is full is left out and keeps a cursor; when the connection takes bytes again, it is served from there, a
chunk at a time, and is live again once its cursor equals the channel's. New subscriptions begin behind too, so there is
one way into the live stream, and it has no seam: the cursor is compared and the member made live in one step.

So memory does not depend on how slow anybody is, and a slow client costs the others nothing.

There are two kinds of channel: one sends each quote, in order, without a hole (`every`); the other the newest quote of
each coin, with the range that it stands for (`conflate`, `interval`), so a member behind simply gets a newer one.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cotacoes.client.modes import Mode
from cotacoes.gateway_service.encoders import Encoder, Positions
from cotacoes.gateway_service.ring import Ring, StreamEntry
from cotacoes.model.quote import Position

CHUNK_BYTES = 65_536  # written to one connection at once
CHUNKS_AT_ONCE = 4

AskHistory = Callable[["Channel", "Member", str], None]
CallSoon = Callable[..., object]


class Outlet(Protocol):
    """One connection. Each write is a whole event; nothing should be written while it `is_full`."""

    is_full: bool

    def write(self, data: bytes) -> None:
        """Send, or buffer for sending."""


@dataclass(slots=True)
class StreamCursor:
    """How far a stream has come: by coin the last position sent, and the index of the next entry in the ring.

    An unknown index is None: then the ring has to be searched, or the history read.
    """

    positions: Positions
    indexes: dict[str, int | None]

    def copy(self) -> StreamCursor:
        return StreamCursor(dict(self.positions), dict(self.indexes))


@dataclass(eq=False, slots=True)
class Member:
    """A connection in one channel. `cursor` is None while it is live.

    Nothing is sent yet of the coins in `held`; `resolve` is called with such a coin once the history has said whether
    everything after the cursor will come. `ahead_s` has the coins for which neither ring nor history has anything after
    the cursor, with the next pause before the history is asked again.
    """

    outlet: Outlet
    cursor: StreamCursor | None = None
    held: set[str] = field(default_factory=set)
    resolve: Callable[[str, bool], None] | None = None
    ahead_s: dict[str, float] = field(default_factory=dict)


class Channel(abc.ABC):
    """A channel over the `rings` of its coins. `ask_history` is called for a member that the ring cannot serve."""

    def __init__(
        self,
        coins: Iterable[str],
        mode: Mode,
        wire: Encoder,
        rings: Mapping[str, Ring],
        *,
        ask_history: AskHistory,
        call_soon: CallSoon,
    ) -> None:
        self.coins = tuple(sorted(coins))
        self.mode = mode
        self.wire = wire
        self.live: set[Member] = set()
        self.behind: set[Member] = set()
        self._delivered = 0  # events, to all members together
        self._rings = {coin: rings[coin] for coin in self.coins}
        self._ask_history = ask_history
        self._call_soon = call_soon
        self._newest = {coin: ring.newest for coin, ring in self._rings.items()}
        self._cursor = StreamCursor(self._start(), {coin: ring.end for coin, ring in self._rings.items()})

    def join(self, member: Member) -> None:
        """Add a member, which begins behind, at its own cursor."""
        assert member.cursor is not None
        self.behind.add(member)
        self.serve(member)

    def serve_all(self) -> None:
        """Serve the members behind; one that the history has brought beyond the last flush waits for the next."""
        for member in list(self.behind):
            if not member.outlet.is_full:
                self.serve(member)

    def leave(self, member: Member) -> StreamCursor:
        """Remove a member, and return where it stands."""
        self.live.discard(member)
        self.behind.discard(member)
        return member.cursor or self._cursor.copy()

    def position_of(self, member: Member, coin: str) -> Position | None:
        """How far a member has come in a coin."""
        return (member.cursor or self._cursor).positions[coin]

    def pop_delivered(self) -> int:
        """How many events were delivered since the last call, to all members together."""
        delivered, self._delivered = self._delivered, 0
        return delivered

    @abc.abstractmethod
    def flush(self, coins: Iterable[str]) -> None:
        """Send the live members what is new of these coins."""

    def serve(self, member: Member) -> None:
        """Send a member behind what it lacks, as far as its connection takes it."""
        for _ in range(CHUNKS_AT_ONCE):
            if member not in self.behind or member.outlet.is_full:
                return
            assert member.cursor is not None
            entries = self._next(member, member.cursor)
            if entries:
                member.outlet.write(self.wire.encode(entries, member.cursor.positions))
                self._delivered += len(entries)
                continue
            if member.held or not self._has_caught_up(member.cursor):
                return  # the history has been asked
            member.cursor = None
            self.behind.discard(member)
            self.live.add(member)
        self._call_soon(self.serve, member)  # the others must not wait for a member that lacks much

    def send_history(self, member: Member, entries: Sequence[StreamEntry], index: int | None) -> None:
        """Send a member entries of the history; it continues at an index of the ring, None if not there yet."""
        assert member.cursor is not None
        member.outlet.write(self.wire.encode(entries, member.cursor.positions))
        self._delivered += len(entries)
        for entry in entries:
            member.cursor.indexes[entry.coin] = index

    def heartbeat(self, sent_at: datetime, silent: Sequence[str]) -> None:
        """Send all members a heartbeat."""
        if self.live:
            self._broadcast(self.wire.heartbeat(sent_at, self._cursor.positions, silent), 0)
        for member in self.behind:
            if member.cursor is not None and not member.outlet.is_full:
                positions = {coin: p for coin, p in member.cursor.positions.items() if coin not in member.held}
                member.outlet.write(self.wire.heartbeat(sent_at, positions, silent))

    def _start(self) -> Positions:
        """The positions at which the channel begins."""
        return {coin: ring.last_emitted for coin, ring in self._rings.items()}

    @abc.abstractmethod
    def _next(self, member: Member, cursor: StreamCursor) -> list[StreamEntry]:
        """The next entries for a member; advances its indexes."""

    @abc.abstractmethod
    def _has_caught_up(self, cursor: StreamCursor) -> bool:
        """Whether the cursor stands where the channel does."""

    def _broadcast(self, data: bytes, events: int) -> None:
        full: list[Member] = []
        for member in self.live:
            outlet = member.outlet
            outlet.write(data)
            if outlet.is_full:
                full.append(member)
        self._delivered += events * len(self.live)
        for member in full:
            self._fall_behind(member)

    def _fall_behind(self, member: Member) -> None:
        member.cursor = self._cursor.copy()
        self.live.discard(member)
        self.behind.add(member)


class EveryChannel(Channel):
    """A channel that sends each quote, in order, without a hole."""

    def flush(self, coins: Iterable[str]) -> None:
        coins = list(coins)
        self._pass_over(coins)
        while coins:
            coins = self._flush_chunk(coins)

    def _pass_over(self, coins: Iterable[str]) -> None:
        """If more came at once than a ring holds, make all members fall behind before anything moves."""
        for coin in coins:
            ring, index = self._rings[coin], self._cursor.indexes[coin]
            if index is not None and index < ring.first:
                for member in list(self.live):
                    self._fall_behind(member)
                self._cursor.indexes[coin], self._cursor.positions[coin] = ring.end, ring.last_emitted

    def _flush_chunk(self, coins: Iterable[str]) -> list[str]:
        """Send one chunk of bytes, of all coins together; return the coins that have more."""
        entries: list[StreamEntry] = []
        rest: list[str] = []
        room = CHUNK_BYTES
        for coin in coins:
            ring, index = self._rings[coin], self._cursor.indexes[coin]
            assert index is not None
            found = ring.read(index, room) if room > 0 else []
            room -= sum(len(entry.text) for entry in found)
            self._cursor.indexes[coin] = index + len(found)
            entries += found
            if index + len(found) < ring.end:
                rest.append(coin)
        if entries:
            self._broadcast_entries(entries)
        return rest

    def _broadcast_entries(self, entries: Sequence[StreamEntry]) -> None:
        if self.live:
            self._broadcast(self.wire.encode(entries, self._cursor.positions), len(entries))
            return
        for entry in entries:
            self._cursor.positions[entry.coin] = entry.position

    def _next(self, member: Member, cursor: StreamCursor) -> list[StreamEntry]:
        for coin, target in self._cursor.indexes.items():
            index = cursor.indexes[coin]
            if index == target or coin in member.held:
                continue
            ring = self._rings[coin]
            if index is None or index < ring.first:
                index = ring.index_after(cursor.positions[coin])
                cursor.indexes[coin] = index
                if index is None:
                    self._ask_history(self, member, coin)
                    continue
            entries = list(ring.read(index, CHUNK_BYTES, target))
            if entries:
                cursor.indexes[coin] = index + len(entries)
                return entries
        return []

    def _has_caught_up(self, cursor: StreamCursor) -> bool:
        return cursor.indexes == self._cursor.indexes


class NewestChannel(Channel):
    """A channel that sends the newest quote of each coin, with the range that it stands for."""

    def _start(self) -> Positions:
        return {coin: None if entry is None else entry.position for coin, entry in self._newest.items()}

    def flush(self, coins: Iterable[str]) -> None:
        changed = [coin for coin in coins if self._rings[coin].newest is not self._newest[coin]]
        entries = [self._rings[coin].newest for coin in changed]
        new = [entry.standing_for(self._cursor.positions[entry.coin]) for entry in entries if entry is not None]
        self._newest.update(zip(changed, entries, strict=True))
        if new:
            self._broadcast(self.wire.encode(new, self._cursor.positions), len(new))

    def _next(self, member: Member, cursor: StreamCursor) -> list[StreamEntry]:
        return [
            entry.standing_for(cursor.positions[coin])
            for coin, entry in self._newest.items()
            if entry is not None and cursor.positions[coin] != entry.position and coin not in member.held
        ]

    def _has_caught_up(self, cursor: StreamCursor) -> bool:
        return cursor.positions == self._cursor.positions
