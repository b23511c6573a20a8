"""`cotacoes record --raw`: follow the venues, and write down every frame with when it came.

Frames are handed to a thread, so that a slow disk delays no frame. At most `WAITING_BYTES_MAX` wait for it. Beyond that
the recording ends with an error, since one with a hole in it would show something that did not happen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from cotacoes.config import Settings
from cotacoes.errors import OutputError
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.feeds import new_feeds
from cotacoes.feed_service.frames import Closed, Frame, FrameFiles, Line, Opened
from cotacoes.model.quote import utc_now
from cotacoes.model.venue_symbols import VenueSymbol
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.web.background import background
from cotacoes.web.process import Stop
from cotacoes.web.upstreams import new_upstreams

WRITE_S = 0.5
WAITING_BYTES_MAX = 2**26


class _Tap:
    """Collects lines until they are written."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.frames = 0
        self._now = now
        self._waiting: list[Line] = []
        self._bytes = 0

    def note_opened(self, venue: str, symbols: Mapping[str, VenueSymbol]) -> None:
        self._waiting.append(Opened.of(venue, self._now(), symbols))

    def note_frame(self, venue: str, frame: bytes) -> None:
        if self._bytes + len(frame) <= WAITING_BYTES_MAX:
            self._waiting.append(Frame.of(venue, self._now(), frame))
            self.frames += 1
        self._bytes += len(frame)

    def note_closed(self, venue: str, reason: str) -> None:
        self._waiting.append(Closed(1, venue, Opened.of(venue, self._now(), {}).at, reason))

    def pop(self) -> Sequence[Line]:
        """What has been collected; OutputError if it was more than may wait."""
        if self._bytes > WAITING_BYTES_MAX:
            raise OutputError("the disk is too slow for the frames that come: record fewer coins or venues")
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        return waiting


async def record_frames(
    settings: Settings, stop: Stop, folder: Path, coins: Sequence[str], for_s: float | None = None
) -> int:
    """Record until `stop`, or for `for_s`; returns the number of frames. OutputError if they cannot be written."""
    metrics = Metrics()
    tap = _Tap(utc_now)
    followed = FollowedCoins(coins, settings.venue_names, settings.venue_symbol_overrides, file=None)
    feeds = new_feeds(
        settings,
        followed,
        Books(),
        price_of=lambda _: None,
        upstreams=new_upstreams(metrics),
        metrics=FeedMetrics(metrics),
        tap=tap,
    )
    files = FrameFiles(folder)
    try:
        async with background(*(feed.run() for feed in feeds), _write(files, tap)):
            with contextlib.suppress(TimeoutError):  # the requested time is over
                async with asyncio.timeout(for_s):
                    await stop.event.wait()
    finally:
        files.write(tap.pop())
        files.close()
    return tap.frames


async def _write(files: FrameFiles, tap: _Tap) -> None:
    while True:
        await asyncio.sleep(WRITE_S)
        await asyncio.to_thread(files.write, tap.pop())
