"""The ring of one coin: the newest part of its stream, kept once for every member that is behind.

An entry is a quote, or a gap that will not be filled. Each begins where the one before ended, so a position leads to
one place. A reader keeps an index, which counts entries since the gateway started and stays valid while old entries are
dropped. A reader further behind than the ring reaches needs the history.

The ring is bounded in bytes: at the bound the oldest entries are dropped.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Sequence

import msgspec

from cotacoes.adapters.websocket_server import text_frame
from cotacoes.model.live_message import encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap

BEFORE_ALL = Position(0, 0)  # the position before the first quote ever
ENTRY_BYTES = 300  # of one entry, beside its text
_encode = msgspec.json.Encoder().encode


class Kind(enum.Enum):
    """The kind of an entry, and the name of its event."""

    QUOTE = "quote"
    GAP = "gap"


class StreamEntry(msgspec.Struct, gc=False):
    """One event of a coin's stream, as JSON: it ends at `position`, and follows `before`.

    It holds numbers and texts only, so that the garbage collector need not follow it: with three objects for each of
    the 40,000 entries of a ring, a collection stopped everything for a quarter of a second.
    """

    kind: Kind
    coin: str
    epoch: int
    seq: int
    text: bytes
    _after: Position | None = None  # for gaps and first quotes of an epoch; else it follows from `seq`
    _frame: bytes | None = None

    @classmethod
    def of_quote(cls, quote: Quote, text: bytes | None = None) -> StreamEntry:
        """The entry of a quote; `text` is what `encode_quote` would write, if it exists already."""
        return cls(Kind.QUOTE, quote.coin, quote.epoch, quote.seq, text or encode_quote(quote), quote.prev)

    @classmethod
    def of_gap(cls, gap: Gap) -> StreamEntry:
        text = _encode({"type": "gap", **gap.fields()})
        return cls(Kind.GAP, gap.coin, gap.through.epoch, gap.through.seq, text, gap.after)

    @classmethod
    def of_retraction(cls, gap: Gap) -> StreamEntry:
        """The entry that takes the stream back to `gap.after`."""
        text = _encode({"type": "gap", **gap.fields()})
        back = gap.after or BEFORE_ALL
        return cls(Kind.GAP, gap.coin, back.epoch, back.seq, text, gap.through)

    @property
    def position(self) -> Position | None:
        return Position(self.epoch, self.seq) if self.seq else None

    @property
    def is_retraction(self) -> bool:
        """Whether it retracts entries before it."""
        return self.kind is Kind.GAP and self._after is not None and self._after > (self.epoch, self.seq)

    @property
    def before(self) -> Position | None:
        is_first = self.kind is Kind.GAP or self.seq == 1
        return self._after if is_first else Position(self.epoch, self.seq - 1)

    @property
    def is_empty(self) -> bool:
        """Whether it is an empty gap, after which another history continues."""
        return self.kind is Kind.GAP and self._after == self.position

    @property
    def frame(self) -> bytes:
        """The entry as a WebSocket frame, made once for all clients."""
        if self._frame is None:
            self._frame = text_frame(self.text)
        return self._frame

    def standing_for(self, after: Position | None) -> StreamEntry:
        """The quote as the newest of all after a position, which an additional field names."""
        position = b"null" if after is None else b'"%s"' % str(after).encode()
        return StreamEntry(self.kind, self.coin, self.epoch, self.seq, b'%s,"after":%s}' % (self.text[:-1], position))


class Ring:
    """The newest entries of one coin's stream, of at most about `bytes_max` bytes."""

    def __init__(self, coin: str, bytes_max: int) -> None:
        self.coin = coin
        self._bytes_max = bytes_max
        self.first = 0  # the index of the oldest entry
        self.newest: StreamEntry | None = None  # the newest quote
        self.newest_at = 0.0  # when it came
        self.last_emitted: Position | None = None  # the end of the stream
        self._entries: list[StreamEntry] = []
        self.bytes = 0  # approximate

    @property
    def end(self) -> int:
        """The index of the next entry."""
        return self.first + len(self._entries)

    def resize(self, bytes_max: int) -> None:
        """Change the bound; it holds from the next entry on."""
        self._bytes_max = bytes_max

    def append(self, entry: StreamEntry, now: float = 0.0) -> None:
        """Append the next entry of the stream, which has just come."""
        if self.last_emitted is not None and (entry.position or BEFORE_ALL) <= self.last_emitted:
            self._drop(len(self._entries))  # another history: earlier positions lead nowhere in it
            self.bytes = 0
            self.newest = None
        self._entries.append(entry)
        self.bytes += _size(entry)
        self.last_emitted = entry.position
        if entry.kind is Kind.QUOTE:
            self.newest, self.newest_at = entry, now
        if self.bytes > self._bytes_max:
            self._make_room()

    def index_after(self, position: Position | None, *, is_true: bool = False) -> int | None:
        """The index at which a stream that has come to this position continues; None if the ring does not have it.

        `is_true` says that the position comes from the history, so nothing up to it was retracted.
        """
        if position is not None and not is_true and self._is_retracted(position):
            return self.first
        if position is not None and position == self.last_emitted:
            return self.end
        place = 0 if position is None else bisect.bisect_right(self._entries, position, key=_position)
        if place == len(self._entries) or self._entries[place].before != position:
            return None
        return self.first + place

    def index_of_newest(self) -> int:
        """The index of the newest quote, at which a new stream begins."""
        return self.end - 1 if self._entries and self._entries[-1].kind is Kind.QUOTE else self.end

    def read(self, index: int, bytes_max: int, end: int | None = None) -> Sequence[StreamEntry]:
        """Entries from an index on, up to about `bytes_max` bytes, but at least one if there is any."""
        place = index - self.first
        stop = len(self._entries) if end is None else end - self.first
        total, last = 0, place
        while last < stop and total < bytes_max:
            total += len(self._entries[last].text)
            last += 1
        return self._entries[place:last]

    def _is_retracted(self, position: Position) -> bool:
        """Whether it may belong to a retracted quote; then the retraction is sent again, with all that follows."""
        first = self._entries[0] if self._entries else None
        if first is None or not first.is_retraction or first.before is None:
            return False
        return (first.position or BEFORE_ALL) < position <= first.before

    def _make_room(self) -> None:
        """Drop the oldest entries, an eighth at once, since deleting from the front costs the length of the list."""
        count, enough = 0, self._bytes_max - self._bytes_max // 8
        while self.bytes > enough and count < len(self._entries) - 1:
            self.bytes -= _size(self._entries[count])
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        del self._entries[:count]
        self.first += count


def _position(entry: StreamEntry) -> Position:
    return Position(entry.epoch, entry.seq)


def _size(entry: StreamEntry) -> int:
    return 2 * len(entry.text) + ENTRY_BYTES  # its frame is cached beside it
