"""The playback of recorded frames: the feeds run as they do against the venues, but read from a recording.

Each frame arrives as long after the start as it did when it was recorded. Every connection that was opened then is one
that a feed opens now; until it comes, the feed waits. The clock of the machine that recorded takes the place of ours,
so delays and skews are those that were seen then. Prices bear the present time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from cotacoes.adapters.websocket_client import RawLink
from cotacoes.errors import SettingError, StreamUnavailableError
from cotacoes.feed_service.feeds import Clocks
from cotacoes.feed_service.frames import Closed, Frame, Line, Opened, frame_files, read_lines
from cotacoes.model.quote import parse_time
from cotacoes.observability.logs import get_logger

BATCH_LINES = 1_000  # read by a thread at once: some 10 ms
AHEAD_LINES_MAX = 100_000  # of one venue, whose feed does not read them: the oldest are then lost


class RecordedLink:
    """A link on which recorded frames arrive."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque(maxlen=AHEAD_LINES_MAX)
        self._news = asyncio.Event()
        self._is_over = False

    def put(self, frame: bytes) -> None:
        """The next frame has come."""
        self._frames.append(frame)
        self._news.set()

    def end(self) -> None:
        """The connection has ended after the frames that came."""
        self._is_over = True
        self._news.set()

    async def send(self, text: str) -> None:
        """Nobody listens: what was sent then has been answered."""

    async def receive(self) -> bytes:
        while not self._frames:
            if self._is_over:
                raise StreamUnavailableError("the recorded connection ends here")
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft()

    async def hand_over(self, take: Callable[[bytes], None]) -> NoReturn:
        while True:
            take(await self.receive())
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Leave it: what still comes on it belongs to nobody."""
        self._frames.clear()
        self.end()


class Playback:
    """Plays files of recorded frames, once; `run` is its task. SettingError if they cannot be read."""

    def __init__(self, paths: Sequence[Path], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = read_lines(frame_files(paths))
        first = next(self._lines, None)
        if first is None:
            raise SettingError(f"{paths[0]} holds no recorded frame")
        self._lines = itertools.chain([first], self._lines)
        self._began = parse_time(first.at)
        self._clock = clock
        self._started_s = clock()
        self._links: dict[str, RecordedLink] = {}
        self._unopened: dict[str, deque[RecordedLink]] = {}
        self._news = asyncio.Event()

    @property
    def clocks(self) -> Clocks:
        """The clocks of the feeds: monotonic seconds are ours, Unix seconds those of the recording."""
        began_s = self._began.timestamp()
        return Clocks(self._clock, lambda: began_s + self._clock() - self._started_s)

    def connect_to(self, venue: str) -> Callable[[], Awaitable[RawLink]]:
        """What gives a feed the venue's next recorded connection, once its time has come."""

        async def connect() -> RawLink:
            while not self._unopened.get(venue):
                await self._news.wait()
            return self._unopened[venue].popleft()

        return connect

    async def run(self) -> None:
        """Let each line arrive at its time, to the end of the recording."""
        while batch := await asyncio.to_thread(self._next_batch):
            for at, line in batch:
                due_s = self._started_s + (at - self._began).total_seconds()
                if (wait_s := due_s - self._clock()) > 0:
                    await asyncio.sleep(wait_s)
                self._arrive(line)
            await asyncio.sleep(0)
        get_logger().info("replay.ended")
        for link in self._links.values():
            link.end()

    def _next_batch(self) -> list[tuple[datetime, Line]]:
        return [(parse_time(line.at), line) for line in itertools.islice(self._lines, BATCH_LINES)]

    def _arrive(self, line: Line) -> None:
        match line:
            case Opened(venue=venue):
                self._links[venue] = link = RecordedLink()
                self._unopened.setdefault(venue, deque(maxlen=1)).append(link)
                self._news.set()
                self._news = asyncio.Event()
            case Frame(venue=venue):
                if venue in self._links:
                    self._links[venue].put(line.data)
            case Closed(venue=venue):
                if venue in self._links:
                    self._links[venue].end()
