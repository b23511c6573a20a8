"""The modes of a stream: every quote; or only the newest of each coin, as fast as it is read or at an interval."""

from __future__ import annotations

import re
from dataclasses import dataclass

INTERVAL_MS_MIN = 50
INTERVAL_MS_MAX = 3_600_000
_INTERVAL = re.compile(r"interval:([1-9][0-9]{0,6})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mode:
    """The mode of a stream; `interval_s` is None in a mode without an interval."""

    is_every: bool
    interval_s: float | None = None

    def __str__(self) -> str:
        if self.interval_s is not None:
            return f"interval:{round(self.interval_s * 1000)}"
        return "every" if self.is_every else "conflate"


EVERY = Mode(is_every=True)
CONFLATE = Mode(is_every=False)


def parse_mode(text: str) -> Mode:
    """Read a mode; ValueError says what is expected."""
    if text in {"every", "conflate"}:
        return EVERY if text == "every" else CONFLATE
    match = _INTERVAL.match(text)
    if match is None or not INTERVAL_MS_MIN <= int(match[1]) <= INTERVAL_MS_MAX:
        raise ValueError(
            f"mode must be every, conflate or interval:MS with MS from {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}"
        )
    return Mode(is_every=False, interval_s=int(match[1]) / 1000)
