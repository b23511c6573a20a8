"""The playback session: which market is played, and since when. It is remembered on disk, so that a restart resumes it.

A session is named `DIGEST.STARTED_MS`; on the wire it is the `run`. The digest stands for what is played and how
(files, kind of price, loop; or seed, coins and pace); another digest begins another session. A cursor is `RUN-INDEX`:
prices count 1, 2, 3 … from the session's start.

How far a session has come follows from the wall clock, so it goes on while nothing runs. A tape remembers it as well:
if the clock was ahead when the session began, or at a restart in it, the clock alone would send the session back to a
point that its readers have passed, and they would get nothing until it came there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cotacoes.model.quote import from_microseconds, to_microseconds
from cotacoes.observability.logs import get_logger
from cotacoes.observability.whole_file import replace_file

INDEX_MAX = 2**63 - 1
REMEMBER_S = 1.0
CURSOR_RULE = "^([0-9a-f]{12}[.][0-9]{1,17})-([0-9]{1,19})$"  # in the document, too
_CURSOR = re.compile(CURSOR_RULE.strip("^$"))


@dataclass(frozen=True)
class PlaybackSession:
    """See the head of this file. `played_s` is how far it had come when that was last remembered."""

    digest: str
    started_at: datetime
    played_s: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.digest}.{to_microseconds(self.started_at) // 1000}"

    def elapsed_s(self, now: datetime) -> float:
        """How far it has come: by the clock, or as remembered if that is further."""
        return max(self.played_s, (now - self.started_at).total_seconds())

    def cursor(self, index: int) -> str:
        """The cursor for the prices after `index`."""
        return f"{self.name}-{index}"


def digest_of(*identity: object) -> str:
    """The same text for the same values, on every machine."""
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:12]


def parse_cursor(text: str) -> tuple[str, int]:
    """The session's name and the index; ValueError says what is expected."""
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[2]) > INDEX_MAX:
        raise ValueError("a cursor is written RUN-INDEX, as in `next` of a page")
    return match[1], int(match[2])


def load_or_begin(
    folder: Path, digest: str, now: datetime, is_over: Callable[[PlaybackSession], bool] = lambda _: False
) -> PlaybackSession:
    """The session that the folder remembers, if it has this digest and is not over; else one that begins now."""
    path = folder / "run.json"
    remembered = _read(path)
    if remembered is not None and remembered.digest == digest and not is_over(remembered):
        return remembered
    session = PlaybackSession(digest, from_microseconds(to_microseconds(now) // 1000 * 1000))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, session)
    except OSError as error:  # it is played all the same, and a restart begins another session
        get_logger().warning("session.forgotten", reason=error.strerror)
    return session


async def remember_played(folder: Path, played: Callable[[], PlaybackSession]) -> None:
    """Remember each second how far the session has come, until cancelled."""
    while True:
        await asyncio.sleep(REMEMBER_S)
        with contextlib.suppress(OSError):  # the note before serves nearly as well
            _write(folder / "run.json", played())


def _write(path: Path, session: PlaybackSession) -> None:
    started_ms = to_microseconds(session.started_at) // 1000
    note = {"digest": session.digest, "started_ms": started_ms, "played_s": session.played_s}
    replace_file(path, json.dumps(note).encode())


def _read(path: Path) -> PlaybackSession | None:
    try:
        note = json.loads(path.read_text())
        started_at = from_microseconds(int(note["started_ms"]) * 1000)
        return PlaybackSession(str(note["digest"]), started_at, float(note.get("played_s", 0.0)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
