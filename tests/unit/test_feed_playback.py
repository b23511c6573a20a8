"""The playback of recorded frames goes through the feeds that follow real venues, with the times seen then."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cotacoes.config import Settings
from cotacoes.errors import SettingError, StreamUnavailableError
from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.feeds import new_feeds
from cotacoes.feed_service.frames import Closed, Frame, FrameFiles, Line, Opened
from cotacoes.feed_service.playback import Playback, RecordedLink
from cotacoes.model.quote import format_time
from cotacoes.model.venue_symbols import VenueSymbol
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.web.upstreams import Upstreams

AT = datetime(2024, 3, 13, 9, 30, tzinfo=UTC)
DELAY = timedelta(milliseconds=40)
SYMBOLS = {"bitcoin": VenueSymbol("BTC/USD", "USD")}


def ticker(bid: str, ask: str, at: datetime, kind: str = "update") -> bytes:
    prices = f'"bid":{bid},"bid_qty":1,"ask":{ask},"ask_qty":1,"last":{bid}'
    book = f'{{"symbol":"BTC/USD",{prices},"timestamp":"{format_time(at)}"}}'
    return f'{{"channel":"ticker","type":"{kind}","data":[{book}]}}'.encode()


def recorded(folder: Path, *lines: Line) -> Path:
    files = FrameFiles(folder)
    files.write(lines)
    files.close()
    return folder


def frame(ms: int, bid: str, ask: str, kind: str = "update") -> Frame:
    at = AT + timedelta(milliseconds=ms)
    return Frame.of("kraken", at, ticker(bid, ask, at - DELAY, kind))


async def test_the_books_of_a_recording_are_those_that_the_venue_sent_then(tmp_path: Path) -> None:
    folder = recorded(
        tmp_path,
        Opened.of("kraken", AT, SYMBOLS),
        frame(10, "63297.70", "63297.8", "snapshot"),
        frame(20, "63297.7", "63297.90"),
        Closed(1, "kraken", format_time(AT + timedelta(milliseconds=30)), "cut"),
    )
    playback = Playback([folder])
    metrics, books = Metrics(), Books()
    settings = Settings(source=f"replay:{folder}/", venues="kraken")
    clocks = playback.clocks
    (feed,) = new_feeds(
        settings,
        FollowedCoins(["bitcoin"], ["kraken"], {}, file=None),
        books,
        price_of=lambda _: None,
        upstreams=Upstreams(metrics, random=random.Random(1), clock=clocks.clock, now=lambda: AT),
        metrics=FeedMetrics(metrics),
        clocks=clocks,
        connect_to=playback.connect_to,
    )
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        following = group.create_task(feed.run())
        await playback.run()
        while feed.status.last_closing is None:
            await asyncio.sleep(0.01)
        following.cancel()
    held = books.of("bitcoin")["kraken"]
    assert (held.book.bid, held.book.ask) == (Decimal("63297.7"), Decimal("63297.90"))
    assert str(held.book.ask) == "63297.90"
    # by the clock of the machine that recorded, whatever the time is now: the way took 40 ms, less what the test took
    assert feed.venue_clock.skew_s is not None
    assert feed.venue_clock.skew_s >= DELAY.total_seconds() - 0.001
    assert feed.status.counts.frames == 2


async def test_a_frame_does_not_arrive_before_its_time(tmp_path: Path) -> None:
    seconds = 0.0
    folder = recorded(tmp_path, Opened.of("okx", AT, {}), Frame.of("okx", AT + timedelta(hours=1), b"late"))
    playback = Playback([folder], clock=lambda: seconds)
    playing = asyncio.create_task(playback.run())
    async with asyncio.timeout(30):
        link = await playback.connect_to("okx")()
    receiving = asyncio.create_task(link.receive())
    await asyncio.sleep(0.05)
    assert not receiving.done()
    for task in (playing, receiving):
        task.cancel()


async def test_a_recorded_link_gives_its_frames_and_then_its_end() -> None:
    link = RecordedLink()
    link.put(b"one")
    link.end()
    assert await link.receive() == b"one"
    with pytest.raises(StreamUnavailableError):
        await link.receive()


def test_a_folder_without_a_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=json.dumps(str(tmp_path))[1:-1]):
        Playback([tmp_path])
