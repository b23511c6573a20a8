"""The ring of one coin: the newest part of its stream, once, for everyone who is behind.

An entry is a quote, or a gap that will not be filled; each begins where the one before it ended, so a position leads to
one place. A reader keeps an index, which counts entries since the gateway began, and stays right while old ones fall
out. Whoever is further behind than the ring reaches asks the history.

Bounded in bytes: at the bound the oldest entries fall out.
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

BEFORE_ALL = Position(0, 0)  # where a stream is before the first quote ever
ENTRY_BYTES = 300  # what one takes beside its text
_encode = msgspec.json.Encoder().encode


class Kind(enum.Enum):
    """What an entry is; the name of its event."""

    QUOTE = "quote"
    GAP = "gap"


class StreamEntry(msgspec.Struct, gc=False):
    """One event of a coin's stream, as JSON: it ends at `position`, and follows `before`.

    Of numbers and texts alone, nothing for the garbage collector to follow: with three objects for each of the 40,000
    of a ring it stopped everything for a quarter of a second.
    """

    kind: Kind
    coin: str
    epoch: int
    seq: int
    text: bytes
    _after: Position | None = None  # of a gap, and of the first quote of an era; that of any other is the one before it
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
        """What was told after `gap.after` does not count: the stream is back there."""
        text = _encode({"type": "gap", **gap.fields()})
        back = gap.after or BEFORE_ALL
        return cls(Kind.GAP, gap.coin, back.epoch, back.seq, text, gap.through)

    @property
    def position(self) -> Position | None:
        return Position(self.epoch, self.seq) if self.seq else None

    @property
    def is_retraction(self) -> bool:
        """Whether it takes back what was told before it."""
        return self.kind is Kind.GAP and self._after is not None and self._after > (self.epoch, self.seq)

    @property
    def before(self) -> Position | None:
        is_first = self.kind is Kind.GAP or self.seq == 1
        return self._after if is_first else Position(self.epoch, self.seq - 1)

    @property
    def is_empty(self) -> bool:
        """Whether it is a gap of nothing, which says that another history goes on behind it."""
        return self.kind is Kind.GAP and self._after == self.position

    @property
    def frame(self) -> bytes:
        """As a WebSocket frame: made once, for everyone."""
        if self._frame is None:
            self._frame = text_frame(self.text)
        return self._frame

    def standing_for(self, after: Position | None) -> StreamEntry:
        """The quote as the newest of all after a position, with one more field that says so."""
        told = b"null" if after is None else b'"%s"' % str(after).encode()
        return StreamEntry(self.kind, self.coin, self.epoch, self.seq, b'%s,"after":%s}' % (self.text[:-1], told))


class Ring:
    """See the head of this file."""

    def __init__(self, coin: str, bytes_max: int) -> None:
        self.coin = coin
        self._bytes_max = bytes_max
        self.first = 0  # the index of the oldest entry that is here
        self.newest: StreamEntry | None = None  # the newest quote
        self.newest_at = 0.0  # when it came
        self.last_emitted: Position | None = None  # how far the stream has come
        self._entries: list[StreamEntry] = []
        self.bytes = 0  # about what it takes

    @property
    def end(self) -> int:
        """The index of the entry that comes next."""
        return self.first + len(self._entries)

    def resize(self, bytes_max: int) -> None:
        """Change the bound; it holds from the next entry on."""
        self._bytes_max = bytes_max

    def append(self, entry: StreamEntry, now: float = 0.0) -> None:
        """The next of the stream, which came just now."""
        if self.last_emitted is not None and (entry.position or BEFORE_ALL) <= self.last_emitted:
            self._drop(len(self._entries))  # another history: no position of before leads anywhere in it
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
        """Where a stream that has come up to this position goes on; None if that is not here.

        `is_true` says that the history has given what the stream was told, so that nothing of it was taken back.
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
        """Where a stream begins that is to begin with the newest quote."""
        return self.end - 1 if self._entries and self._entries[-1].kind is Kind.QUOTE else self.end

    def read(self, index: int, bytes_max: int, end: int | None = None) -> Sequence[StreamEntry]:
        """Entries from an index on, at least one where there is one, about so many bytes at most."""
        place = index - self.first
        stop = len(self._entries) if end is None else end - self.first
        total, last = 0, place
        while last < stop and total < bytes_max:
            total += len(self._entries[last].text)
            last += 1
        return self._entries[place:last]

    def _is_retracted(self, position: Position) -> bool:
        """Whether it may be of a quote that was taken back: then that is told again, and what follows."""
        first = self._entries[0] if self._entries else None
        if first is None or not first.is_retraction or first.before is None:
            return False
        return (first.position or BEFORE_ALL) < position <= first.before

    def _make_room(self) -> None:
        """Let the oldest fall out, an eighth at once, since taking from the front of a list costs its length."""
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
    return 2 * len(entry.text) + ENTRY_BYTES  # its frame is kept beside it
