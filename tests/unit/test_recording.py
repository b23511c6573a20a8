"""A recording holds each quote once, in order, and a gap only for quotes that the history did not give by the end."""

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit import fake_event_loop
from tests.unit.harness_feed_consumer import COIN, FeedSystem

from cotacoes.client_subscriber.recording import FINISH_S, RecordingFile, StreamRecorder
from cotacoes.errors import SettingError
from cotacoes.feed.consumer import RECONNECT_MOST_S

Scenario = Callable[[FeedSystem], Coroutine[Any, Any, None]]


def recorded(path: Path, scenario: Scenario, *, record_first: int = 3) -> list[Any]:
    """Record beside the scenario, in virtual time: the seq of each quote, (after, through) of each gap."""

    async def run() -> None:
        world = FeedSystem()
        world.record(record_first)
        with RecordingFile(path, [COIN]) as file:
            recorder = StreamRecorder([COIN], file, world.bus, world.history)
            async with world.bus:
                running = asyncio.create_task(recorder.run())
                await asyncio.sleep(0.1)
                await scenario(world)
                await asyncio.sleep(0.1)
                running.cancel()
                await asyncio.wait([running])
                ended_s = asyncio.get_running_loop().time()
                await recorder.finish()
                assert asyncio.get_running_loop().time() - ended_s <= FINISH_S
        assert recorder.quotes == len([line for line in lines_of(path) if isinstance(line, int)])

    fake_event_loop.run(run())
    return lines_of(path)


def lines_of(path: Path) -> list[Any]:
    head, *lines = map(json.loads, path.read_bytes().splitlines())
    assert (head["type"], head["coins"]) == ("recording", [COIN])
    return [one["seq"] if one["type"] == "quote" else (one["after"], one["through"]) for one in lines]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording.ndjson"


def test_a_recording_begins_with_the_first_quote_received(path: Path) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish(2)

    assert recorded(path, scenario) == [4, 5]


def test_a_recording_without_earlier_history_holds_all_of_it(path: Path) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.beat()
        world.record(2)
        await world.publish(1)

    assert recorded(path, scenario, record_first=0) == [1, 2, 3]


def test_lost_messages_are_in_their_place_however_long_the_history_was_away(path: Path) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish()
        world.history.away = True
        world.record(2)
        await world.publish()
        await asyncio.sleep(600)
        await world.publish()
        world.history.away = False
        await asyncio.sleep(RECONNECT_MOST_S)

    assert recorded(path, scenario) == [4, 5, 6, 7, 8]


def test_quotes_that_were_not_received_are_written_at_the_end(path: Path) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish()
        await asyncio.sleep(0.1)
        world.bus.away = True
        world.bus.cut()
        world.record(2500)

    assert recorded(path, scenario) == list(range(4, 2505))


def test_a_gap_stands_for_what_the_history_no_longer_holds(path: Path) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish()
        world.record(3)
        world.history.floor[COIN] = 6
        await world.publish()

    assert recorded(path, scenario) == [4, ("5-4", "5-6"), 7, 8]


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_a_history_that_does_not_answer_at_the_end_costs_no_received_quote(path: Path, how: str) -> None:
    async def scenario(world: FeedSystem) -> None:
        await world.publish()
        setattr(world.history, how, True)
        world.record(2)
        await world.publish(2)

    assert recorded(path, scenario) == [4, ("5-4", "5-6"), 7, 8, ("5-8", None)]


def test_a_coin_without_messages_has_no_line(path: Path) -> None:
    async def scenario(world: FeedSystem) -> None:
        world.history.away = True

    assert recorded(path, scenario) == []


def test_a_name_that_ends_in_gz_is_packed_and_a_file_that_exists_is_not_touched(tmp_path: Path) -> None:
    packed = tmp_path / "recording.ndjson.gz"
    with RecordingFile(packed, [COIN]):
        pass
    assert gzip.decompress(packed.read_bytes()).startswith(b'{"v":1,"type":"recording"')
    with pytest.raises(SettingError, match="exists already"), RecordingFile(packed, [COIN]):
        pass


class _Full(RecordingFile):
    def write(self, line: bytes) -> None:
        if b'"seq":5' in line:
            raise SettingError("the disk is full")
        super().write(line)


def test_a_full_disk_ends_the_recording_with_a_readable_error(path: Path) -> None:
    async def run() -> None:
        world = FeedSystem()
        world.record(3)
        with _Full(path, [COIN]) as file:
            recorder = StreamRecorder([COIN], file, world.bus, world.history)
            async with world.bus:
                running = asyncio.create_task(recorder.run())
                await asyncio.sleep(0.1)
                await world.publish()
                await asyncio.sleep(0.1)
                running.cancel()
                await asyncio.wait([running])
                world.record(1)
                with pytest.raises(SettingError, match="full"):
                    await recorder.finish()

    fake_event_loop.run(run())
