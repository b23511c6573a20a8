"""What was read of an HTTP connection and is not parsed yet, cut where one request ends and the next begins.

A parser takes all it is given, and calls back for each request in it. So it is given a piece at a time, which holds the
end of one head at most, or of one body, and the requests behind it cost nothing until it is their turn.
"""

from __future__ import annotations

_HEAD_END = b"\r\n\r\n"  # of a body in chunks too, and of trailers


class Pieces:
    """Bytes in order; empty, it is false."""

    def __init__(self) -> None:
        self._held = b""
        self._tail = b""  # the last that was taken: a head may end across two reads

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, data: bytes) -> None:
        """Append what was read."""
        self._held = self._held + data if self._held else data

    def take(self, body_left: int | None) -> bytes:
        """The next piece; `body_left` are the bytes that the current body still has, None if that is not known."""
        end = min(len(self._held), body_left) if body_left else self._head_end()
        piece, self._held = self._held[:end], self._held[end:]
        self._tail = piece[-3:] if len(piece) >= 3 else (self._tail + piece)[-3:]
        return piece

    def take_all(self) -> bytes:
        """What is left, for who goes on in place of the parser."""
        held, self._held = self._held, b""
        return held

    def _head_end(self) -> int:
        across = (self._tail + self._held[:3]).find(_HEAD_END)
        if across >= 0 and (end := across + len(_HEAD_END) - len(self._tail)) > 0:
            return end
        found = self._held.find(_HEAD_END)
        return len(self._held) if found < 0 else found + len(_HEAD_END)
