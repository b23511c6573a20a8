"""One client of a simulated venue: what it is sent, and the rules by which its connection ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

from cotacoes.adapters.websocket_server import PING, text_frame
from cotacoes.external_service.venues.faults import VenueFaults
from cotacoes.external_service.venues.session import Session, Top

HEARTBEAT_S = 1.0
SUBSCRIBE_S = 30.0  # until the first subscription
UNREAD_S = 30.0  # for a client to read some of what waits for it
GARBAGE_BYTES = 100_000


class Outlet(Protocol):
    """A connection as `adapters.websocket_server` has it; `is_full` if it takes nothing more."""

    is_full: bool

    def write(self, data: bytes, /) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None: ...

    def mute(self, is_muted: bool) -> None: ...


class Connection:
    """A client's session, its outlet and its times; implements `adapters.websocket_server.Handler`.

    `changed` is called after each message, `left` once at the end, `count` with what became of each book. While the
    venue is dead the client is neither heard nor sent anything.
    """

    def __init__(
        self,
        session: Session,
        outlet: Outlet,
        now: float,
        *,
        changed: Callable[[Connection], None],
        left: Callable[[Connection], None],
        count: Callable[[str], None],
    ) -> None:
        self.session = session
        self.outlet = outlet
        self.subscriptions = 0
        self._changed = changed
        self._left = left
        self._count = count
        self._opened_at = now
        self._active_at = now
        self._sent_at = now
        self._beat_at = now
        self._pinged_at = now
        self._full_since: float | None = None
        self._has_ended = False
        self._is_dead = False
        self._books: Counter[str] = Counter()

    # What happens to it

    def message(self, text: bytes, now: float) -> None:
        if self._has_ended or self._is_dead or not text:
            return
        self._active_at = now
        self.send(self.session.on_message(text))
        self._changed(self)

    def flooded(self) -> None:
        self._end(1008, "too many messages")

    def serve(self) -> None:
        self._full_since = None

    def shut_down(self) -> None:
        if self._is_dead:
            self.outlet.abort()  # it would not answer in time
        else:
            self._end(1001, "going away")

    def lost(self, *, is_unanswered: bool) -> None:
        self._has_ended = True
        self._left(self)

    # What it is sent

    def send(self, frames: Iterable[bytes]) -> None:
        """Send text frames."""
        if not (self._has_ended or self._is_dead):
            for frame in frames:
                self.outlet.write(text_frame(frame))

    def late_s(self, symbol: str) -> float:
        """How old the next book of the symbol is to be, as the venue starts a subscription."""
        starts, sent = self.session.late_starts_s, self._books[symbol]
        return starts[sent] if sent < len(starts) else 0.0

    def send_book(self, top: Top, now: float, faults: VenueFaults, random: Random) -> None:
        """Send a book, unless the client does not read or the faults lose it; it is numbered in any case."""
        self._books[top.symbol] += 1
        frame = self.session.frame(top)
        if self.outlet.is_full:
            self.session.missed(top.symbol)
            self._count("skipped")
            return
        if faults.garbage and random.random() < faults.garbage:
            self.send([garbled(frame, random)])
            self._count("garbage")
        if faults.lost and random.random() < faults.lost:
            self._count("lost")
            return
        self._sent_at = self._active_at = now
        self.send([frame])
        self._count("sent")

    def send_beside(self, top: Top) -> None:
        """Send what the venue sends beside a book."""
        if not self.outlet.is_full and (frame := self.session.beside(top)) is not None:
            self.send([frame])

    def count_subscriptions(self) -> int:
        """Count the subscribed symbols, and return by how many there are more than before."""
        for symbol in self._books.keys() - self.session.symbols.keys():
            del self._books[symbol]
        before, self.subscriptions = self.subscriptions, len(self.session.symbols)
        return self.subscriptions - before

    # What time brings

    def check(self, now: float, faults: VenueFaults) -> None:
        """End the connection if it is due, or send a heartbeat or a ping if one is due."""
        self._is_dead = faults.dead
        self.outlet.mute(faults.dead)
        if self._has_ended:
            return
        is_old = faults.cut_after_s is not None and now - self._opened_at >= faults.cut_after_s
        if is_old or faults.accept_then_drop:
            self.outlet.abort()
        elif faults.dead:
            return
        elif faults.maintenance:
            self.send(self.session.farewell())
            self._end(1012, "maintenance")
        elif self.outlet.is_full:
            self._full_since = self._full_since or now
            if now - self._full_since >= UNREAD_S:
                self.outlet.abort()
        elif not self.session.has_subscribed and now - self._opened_at >= SUBSCRIBE_S:
            self._end(1008, "no subscription")
        elif self.session.silence_s_max is not None and now - self._active_at >= self.session.silence_s_max:
            self._end(4004, "no data in 30 s")
        else:
            self._beat(now)

    def _beat(self, now: float) -> None:
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            is_needed = not self.session.beats_in_silence_only or now - self._sent_at >= HEARTBEAT_S
            if is_needed and (frame := self.session.heartbeat()) is not None:
                self.send([frame])
        if self.session.ping_s is not None and now - self._pinged_at >= self.session.ping_s:
            self._pinged_at = now
            self.outlet.write(PING)

    def _end(self, code: int, reason: str) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.outlet.close(code, reason)


def garbled(frame: bytes, random: Random) -> bytes:
    """A text that no adapter can read as a book, made from a good frame."""
    match random.randrange(6):
        case 0:
            return frame[: len(frame) // 2]
        case 1:
            return frame.translate(bytes.maketrans(b"0123456789", b"zyxwvutsrq"))
        case 2:
            return b"[" * GARBAGE_BYTES
        case 3:
            return b'{"price":' + b"9" * GARBAGE_BYTES
        case 4:
            return b"null"
        case _:
            return b"<html>502 Bad Gateway</html>"
