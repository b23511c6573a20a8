"""quote_service without its sockets, over a real log and twins in memory: what faults of log, shard, clock lead to."""

import asyncio
import contextlib
import json
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cotacoes.adapters import quote_log
from cotacoes.adapters.bus_memory import MemoryBus
from cotacoes.adapters.shard_memory import MemoryShard
from cotacoes.adapters.source_http import Fetched
from cotacoes.adapters.source_tape import TapePage
from cotacoes.errors import (
    HistoryUnavailableError,
    LogUnavailableError,
    PositionBeyondEndError,
    SettingError,
    SourceGoneError,
    SourceUnavailableError,
)
from cotacoes.live import Heartbeat, channel, decode_message
from cotacoes.patterns.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from cotacoes.patterns.retry import RetryPolicy
from cotacoes.quote import Observation, Position, Quote, first_gap
from cotacoes.quote_service.answers import AgeLimits, Answers
from cotacoes.quote_service.delivery import Delivery
from cotacoes.quote_service.guarded import GuardedCalls
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.poll import Poll
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.screen import JumpLimit, Screen
from cotacoes.quote_service.tape import PAUSE_S, TapeTaker
from cotacoes.service import background
from cotacoes.telemetry import Metrics, QuoteMetrics

COIN = "bitcoin"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTA = 2**30

pytestmark = pytest.mark.anyio


class Core:
    """The wired parts of quote_service for one coin on `shard`; the wall clock stands still until it is set."""

    def __init__(
        self, folder: Path, shard: MemoryShard | None = None, *, quota_bytes: int = QUOTA, keeps_times: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.wall = NOON
        self.seconds = 1000.0
        self.shard = shard or MemoryShard("shard1", [COIN])
        self.bus = MemoryBus()
        self.superseded = False
        self.said: list[Observation] | Exception = []
        metrics = QuoteMetrics(Metrics())
        dice = random.Random(1)
        self.history = CoinHistory(COIN, "shard1", now=lambda: self.wall, clock=lambda: self.seconds)
        histories, shards = {COIN: self.history}, {"shard1": self.shard}
        self.recorder = Recorder(
            folder, histories, shards, metrics, quota_bytes=quota_bytes, now=lambda: self.wall, clock=time.monotonic
        )
        self.publisher = Publisher(
            histories, self.bus, metrics, wait_s=0.05, now=lambda: self.wall, clock=time.monotonic
        )
        self.delivery = Delivery(
            self.history,
            self.shard,
            self.recorder,
            metrics,
            writer="a",
            random=dice,
            on_delivered=lambda _: self.publisher.wake(),
            on_superseded=self._stand_down,
        )
        self.calls = 0
        breaker = CircuitBreaker("source", CircuitBreakerConfig(), clock=lambda: self.seconds, random=dice)
        calls = GuardedCalls(breaker, RetryPolicy(), metrics, dice)
        jump = JumpLimit(Decimal(10), timedelta(seconds=300))
        self.poll = Poll(
            self,
            calls,
            Screen(histories, jump),
            self.recorder,
            metrics,
            interval_s=1.0,
            deadline_s=0.8,
            now=lambda: self.wall,
            clock=time.monotonic,
            on_recorded=self.hand_on,
        )
        self.pages: list[TapePage | Exception] = []
        self.asked: list[str | None] = []
        self.taker = TapeTaker(
            self,
            calls,
            Screen(histories, jump, is_tape=True),
            self.recorder,
            self.publisher,
            metrics,
            interval_s=0.0,
            deadline_s=0.8,
            keeps_times=keeps_times,
            now=lambda: self.wall,
            on_recorded=self.hand_on,
        )
        self.answers = Answers(
            self.recorder,
            shards,
            AgeLimits(5000, 300_000),
            is_live=lambda coin: coin in self.poll.live,
            breaker_state=lambda: "closed",
        )

    async def fetch(self) -> Fetched:
        """What the source says."""
        self.calls += 1
        if isinstance(self.said, Exception):
            raise self.said
        return Fetched(self.said, [])

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        """What the tape says."""
        self.asked.append(cursor)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page

    def hand_on(self, quotes: list[Quote]) -> None:
        self.publisher.add(quotes)
        self.delivery.wake()

    def _stand_down(self) -> None:
        self.superseded = True
        self.publisher.silence()
        self.recorder.retire()

    async def record(self, *prices: str) -> list[Quote]:
        """Record prices, each observed a millisecond after the one before, and hand them on."""
        observed = []
        for price in prices:
            self.wall += timedelta(milliseconds=1)
            observed.append(seen(price, self.wall))
        quotes = await self.recorder.record({COIN: observed})
        self.hand_on(quotes)
        return quotes

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """With delivery and publisher at work."""
        await self.recorder.start()
        try:
            async with background(self.delivery.run(), self.publisher.run()):
                yield
        finally:
            await self.recorder.close()

    async def page(self, after: Position | None = None) -> list[Position]:
        told = json.loads(await self.answers.after(COIN, after, 100))
        return [Position(quote["epoch"], quote["seq"]) for quote in told["quotes"]]


def seen(price: str, at: datetime) -> Observation:
    return Observation(COIN, "USD", Decimal(price), at, "sim")


async def until(condition: Callable[[], Any], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def hanging_disk(monkeypatch: pytest.MonkeyPatch, deadline_s: float = 0.2) -> Iterator[threading.Event]:
    """Every commit hangs until the event is set; a commit's deadline is short."""
    goes_on = threading.Event()
    own = quote_log._row

    def row(quote: Quote) -> tuple[Any, ...]:
        goes_on.wait(20)
        return own(quote)

    with monkeypatch.context() as patch:
        patch.setattr(quote_log, "_row", row)
        patch.setattr(quote_log, "COMMIT_DEADLINE_S", deadline_s)
        try:
            yield goes_on
        finally:
            goes_on.set()


async def test_a_superseded_writer_publishes_nothing_any_more_not_even_the_refused_quote(tmp_path: Path) -> None:
    core = Core(tmp_path)
    heard: list[Quote | Heartbeat] = []

    async def listen(messages: AsyncIterator[tuple[str, bytes]]) -> None:
        async for _, message in messages:
            heard.extend(decode_message(message))

    async with core.bus.subscribe([channel(COIN)]) as messages, background(listen(messages)), core.running():
        (first,) = await core.record("1")
        await until(lambda: core.history.delivered == first.position)
        await core.shard.become_writer(COIN, first.epoch + 10**9, "a newer one")
        await core.record("2")
        await until(lambda: core.superseded)
        assert await core.record("3") == []
        await asyncio.sleep(0.2)  # more than a publish waits for its shard
    assert [line.position for line in heard if isinstance(line, Quote)] == [first.position]


async def test_no_batch_goes_out_under_an_era_that_ended_while_the_log_was_read(tmp_path: Path) -> None:
    core = Core(tmp_path)
    async with core.running():
        await core.record("1", "2")
        await until(lambda: core.history.pending == 0)
        core.history._tail.clear()
        core.history.pending, core.history.delivered = 2, None
        read = core.recorder.log.after
        reads = 0
        sent: list[tuple[int, int | None]] = []
        append = core.shard.append

        async def era_begins_meanwhile(*arguments: Any) -> list[Quote]:
            nonlocal reads
            reads += 1
            quotes = await read(*arguments)
            if reads == 1:
                core.history.begin_era(core.history.next_epoch(0))
            return quotes

        async def note(coin: str, placement: int, epoch: int, quotes: list[Quote]) -> None:
            sent.append((placement, epoch))
            await append(coin, placement, epoch, quotes)

        core.recorder.log.after = era_begins_meanwhile  # type: ignore[method-assign]
        core.shard.append = note  # type: ignore[method-assign,assignment]
        core.delivery.wake()
        await until(lambda: core.history.pending == 0)
        assert (reads, sent) == (2, [(1, core.history.epoch)])


async def test_a_log_at_its_quota_records_again_by_itself_once_the_shard_is_back(tmp_path: Path) -> None:
    core = Core(tmp_path, quota_bytes=2**20)
    async with core.running():
        core.shard.away = True
        with pytest.raises(LogUnavailableError, match="COTACOES_LOG_QUOTA_BYTES"):
            while True:
                await core.record(*["1.5"] * 500)
        core.shard.away = False
        await until(lambda: core.history.pending == 0)
        core.recorder._reopen_at = 0.0
        assert await core.record("2.5")
        await until(lambda: core.history.pending == 0)
        assert first_gap(await core.shard.after(COIN, None, 10**6), None) is None


async def test_a_hanging_log_is_not_opened_a_second_time_and_what_it_committed_late_has_happened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = Core(tmp_path)
    async with core.running():
        await core.record("1")
        with hanging_disk(monkeypatch) as goes_on:
            for _ in range(3):
                core.recorder._reopen_at = 0.0
                with pytest.raises(LogUnavailableError):
                    await core.record("2")
            assert sum(thread.name.startswith("quote_log") for thread in threading.enumerate()) == 1
            goes_on.set()
            await asyncio.sleep(0.05)
        core.recorder._reopen_at = 0.0
        await core.record("3")
        held = await core.recorder.log.after(COIN, None, 10)
        assert [str(quote.price) for quote in held] == ["1", "2", "3"]
        assert first_gap(held, None) is None
        await until(lambda: core.history.pending == 0)
        assert await core.shard.after(COIN, None, 10) == held


async def test_a_kill_right_after_an_era_was_begun_leaves_its_first_quote_the_right_one_before_it(
    tmp_path: Path,
) -> None:
    shard = MemoryShard("shard1", [COIN])
    first = Core(tmp_path / "a", shard)
    async with first.running():
        quotes = await first.record("1", "2")
        await until(lambda: first.history.pending == 0)
    killed = Core(tmp_path / "b", shard)  # an empty log: it learns from the shard what there is
    killed.wall = first.wall
    await killed.recorder.start()
    await killed.recorder.close()
    shard.away = True
    again = Core(tmp_path / "b", shard)
    again.wall = first.wall
    await again.recorder.start()
    (next_one,) = await again.record("3")
    assert next_one.prev == quotes[-1].position
    with pytest.raises(HistoryUnavailableError):
        await again.page()
    assert await again.page(quotes[-1].position) == [next_one.position]
    await again.recorder.close()


async def test_as_long_as_nobody_could_say_what_there_is_nothing_is_called_empty_or_beyond_the_end(
    tmp_path: Path,
) -> None:
    core = Core(tmp_path)
    core.shard.away = True
    await core.recorder.start()
    for ask in (core.page(), core.page(Position(5, 1)), core.answers.last(COIN, 10), core.answers.mean(COIN)):
        with pytest.raises(HistoryUnavailableError):
            await ask
    core.shard.away = False
    await core.recorder.begin_missing_eras()
    assert await core.page() == []
    with pytest.raises(PositionBeyondEndError):
        await core.page(Position(5, 1))
    await core.recorder.close()


async def test_an_era_is_begun_once_however_many_ask_for_it(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    await core.record("1")
    core.history._is_over = True
    fence = core.shard.fence

    async def slow(coin: str) -> Any:
        await asyncio.sleep(0.01)
        return await fence(coin)

    core.shard.fence = slow  # type: ignore[method-assign]
    before = core.history.epoch
    core.wall -= timedelta(seconds=30)  # behind, so that the number of an era comes from the one before it
    await asyncio.gather(*(core.recorder.begin_missing_eras() for _ in range(3)))
    assert before is not None
    assert core.history.epoch == before + 1
    assert (await core.record("2"))[0].seq == 1
    await core.recorder.close()


async def test_a_crowd_of_readers_does_not_hold_up_a_commit(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.shard.away = True
    for _ in range(4):
        await core.record(*["1.5"] * 2500)
    readers = [asyncio.ensure_future(core.answers.last(COIN, 10_000)) for _ in range(40)]
    await asyncio.sleep(0)
    assert await core.record("2")
    assert sum(reader.done() for reader in readers) < 10
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    await core.recorder.close()


async def test_a_price_whose_commit_only_seemed_to_fail_is_not_recorded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.said = [seen("1", NOON)]
    with hanging_disk(monkeypatch):
        await core.poll.poll_once()
        assert core.poll.live == frozenset()
    core.recorder._reopen_at = 0.0
    await core.poll.poll_once()
    held = await core.recorder.log.after(COIN, None, 10)
    assert [quote.observed_at for quote in held] == [NOON]
    assert core.poll.live == {COIN}
    assert core.publisher._heartbeat(COIN)[1].find(str(held[0].epoch).encode()) > 0
    await core.recorder.close()


async def test_a_price_older_than_what_the_shard_turns_out_to_hold_is_not_recorded(tmp_path: Path) -> None:
    shard = MemoryShard("shard1", [COIN])
    first = Core(tmp_path / "a", shard)
    async with first.running():
        await first.record("200")
        await until(lambda: first.history.pending == 0)
    shard.away = True
    core = Core(tmp_path / "b", shard)
    core.wall = first.wall
    await core.recorder.start()
    shard.away = False
    await core.recorder.begin_missing_eras()
    core.said = [seen("100", NOON - timedelta(minutes=10))]
    await core.poll.poll_once()
    assert json.loads(core.answers.current(COIN))["price"] == "200"
    await core.recorder.close()


async def test_a_wall_clock_that_is_set_back_makes_no_old_price_fresh(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    await core.record("1")
    core.wall += timedelta(minutes=4)
    core.seconds += 240
    assert json.loads(core.answers.current(COIN))["status"] == "stale"
    core.wall -= timedelta(minutes=10)
    told = json.loads(core.answers.current(COIN))
    assert (told["status"], told["age_ms"]) == ("stale", 240_000)
    await core.recorder.close()


@pytest.mark.parametrize(("retry_after_s", "calls_max"), [(None, 40), (0.0, 40), (1.0, 40), (30.0, 6)])
async def test_a_dead_source_is_called_no_more_often_for_saying_when_to_come_back(
    tmp_path: Path, retry_after_s: float | None, calls_max: int
) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.said = SourceUnavailableError("503", retry_after_s=retry_after_s)
    for _ in range(120):
        await core.poll.poll_once()
        core.seconds += 1.0
    assert 1 <= core.calls <= calls_max
    await core.recorder.close()


async def test_what_the_log_refused_is_not_called_live(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.said = [seen("1", NOON)]
    await core.poll.poll_once()
    assert json.loads(core.answers.current(COIN))["source"] == "live"
    core.recorder._note_failure(LogUnavailableError("the disk is full"))
    core.recorder._reopen_at = float("inf")
    core.said = [seen("2", NOON + timedelta(seconds=1))]
    await core.poll.poll_once()
    told = json.loads(core.answers.current(COIN))
    assert (told["source"], told["price"]) == ("cache", "1")
    await core.recorder.close()


async def test_a_clock_far_behind_what_is_stored_is_refused_by_name_from_wherever_it_is_met(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    await core.record("1")
    core.wall -= timedelta(seconds=120)
    core.recorder._note_failure(LogUnavailableError("for the test"))
    core.said = [seen("2", core.wall)]
    with pytest.raises(SettingError, match="set the clock right"):
        async with background(core.poll.run()):
            await asyncio.sleep(5)
    await core.recorder.close()


async def test_a_log_that_can_not_be_written_at_the_start_is_waited_for(tmp_path: Path) -> None:
    first = Core(tmp_path)
    await first.recorder.start()
    await first.record("1")
    await first.recorder.close()
    holder = sqlite3.connect(tmp_path / "quotes.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    core = Core(tmp_path)
    core.wall = first.wall
    await core.recorder.start()
    assert core.recorder.failure is not None
    assert json.loads(core.answers.current(COIN))["price"] == "1"
    holder.execute("ROLLBACK")
    holder.close()
    assert await core.record("2")
    await core.recorder.close()


async def test_background_work_that_something_cancels_from_within_is_not_taken_for_done() -> None:
    async def cancels_itself() -> None:
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting

    with pytest.raises(ExceptionGroup) as raised:
        async with background(cancels_itself()):
            await asyncio.sleep(5)
    assert "cancelled by nobody" in str(raised.value.exceptions[0])


RUN = "0123456789ab.1732400000000"


def page(first: int, *prices: str, at: datetime = NOON, run: str = RUN) -> TapePage:
    """Consecutive prices of one moment."""
    entries = [(first + number, seen(price, at)) for number, price in enumerate(prices)]
    return TapePage(run, f"{run}-{first + len(prices) - 1}", first if prices else 0, len(prices), entries, [])


async def prices_in(core: Core) -> list[str]:
    return [str(quote.price) for quote in await core.recorder.log.after(COIN, None, 100)]


async def test_of_a_tape_every_price_is_recorded_in_order_also_equal_ones_of_the_same_moment(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "5", "6"), page(4), page(4, "5", at=NOON - timedelta(hours=2))]
    assert [await core.taker.take_page() for _ in range(3)] == [PAUSE_S] * 3
    assert await prices_in(core) == ["5", "5", "6", "5"]
    assert core.asked == [None, f"{RUN}-3", f"{RUN}-3"]
    assert core.taker.live == {COIN}
    await core.recorder.close()


async def test_after_a_restart_the_tape_goes_on_where_the_log_says_and_what_is_there_is_skipped(tmp_path: Path) -> None:
    first = Core(tmp_path)
    await first.recorder.start()
    first.pages = [page(1, "5", "6")]
    await first.taker.take_page()
    await first.recorder.close()
    core = Core(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "6", "7"), page(4, "8")]  # this source begins further back than it was asked to
    for _ in range(2):
        await core.taker.take_page()
    assert core.asked == [f"{RUN}-2", f"{RUN}-3"]
    assert await prices_in(core) == ["5", "6", "7", "8"]
    await core.recorder.close()


async def test_a_page_whose_commit_only_seemed_to_fail_is_not_recorded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "6"), page(3, "7")]
    with hanging_disk(monkeypatch), pytest.raises(LogUnavailableError):
        await core.taker.take_page()
    core.recorder._reopen_at = 0.0
    await core.taker.take_page()
    assert core.asked == [None, f"{RUN}-2"]
    assert await prices_in(core) == ["5", "6", "7"]
    await core.recorder.close()


async def test_what_the_tape_can_not_give_is_noted_as_a_source_gap_and_taking_goes_on(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    other = "ba9876543210.1732400000001"
    core.pages = [
        page(1, "5"),
        page(4, "6"),
        SourceGoneError("gone", cursor=f"{other}-0"),
        page(1, "7", run=other),
    ]
    for _ in range(4):
        await core.taker.take_page()
    assert core.asked == [None, f"{RUN}-1", f"{RUN}-4", f"{other}-0"]
    assert await prices_in(core) == ["5", "6", "7"]
    gaps = [(after, later) for after, later, _ in await core.recorder.log.source_gaps()]
    assert gaps == [(f"{RUN}-1", f"{RUN}-3"), (f"{RUN}-4", f"{other}-0")]
    await core.recorder.close()


async def test_poison_on_a_tape_is_refused_and_its_neighbours_are_recorded(tmp_path: Path) -> None:
    core = Core(tmp_path)
    await core.recorder.start()
    core.pages = [page(1, "5", "5000", "6"), page(4, "7", at=NOON + timedelta(minutes=1))]
    for _ in range(2):
        await core.taker.take_page()
    assert await prices_in(core) == ["5", "6"]
    assert core.history.cursor == f"{RUN}-4"
    await core.recorder.close()


async def test_a_coin_that_can_not_record_yet_holds_nobody_up_and_catches_up_later(tmp_path: Path) -> None:
    shard2 = MemoryShard("shard2", ["ethereum"])
    shard2.away = True
    core = Core(tmp_path)
    other = CoinHistory("ethereum", "shard2", now=lambda: core.wall, clock=lambda: core.seconds)
    core.recorder.histories = core.publisher._histories = {COIN: core.history, "ethereum": other}
    core.recorder._shards = {"shard1": core.shard, "shard2": shard2}
    core.publisher._queues["ethereum"] = core.publisher._queues[COIN]
    core.taker._screen = Screen(core.recorder.histories, JumpLimit(Decimal(10), timedelta(seconds=300)), is_tape=True)
    await core.recorder.start()
    ether = [(2, Observation("ethereum", "USD", Decimal(3), NOON, "sim"))]
    both = replace(page(1, "5", "6"), entries=[page(1, "5").entries[0], *ether])
    core.pages = [both, page(3, "7"), both, page(3, "7")]
    core.hand_on = lambda quotes: None  # type: ignore[method-assign]
    for _ in range(2):
        await core.taker.take_page()
    assert (await prices_in(core), other.cursor) == (["5", "7"], None)
    shard2.away = False
    await core.recorder.begin_missing_eras()
    for _ in range(2):
        await core.taker.take_page()
    assert core.asked == [None, f"{RUN}-2", f"{RUN}-0", f"{RUN}-2"]
    assert await prices_in(core) == ["5", "7"]
    assert [quote.price for quote in await core.recorder.log.after("ethereum", None, 9)] == [3]
    assert {core.history.cursor, other.cursor} == {f"{RUN}-3"}
    await core.recorder.close()


async def test_a_tape_with_its_own_old_times_can_not_follow_a_later_history(tmp_path: Path) -> None:
    core = Core(tmp_path, keeps_times=True)
    await core.recorder.start()
    old = NOON - timedelta(days=800)
    core.pages = [page(1, "5", at=old), page(2, "6", at=old)]
    for _ in range(2):
        await core.taker.take_page()
    assert await prices_in(core) == ["5", "6"]
    assert {quote.at for quote in await core.recorder.log.after(COIN, None, 9)} == {old}
    other = "ba9876543210.1732400000001"
    core.pages = [page(1, "7", at=old - timedelta(days=1), run=other)]
    with pytest.raises(SettingError, match="later than the recording's first"):
        await core.taker.take_page()
    await core.recorder.close()


def test_trimming_is_spread_over_the_appends_however_many_coins_there_are(tmp_path: Path) -> None:
    """What one append trims is bounded, and no coin is left out for good."""
    coins = [f"coin-{number}" for number in range(20)]
    trimmed: list[str] = []

    class Log(quote_log.QuoteLog):
        def _trim(self, coins: Iterable[str]) -> None:
            chosen = list(coins)
            assert len(chosen) <= quote_log.TRIM_COINS_MAX
            trimmed.extend(chosen)
            super()._trim(chosen)

    async def run() -> None:
        log = Log(tmp_path, quota_bytes=QUOTA)
        await log.open()
        for start in range(0, 3 * quote_log.TRIM_EVERY, 100):
            quotes = [
                Quote(coin, "USD", Decimal(1), 5, seq, NOON, NOON, "sim")
                for coin in coins
                for seq in range(start + 1, start + 101)
            ]
            await log.append(quotes, {})
        await log.close()

    asyncio.run(run())
    assert set(trimmed) == set(coins)
