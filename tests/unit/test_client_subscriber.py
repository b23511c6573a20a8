"""The subscriber shows what the follower hands on, for people and for programs, and says in the log what changes."""

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog.testing
from tests.unit.harness_feed_consumer import FeedSystem, Scenario, following

from cotacoes import config
from cotacoes.client_subscriber import app
from cotacoes.client_subscriber.lines import LineFormatter, as_json_line
from cotacoes.client_subscriber.output import LINES_MAX, Output
from cotacoes.client_subscriber.since import read_since
from cotacoes.errors import SettingError
from cotacoes.feed.consumer import RECONNECT_MOST_S
from cotacoes.feed.feeds import Back, FeedEvent, Silent
from cotacoes.model.quote import Position, Quote
from cotacoes.observability.printer import descriptor_writer
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import GapDetected, GapFilled, GapLost, QuoteReceived
from cotacoes.web.process import Stop

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def quote(seq: int, price: str = "67012.3400", epoch: int = 5, coin: str = "bitcoin") -> Quote:
    return Quote(coin, "USD", Decimal(price), epoch, seq, NOON, NOON, "sim")


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

    async def put(self, line: bytes) -> None:
        await self.reading.wait()
        self.records.append(json.loads(line))


def showing(scenario: Scenario, collected: Collected, *, log_changes: bool = True) -> list[str]:
    """Run a subscriber of bitcoin beside the scenario, in virtual time; the events of its log."""
    subscriber = app.Subscriber(collected, render=as_json_line, log_changes=log_changes)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        following(scenario, take=lambda _: subscriber.show, beside=[subscriber.watch_reader])
    return [entry["event"] for entry in logs]


@pytest.mark.parametrize("log_changes", [True, False], ids=["for a program", "for people"])
def test_each_change_of_state_is_logged_once_and_quotes_never(log_changes: bool) -> None:
    """If people see it in the lines already, only what is no event of a feed is logged."""
    collected = Collected()

    async def scenario(world: FeedSystem) -> None:
        await world.publish()
        await asyncio.sleep(1)
        world.bus.cut()
        world.bus.away = True
        await asyncio.sleep(60)
        world.bus.away = False
        await asyncio.sleep(RECONNECT_MOST_S + 0.01)
        world.record(2)
        await world.publish()
        await asyncio.sleep(1)
        world.record(1)
        world.history.floor["bitcoin"] = 5
        await world.publish()
        await asyncio.sleep(1)
        collected.reading.clear()
        await world.publish(2)
        await asyncio.sleep(10)
        collected.reading.set()
        await asyncio.sleep(1)

    logged = showing(scenario, collected, log_changes=log_changes)
    changes = ["feed.silent", "feed.back", "gap.detected", "gap.filled", "gap.detected", "gap.lost", "gap.filled"]
    assert [event for event in logged if event not in changes] == [
        "bus.away", "bus.back", "output.stuck", "output.flowing"
    ]  # fmt: skip
    assert [event for event in logged if event in changes] == (changes if log_changes else [])
    kinds = ["quote", "silent", "back", "gap", "quote", "quote", "quote", "recovered", "gap", "gone"]
    assert [record["type"] for record in collected.records[:10]] == kinds


def test_a_reader_that_is_only_slow_is_not_reported_as_stuck() -> None:
    collected = Collected()

    async def scenario(world: FeedSystem) -> None:
        for _ in range(1, 20):
            collected.reading.clear()  # stuck at every look, and a line further each time
            await world.publish()
            await asyncio.sleep(app.WATCH_INTERVAL_S / 2)
            collected.reading.set()
            await asyncio.sleep(0)
            collected.reading.clear()
            await asyncio.sleep(app.WATCH_INTERVAL_S / 2)

    assert "output.stuck" not in showing(scenario, collected)
    assert len(collected.records) >= 18


# how it is shown


def shown(*events: FeedEvent, coloured: bool = False) -> list[str]:
    lines = LineFormatter(8, coloured=coloured)
    return [lines.line(event, NOON + timedelta(milliseconds=200)) for event in events]


def gap(after: Position | None, through: Position, reason: Reason = Reason.LOST) -> Gap:
    return Gap("bitcoin", after, through, reason)


def test_a_quote_is_one_calm_line_with_its_price_digit_for_digit() -> None:
    _, line = shown(QuoteReceived(quote(41, "67000")), QuoteReceived(quote(42, epoch=1732400000000)))
    assert line == "12:00:00  bitcoin   67012.3400 USD  ▲  1732400000000-42  0.2 s  sim\n"


def test_each_price_is_compared_with_the_one_before_it() -> None:
    prices = [("bitcoin", "3"), ("ethereum", "9"), ("bitcoin", "2"), ("bitcoin", "5"), ("bitcoin", "5.0")]
    lines = shown(*(QuoteReceived(quote(seq, price, coin=coin)) for seq, (coin, price) in enumerate(prices, 1)))
    assert [next(arrow for arrow in "▲▼·" if arrow in line) for line in lines] == ["·", "·", "▼", "▲", "·"]


def test_prices_are_aligned_to_the_right() -> None:
    first, second = shown(QuoteReceived(quote(1, "67012.34")), QuoteReceived(quote(2, "3512.10")))
    assert first.index(" USD") == second.index(" USD")


def test_lines_about_gaps_name_their_positions() -> None:
    def missed(after: Position | None, through: Position) -> str:
        return shown(GapDetected(gap(after, through)))[0]

    assert "bitcoin   missed 5-2 to …-4\n" in missed(Position(5, 1), Position(5, 4))
    assert "bitcoin   missed 5-2\n" in missed(Position(5, 1), Position(5, 2))
    assert "missed all after 5-1 to 6-4\n" in missed(Position(5, 1), Position(6, 4))
    assert "missed all from the first one to 5-4\n" in missed(None, Position(5, 4))
    (back,) = shown(GapFilled("bitcoin", Position(5, 1), Position(5, 18), 17))
    assert "bitcoin   recovered 17, through 5-18\n" in back
    gone, rewritten, all_of_it = shown(
        GapLost(gap(Position(5, 1), Position(5, 4), Reason.GONE)),
        GapLost(gap(Position(5, 1), Position(5, 1), Reason.REWRITTEN)),
        GapLost(gap(None, Position(5, 1), Reason.REWRITTEN)),
    )
    assert "bitcoin   gone: 5-2 to …-4, no longer in the history\n" in gone
    assert "the history was rewritten: it does not contain 5-1\n" in rewritten
    assert "the history was rewritten: it does not contain 5-1\n" in all_of_it


def test_lines_are_coloured_only_on_request() -> None:
    lost = gap(Position(5, 1), Position(5, 2))
    events: list[FeedEvent] = [QuoteReceived(quote(1)), GapDetected(lost), GapLost(lost), Silent("bitcoin")]
    plain: list[FeedEvent] = [Back("bitcoin"), GapFilled("bitcoin", None, Position(5, 1), 1)]
    assert not any("\x1b" in line for line in shown(*events, *plain))
    assert all("\x1b[0m" in line for line in shown(*events, coloured=True))
    up, down = shown(
        QuoteReceived(quote(1, "1")), QuoteReceived(quote(2, "2")), QuoteReceived(quote(3, "1")), coloured=True
    )[1:]
    assert "\x1b[32m▲" in up
    assert "\x1b[31m▼" in down


def test_json_has_the_fields_of_a_quote_of_a_gap_and_of_its_end() -> None:
    shown = json.loads(as_json_line(QuoteReceived(quote(42))))
    assert shown["price"] == "67012.3400"
    assert list(shown) == [
        "type",
        "coin",
        "currency",
        "price",
        "epoch",
        "seq",
        "observed_at",
        "at",
        "origin",
        "prev",
    ]
    fields = {"coin": "bitcoin", "after": "5-1", "through": "5-4", "reason": "lost"}
    assert json.loads(as_json_line(GapDetected(gap(Position(5, 1), Position(5, 4))))) == {"type": "gap", **fields}
    lost = GapLost(gap(None, Position(5, 4), Reason.GONE))
    assert json.loads(as_json_line(lost)) == {"type": "gone", **fields, "after": None, "reason": "gone"}
    assert json.loads(as_json_line(GapFilled("bitcoin", Position(5, 1), Position(5, 4), 3))) == {
        "type": "recovered",
        "coin": "bitcoin",
        "after": "5-1",
        "through": "5-4",
        "quotes": 3,
    }


# after which position it begins


def test_since_names_a_position_for_one_coin_or_for_each_of_several() -> None:
    assert read_since([], ["bitcoin"]) == {}
    assert read_since(["5-1"], ["bitcoin"]) == {"bitcoin": Position(5, 1)}
    both = read_since(["Bitcoin=5-1", "ethereum=6-2"], ["bitcoin", "ethereum", "solana"])
    assert both == {"bitcoin": Position(5, 1), "ethereum": Position(6, 2)}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["5-1"], "2 coins are shown: write --since COIN=5-1"),
        (["bitcoin=5"], "--since bitcoin=5: a position is written EPOCH-SEQ"),
        (["bitcoin="], "--since bitcoin=: a position is written EPOCH-SEQ"),
        (["solana=5-1"], "--since solana=5-1: solana is not shown; the coins are bitcoin, ethereum"),
        (["=5-1"], "--since =5-1: an empty name is not shown"),
        (["bitcoin=5-1", "BITCOIN=5-2"], "--since BITCOIN=5-2: bitcoin was given twice"),
    ],
)
def test_an_invalid_since_is_refused_by_name(texts: Sequence[str], reason: str) -> None:
    with pytest.raises(SettingError) as refused:
        read_since(texts, ["bitcoin", "ethereum"])
    assert reason in str(refused.value)


# standard output


def test_lines_come_out_whole_and_in_order() -> None:
    written: list[bytes] = []

    async def scenario() -> None:
        async with Output(written.append, lambda _: None) as output:
            for number in range(3 * LINES_MAX):
                await output.put(b"%d\n" % number)

    asyncio.run(scenario())
    assert written == [b"%d\n" % number for number in range(3 * LINES_MAX)]


def test_a_reader_that_does_not_read_delays_the_writer_but_not_the_loop() -> None:
    reading = threading.Event()
    written: list[bytes] = []

    def write(line: bytes) -> None:
        reading.wait(60)
        written.append(line)

    async def scenario() -> None:
        async with Output(write, lambda _: None) as output:
            for _ in range(LINES_MAX):
                await output.put(b"x")
            assert output.is_stuck
            stuck = asyncio.create_task(output.put(b"last"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not stuck.done()
            reading.set()
            await stuck

    asyncio.run(scenario())
    assert len(written) == LINES_MAX + 1


def test_the_end_of_the_reader_is_reported_once_and_the_rest_is_discarded() -> None:
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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), None),
        (OSError(28, "No space left on device"), "standard output cannot be written (No space left on device)"),
    ],
)
def test_a_reader_that_leaves_is_no_failure_but_a_full_disk_is(error: OSError, said: str | None) -> None:
    stop = Stop()
    end = app.OutputEnd(stop)
    end(error)
    assert stop.event.is_set()
    assert (None if end.failure is None else str(end.failure)) == said


def test_an_unknown_coin_is_refused_with_the_nearest_name() -> None:
    async def ask(_: config.Settings) -> list[str]:
        return ["bitcoin", "solana"]

    for wrong, near in (("bitcon", "bitcoin"), ("solane", "solana")):
        with pytest.raises(SettingError, match=f"did you mean {near}"):
            asyncio.run(app.run(config.load({}), Stop(), coins=[wrong], ask=ask))
    with pytest.raises(SettingError, match="--since 5"):
        asyncio.run(app.run(config.load({}), Stop(), coins=["bitcoin"], since=["5"], ask=ask))


def test_a_possible_name_is_accepted_while_the_coins_are_unknown() -> None:
    assert app._chosen(["dogecoin"], [], ["bitcoin"]) == ["dogecoin"]
    assert app._chosen([], [], ["bitcoin"]) == ["bitcoin"]
    with pytest.raises(SettingError, match="that name is not quoted here"):
        app._chosen(["Doge Coin"], [], ["bitcoin"])
