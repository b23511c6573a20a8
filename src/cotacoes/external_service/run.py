"""The run: which market is played, and since when. Remembered on disk, so that a restart goes on instead of over.

A run is named `DIGEST.STARTED_MS`. The digest stands for what is played and how (files, kind of price, loop; or seed,
coins and pace); another one begins another run. A cursor is `RUN-INDEX`: prices count 1, 2, 3 … from the run's start.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cotacoes.quote import from_microseconds, to_microseconds
from cotacoes.telemetry import get_logger

INDEX_MAX = 2**63 - 1
_CURSOR = re.compile(r"([0-9a-f]{12}\.[0-9]{1,17})-([0-9]{1,19})\Z", re.ASCII)


@dataclass(frozen=True)
class Run:
    """See the head of this file."""

    digest: str
    started_at: datetime

    @property
    def name(self) -> str:
        return f"{self.digest}.{to_microseconds(self.started_at) // 1000}"

    def cursor(self, index: int) -> str:
        """The cursor after which the prices behind `index` come."""
        return f"{self.name}-{index}"


def digest_of(*told: object) -> str:
    """The same for the same things, on every machine."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def parse_cursor(text: str) -> tuple[str, int]:
    """The run's name and the index; ValueError says what is expected."""
    match = _CURSOR.match(text)
    if match is None or int(match[2]) > INDEX_MAX:
        raise ValueError("a cursor is written RUN-INDEX, as `next` gives it")
    return match[1], int(match[2])


def load_or_begin(folder: Path, digest: str, now: datetime, is_over: Callable[[Run], bool] = lambda _: False) -> Run:
    """The run that the folder remembers, if it is of this digest and not over; else one that begins now."""
    path = folder / "run.json"
    remembered = _read(path)
    if remembered is not None and remembered.digest == digest and not is_over(remembered):
        return remembered
    run = Run(digest, from_microseconds(to_microseconds(now) // 1000 * 1000))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({"digest": digest, "started_ms": to_microseconds(run.started_at) // 1000}))
        draft.replace(path)
    except OSError as error:  # it runs all the same, and a restart begins another run
        get_logger().warning("run.forgotten", reason=error.strerror)
    return run


def _read(path: Path) -> Run | None:
    try:
        told = json.loads(path.read_text())
        return Run(str(told["digest"]), from_microseconds(int(told["started_ms"]) * 1000))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
