"""The pause of a writer that was superseded by another one and is restarted automatically.

A restart policy starts quote_service again whenever it ends. Without a pause, two writers under such a policy would
take the coins from each other for ever. So a superseded writer writes a note beside its log, and waits at its next
start before it takes over: `FIRST_S`, then twice as long each time, at most `LONGEST_S`. After writing for `STEADY_S`
it starts again at `FIRST_S`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from cotacoes.observability.whole_file import replace_file

FIRST_S = 5.0
LONGEST_S = 600.0
STEADY_S = 2 * LONGEST_S  # longer than another writer ever pauses

_FILE = "superseded.json"


class TakeoverPause:
    """The note in the log's folder. `wall_s` gives Unix time, since the pause outlives the process."""

    def __init__(self, folder: Path, *, wall_s: Callable[[], float]) -> None:
        self.file = folder / _FILE
        self._wall_s = wall_s

    def left_s(self) -> float:
        """How long to wait before taking over; 0 if this writer was not superseded lately."""
        count, until_s = self._read()
        # never longer than the pause itself: the clock may have been set back
        return min(_pause_s(count), max(0.0, until_s - self._wall_s()))

    def note_superseded(self, written_for_s: float) -> float:
        """Note that another writer has taken over; returns the pause before the next start. OSError if it fails."""
        count = 1 if written_for_s > STEADY_S else self._read()[0] + 1
        note = {"count": count, "until_s": self._wall_s() + _pause_s(count)}
        replace_file(self.file, json.dumps(note).encode())
        return _pause_s(count)

    def _read(self) -> tuple[int, float]:
        try:
            found = json.loads(self.file.read_text())
            return int(found["count"]), float(found["until_s"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return 0, 0.0


def forget(folder: Path) -> None:
    """Remove the note, as when a person starts the writer, so that it takes over at once; if that fails, it waits."""
    with contextlib.suppress(OSError):
        (folder / _FILE).unlink(missing_ok=True)


def _pause_s(count: int) -> float:
    return min(LONGEST_S, FIRST_S * 2 ** min(count - 1, 30)) if count > 0 else 0.0
