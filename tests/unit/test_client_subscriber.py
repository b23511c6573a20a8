"""The subscriber shows each quote once, says what it missed and who is silent, and survives whatever the bus does."""

import asyncio
import json
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import structlog.testing
from tests.unit import virtual_time

from cotacoes import config
from cotacoes.adapters.bus_memory import MemoryBus
from cotacoes.client_subscriber import app
from cotacoes.client_subscriber.feeds import SILENT_AFTER_S, Back, Feeds, Missed, Seen, Silent
from cotacoes.client_subscriber.lines import Lines, as_json_line
from cotacoes.client_subscriber.output import LINES_MAX, Output, descriptor_writer
from cotacoes.errors import SettingError
from cotacoes.live import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.patterns.pub_sub import MESSAGE_BYTES_MAX, Gap, Reason
from cotacoes.quote import Position, Quote
from cotacoes.service import Stop

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CHANNEL = channel("bitcoin")


def quote(seq: int, price: str = "67012.3400", epoch: int = 5, **fields: Any) -> Quote:
    return Quote(fields.get("coin", "bitcoin"), "USD", Decimal(price), epoch, seq, NOON, NOON, "sim")


def beat(seq: int) -> bytes:
    return encode_heartbeat(Heartbeat("bitcoin", Position(5, seq), None, NOON))


def message(*seqs: int) -> bytes:
    return b"\n".join(encode_quote(quote(seq)) for seq in seqs)


class Collected:
    """Output in memory, decoded again."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        self.reading.set()

    @property
    def is_stuck(self) -> bool:
        return not self.reading.is_set()

    @property
    def written(self) -> int:
        return len(self.records)

    async def put(self, line: bytes) -> bool:
        waited = self.is_stuck
        await self.reading.wait()
        self.records.append(json.loads(line))
        return waited

    def told(self) -> list[tuple[Any, ...]]:
        """(type, seq) of a quote, (type, after, through) of a gap, (type,) of the rest."""
        wanted = {"quote": ("type", "seq"), "gap": ("type", "after", "through")}
        return [tuple(record[key] for key in wanted.get(record["type"], ("type",))) for record in self.records]


class LoggedBus(MemoryBus):
    """Remembers when it was listened to; `hangs_up` ends every link at once."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed_at: list[float] = []
        self.hangs_up = False

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        self.subscribed_at.append(asyncio.get_running_loop().time())
        if self.hangs_up:
            asyncio.get_running_loop().call_soon(self.cut)
        return super().subscribe(channels)


def watching(
    scenario: Callable[[LoggedBus, Collected], Coroutine[Any, Any, None]], coins: Sequence[str] = ("bitcoin",)
) -> Collected:
    """Run a subscriber of bitcoin beside the scenario, in virtual time; later there are these coins."""
    collected = Collected()

    async def ask() -> list[str]:
        return list(coins)

    async def run() -> None:
        clock = asyncio.get_running_loop().time
        feeds = Feeds(["bitcoin"], clock())
        subscriber = app.Subscriber(
            feeds, collected, render=as_json_line, log_changes=True, clock=clock, random=random.Random(1)
        )
        async with LoggedBus() as bus, asyncio.TaskGroup() as group:
            work = [subscriber.listen(bus, feeds.channels), subscriber.watch(), subscriber.join_newcomers(bus, ask)]
            tasks = [group.create_task(one) for one in work]
            await asyncio.sleep(0.1)
            await scenario(bus, collected)
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()

    virtual_time.run(run())
    return collected


async def publish(bus: MemoryBus, *messages: bytes) -> None:
    await bus.publish([(CHANNEL, each) for each in messages])


def test_a_coin_that_comes_later_is_listened_to_as_well_and_once() -> None:
    async def scenario(bus: LoggedBus, collected: Collected) -> None:
        for _ in range(3):
            await asyncio.sleep(app.JOIN_INTERVAL_S)
            await bus.publish([("cotacoes:solana", message(1).replace(b'"bitcoin"', b'"solana"'))])
        assert len(bus.subscribed_at) == 2
        await publish(bus, message(1))

    told = [one for one in watching(scenario, ["bitcoin", "solana"]).records if one["type"] == "quote"]
    assert [(one["coin"], one["seq"]) for one in told] == [("solana", 1), ("bitcoin", 1)]


def test_each_new_quote_is_shown_once_from_the_first_that_comes() -> None:
    async def scenario(bus: MemoryBus, _: Collected) -> None:
        await publish(bus, message(7, 8), beat(8), message(8), message(9))

    assert watching(scenario).told() == [("quote", 7), ("quote", 8), ("quote", 9)]


def test_what_is_missed_while_the_link_is_dead_is_told_by_the_next_heartbeat() -> None:
    async def scenario(bus: MemoryBus, _: Collected) -> None:
        await publish(bus, message(1))
        await asyncio.sleep(0.1)
        bus.cut()
        bus.away = True
        await asyncio.sleep(60)
        bus.away = False
        await asyncio.sleep(6)
        await publish(bus, beat(4), message(5))

    told = watching(scenario).told()
    assert told == [("quote", 1), ("silent",), ("back",), ("gap", "5-1", "5-4"), ("quote", 5)]


def test_a_dead_link_is_made_again_within_two_seconds_of_the_bus_being_back() -> None:
    async def scenario(bus: LoggedBus, _: Collected) -> None:
        bus.cut()
        bus.away = True
        await asyncio.sleep(600)
        pauses = [later - earlier for earlier, later in pairwise(bus.subscribed_at)]
        assert max(pauses[:2]) <= 0.3
        assert 1.5 < max(pauses) <= app.RECONNECT_MOST_S
        bus.away = False
        await asyncio.sleep(app.RECONNECT_MOST_S + 0.01)
        assert await bus.publish([(CHANNEL, message(1))]) == [1]

    watching(scenario)


def test_a_bus_that_accepts_and_hangs_up_is_not_hammered() -> None:
    async def scenario(bus: LoggedBus, _: Collected) -> None:
        bus.hangs_up = True
        bus.cut()
        await asyncio.sleep(60)
        assert len(bus.subscribed_at) < 100

    watching(scenario)


def test_after_good_data_the_first_pause_is_short_again() -> None:
    async def scenario(bus: LoggedBus, _: Collected) -> None:
        bus.cut()
        bus.away = True
        await asyncio.sleep(60)
        bus.away = False
        await asyncio.sleep(app.RECONNECT_MOST_S + 0.01)
        await publish(bus, message(1))
        await asyncio.sleep(1)
        bus.cut()
        await asyncio.sleep(0.11)
        assert await bus.publish([(CHANNEL, message(2))]) == [1]

    watching(scenario)


def test_each_change_of_state_is_logged_once_and_quotes_never() -> None:
    async def scenario(bus: LoggedBus, collected: Collected) -> None:
        await publish(bus, message(1), b"nonsense", b"more of it")
        await asyncio.sleep(1)
        bus.cut()
        bus.away = True
        await asyncio.sleep(60)
        bus.away = False
        await asyncio.sleep(app.RECONNECT_MOST_S + 0.01)
        await publish(bus, message(3))
        await asyncio.sleep(1)
        collected.reading.clear()
        await publish(bus, message(4), message(5))
        await asyncio.sleep(10)
        collected.reading.set()
        await asyncio.sleep(1)

    with structlog.testing.capture_logs() as logs:
        watching(scenario)
    assert [entry["event"] for entry in logs] == [
        "message.refused", "bus.away", "feed.silent", "bus.back", "feed.back", "gap.found", "output.stuck",
        "output.flowing",
    ]  # fmt: skip
    found = logs[5]
    assert (found["coin"], found["after"], found["through"], found["reason"]) == ("bitcoin", "5-1", "5-2", "lost")


def test_a_feed_without_heartbeats_is_silent_once_and_back_with_the_first_thing_heard() -> None:
    async def scenario(bus: MemoryBus, collected: Collected) -> None:
        await asyncio.sleep(60)
        assert collected.told() == [("silent",)]
        await publish(bus, beat(3))

    assert watching(scenario).told() == [("silent",), ("back",)]


def test_a_feed_is_not_called_silent_because_nobody_read_what_it_said() -> None:
    async def scenario(bus: MemoryBus, collected: Collected) -> None:
        collected.reading.clear()
        for seq in range(1, 61):
            await publish(bus, message(seq))
            await asyncio.sleep(1)
        bus.cut()  # as Redis does to a listener that does not listen
        collected.reading.set()
        await asyncio.sleep(2)
        await publish(bus, beat(60))

    assert watching(scenario).told() == [("quote", 1), ("gap", "5-1", "5-60")]


def test_messages_that_are_none_change_nothing() -> None:
    async def scenario(bus: MemoryBus, _: Collected) -> None:
        other = encode_quote(quote(9, coin="ethereum"))
        coloured = encode_quote(quote(2)).replace(b'"USD"', b'"\\u001b[31m"')
        nested = b'{"v":1,"x":' + b"[" * 100_000
        await publish(bus, message(1), b"nonsense", other, coloured, nested, b"x" * MESSAGE_BYTES_MAX, message(2))

    shown = watching(scenario)
    assert shown.told() == [("quote", 1), ("quote", 2)]
    assert {record["currency"] for record in shown.records} == {"USD"}


@pytest.mark.parametrize(
    ("position", "prev"),
    [((5, 0), None), ((5, -3), None), ((5, 2**31), None), ((-1, 2), None), ((2**63, 2), None), ((6, 1), (6, 9))],
)
def test_a_line_whose_positions_can_not_be_is_refused(position: tuple[int, int], prev: tuple[int, int] | None) -> None:
    feeds = Feeds(["bitcoin"], 0.0)
    before = None if prev is None else Position(*prev)
    bad = encode_heartbeat(Heartbeat("bitcoin", Position(*position), before, NOON))
    with pytest.raises(ValueError, match="position"):
        feeds.take(CHANNEL, bad, 1.0)


def test_feeds_of_several_coins_are_kept_apart() -> None:
    feeds = Feeds(["bitcoin", "ethereum"], 0.0)
    assert feeds.channels == ["cotacoes:bitcoin", "cotacoes:ethereum"]
    feeds.take(CHANNEL, message(1), 1.0)
    events = feeds.take("cotacoes:ethereum", encode_quote(quote(9, coin="ethereum")), 1.0)
    assert [type(event) for event in events] == [Seen]
    assert feeds.fall_silent(SILENT_AFTER_S + 0.5) == []
    feeds.take(CHANNEL, beat(1), 2.0)
    assert feeds.fall_silent(SILENT_AFTER_S + 1.5) == [Silent("ethereum")]


def test_a_message_of_more_than_the_largest_size_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="more than"):
        Feeds(["bitcoin"], 0.0).take(CHANNEL, b"\n" * (MESSAGE_BYTES_MAX + 1), 1.0)


def test_each_price_is_shown_against_the_one_before_it() -> None:
    feeds = Feeds(["bitcoin"], 0.0)
    prices = ["3", "2", "5"]
    events = [feeds.take(CHANNEL, encode_quote(quote(seq, price)), 1.0) for seq, price in enumerate(prices, 1)]
    assert [event.before for (event,) in events if isinstance(event, Seen)] == [None, Decimal(3), Decimal(2)]


def test_a_silent_feed_stays_silent_when_nobody_listened() -> None:
    feeds = Feeds(["bitcoin"], 0.0)
    assert feeds.fall_silent(10.0) == [Silent("bitcoin")]
    feeds.rearm(11.0)
    assert feeds.fall_silent(30.0) == []
    assert feeds.take(CHANNEL, beat(1), 31.0) == [Back("bitcoin")]


def test_no_feed_is_called_silent_for_the_time_in_which_nobody_listened() -> None:
    feeds = Feeds(["bitcoin"], 0.0)
    feeds.rearm(100.0)
    assert feeds.fall_silent(101.0) == []


# how it is shown


def lines(event: Any, *, coloured: bool = False) -> str:
    return Lines(8, coloured=coloured).line(event, NOON + timedelta(milliseconds=200))


def test_a_quote_is_one_calm_line_with_its_price_digit_for_digit() -> None:
    up = lines(Seen(quote(42, epoch=1732400000000), Decimal(67000)))
    assert up == "12:00:00  bitcoin   67012.3400 USD  ▲  1732400000000-42  0.2 s  sim\n"
    assert "▼" in lines(Seen(quote(1), Decimal(68000)))
    assert "·" in lines(Seen(quote(1), None))


def test_prices_are_aligned_to_the_right() -> None:
    shown = Lines(8, coloured=False)
    first, second = (shown.line(Seen(quote(1, price), None), NOON) for price in ("67012.34", "3512.10"))
    assert first.index(" USD") == second.index(" USD")


def test_a_gap_names_the_positions_that_are_missing() -> None:
    def missed(after: Position | None, through: Position, reason: Reason = Reason.LOST) -> str:
        return lines(Missed(Gap("bitcoin", after, through, reason)))

    assert "bitcoin   missed 5-2 to …-4\n" in missed(Position(5, 1), Position(5, 4))
    assert "bitcoin   missed 5-2\n" in missed(Position(5, 1), Position(5, 2))
    assert "missed all after 5-1 to 6-4\n" in missed(Position(5, 1), Position(6, 4))
    assert "missed all from the first one to 5-4\n" in missed(None, Position(5, 4))
    assert "rewritten: 5-1 is not in it" in missed(Position(5, 1), Position(5, 1), Reason.REWRITTEN)


def test_colour_comes_only_when_asked_for() -> None:
    events = [Seen(quote(1), Decimal(1)), Missed(Gap("bitcoin", Position(5, 1), Position(5, 2), Reason.LOST))]
    assert not any("\x1b" in lines(event) for event in [*events, Silent("bitcoin"), Back("bitcoin")])
    assert all("\x1b[0m" in lines(event, coloured=True) for event in events)


def test_json_has_the_fields_of_a_quote_and_of_a_gap() -> None:
    told = json.loads(as_json_line(Seen(quote(42), None)))
    assert told["price"] == "67012.3400"
    assert list(told) == ["type", "coin", "currency", "price", "epoch", "seq", "observed_at", "at", "origin", "prev"]
    gap = Gap("bitcoin", Position(5, 1), Position(5, 4), Reason.LOST)
    assert json.loads(as_json_line(Missed(gap))) == {
        "type": "gap",
        "coin": "bitcoin",
        "after": "5-1",
        "through": "5-4",
        "reason": "lost",
    }


def test_a_reader_that_is_only_slow_is_not_called_stuck() -> None:
    async def scenario(bus: MemoryBus, collected: Collected) -> None:
        for seq in range(1, 20):
            collected.reading.clear()  # stuck at every look, and a line further each time
            await publish(bus, message(seq), beat(seq))
            await asyncio.sleep(app.WATCH_INTERVAL_S / 2)
            collected.reading.set()
            await asyncio.sleep(0)
            collected.reading.clear()
            await asyncio.sleep(app.WATCH_INTERVAL_S / 2)

    with structlog.testing.capture_logs() as logs:
        collected = watching(scenario)
    assert len(collected.records) >= 18
    assert "output.stuck" not in [entry["event"] for entry in logs]


# standard output


def test_lines_come_out_whole_and_in_order() -> None:
    written: list[bytes] = []

    async def scenario() -> None:
        async with Output(written.append, lambda _: None) as output:
            for number in range(3 * LINES_MAX):
                await output.put(b"%d\n" % number)

    asyncio.run(scenario())
    assert written == [b"%d\n" % number for number in range(3 * LINES_MAX)]


def test_a_reader_that_does_not_read_holds_up_whoever_writes_but_not_the_loop() -> None:
    reading = threading.Event()
    written: list[bytes] = []

    def write(line: bytes) -> None:
        reading.wait(60)
        written.append(line)

    async def scenario() -> None:
        async with Output(write, lambda _: None) as output:
            waited = [await output.put(b"x") for _ in range(LINES_MAX)]
            assert output.is_stuck
            assert not any(waited)
            stuck = asyncio.create_task(output.put(b"last"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not stuck.done()
            reading.set()
            assert await stuck

    asyncio.run(scenario())
    assert len(written) == LINES_MAX + 1


def test_an_end_of_the_reader_is_told_once_and_the_rest_is_thrown_away() -> None:
    ends: list[OSError] = []
    reader, writer = os.pipe()
    os.close(reader)

    async def scenario() -> None:
        async with Output(descriptor_writer(writer), ends.append) as output:
            for _ in range(3 * LINES_MAX):
                await output.put(b"x\n")

    asyncio.run(scenario())
    os.close(writer)
    assert [type(end) for end in ends] == [BrokenPipeError]


def test_a_line_longer_than_a_pipe_that_another_made_non_blocking_comes_out_whole() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    line = bytes(range(256)) * 4096

    def write() -> None:
        descriptor_writer(writer)(line)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    read = b""
    while chunk := os.read(reader, 65_536):
        read += chunk
    thread.join()
    os.close(reader)
    assert read == line


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError(32, "Broken pipe"), 0), (OSError(28, "No space"), 1)])
def test_an_end_of_the_readers_choosing_is_no_failure_and_a_full_disk_is(error: OSError, code: int) -> None:
    async def scenario() -> int:
        stop = Stop()
        app._end(stop, error)
        assert stop.event.is_set()
        return stop.code

    assert asyncio.run(scenario()) == code


def test_a_coin_that_is_not_quoted_is_refused_with_the_nearest_name() -> None:
    async def ask(_: config.Settings) -> list[str]:
        return ["bitcoin", "solana"]

    for wrong, near in (("bitcon", "bitcoin"), ("solane", "solana")):
        with pytest.raises(SettingError, match=f"did you mean {near}"):
            asyncio.run(app.run(config.load({}), Stop(), coins=[wrong], ask=ask))


def test_where_nobody_says_which_coins_there_are_a_name_that_can_be_one_is_believed() -> None:
    assert app._chosen(["dogecoin"], [], ["bitcoin"]) == ["dogecoin"]
    assert app._chosen([], [], ["bitcoin"]) == ["bitcoin"]
    with pytest.raises(SettingError, match="that name is not quoted here"):
        app._chosen(["Doge Coin"], [], ["bitcoin"])
