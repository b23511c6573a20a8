"""Background work that fails unexpectedly begins again, is counted, and takes nothing else down with it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs
from tests.unit.harness_directory import directory_over
from tests.unit.harness_feed_consumer import FeedSystem, following
from tests.unit.harness_gateway_scenarios import run as streaming
from tests.unit.harness_gateway_scenarios import settle
from tests.unit.harness_gateway_stream import StreamRig
from tests.unit.harness_quote_service import COIN, NOON, QuoteServiceCore, seen, until

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.errors import SettingError, WriterSupersededError
from cotacoes.feed.history import HistoryPage
from cotacoes.observability.logs import FailureLog
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.patterns.sharding.shard import Stored
from cotacoes.quote_service.coin_tasks import CoinTasks
from cotacoes.quote_service.delivery import Delivery, Pace
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recent_prices import JumpLimit
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.writer import Writer
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.testing.memory_shard import MemoryShard
from cotacoes.web.background import PAUSE_MOST_S, PAUSE_S, STEADY_S, Restarts, background

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)


class Clock:
    """Time that passes only in the pauses, which are remembered."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
        await asyncio.sleep(0)


class RestartsRig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.restarts = Restarts(self.metrics, random=Random(1), clock=lambda: self.clock.now, sleep=self.clock.sleep)

    def count(self, task: str) -> float:
        value = self.metrics.registry.get_sample_value("cotacoes_background_restarts_total", {"task": task})
        return 0.0 if value is None else value


def failing(times: int, error: BaseException) -> tuple[Callable[[], Awaitable[None]], list[int]]:
    """Work that raises so many times, and then ends well; how often it began."""
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)
        if len(begun) <= times:
            raise error

    return work, begun


def test_work_that_fails_is_restarted_after_growing_pauses_and_counted() -> None:
    rig = RestartsRig()
    work, begun = failing(20, KeyError("x"))
    asyncio.run(rig.restarts.kept("work", work))
    assert (len(begun), rig.count("work")) == (21, 20.0)
    assert all(PAUSE_S <= pause <= PAUSE_S + PAUSE_MOST_S for pause in rig.clock.pauses)
    assert sum(rig.clock.pauses[:5]) < PAUSE_MOST_S < sum(rig.clock.pauses[10:])


def test_a_pause_is_short_again_after_the_work_has_run_for_long() -> None:
    rig = RestartsRig()
    begun: list[float] = []

    async def work() -> None:
        begun.append(rig.clock.now)
        if len(begun) > 20:
            return
        if len(begun) == 20:
            rig.clock.now += 2 * STEADY_S
        raise KeyError("x")

    asyncio.run(rig.restarts.kept("work", work))
    assert max(rig.clock.pauses[:19]) > 2 * PAUSE_S >= rig.clock.pauses[19]


def test_each_kind_of_failure_is_logged_once_with_its_traceback() -> None:
    rig = RestartsRig()
    errors: list[Exception] = [KeyError("a"), KeyError("b"), ValueError("c"), KeyError("d")]

    async def work() -> None:
        if errors:
            raise errors.pop(0)

    with capture_logs() as logs:
        asyncio.run(rig.restarts.kept("work", work))
    assert [(line["event"], line["task"], line["reason"]) for line in logs] == [
        ("task.failed", "work", "KeyError"),
        ("task.failed", "work", "ValueError"),
    ]
    assert all(line["exc_info"].__traceback__ is not None for line in logs)


def test_however_many_kinds_there_are_the_log_is_bounded() -> None:
    failures = FailureLog()
    with capture_logs() as logs:
        for number in range(3 * FailureLog.KINDS_MAX):
            failures.note("task.failed", type(f"Error{number}", (Exception,), {})())
    assert len(logs) == FailureLog.KINDS_MAX


@pytest.mark.parametrize("error", [SettingError("set the clock right"), WriterSupersededError("a newer writer")])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_setting_error_and_a_newer_writer_end_the_work(error: Exception, is_grouped: bool) -> None:
    rig = RestartsRig()
    work, begun = failing(1, ExceptionGroup("several", [KeyError("x"), error]) if is_grouped else error)
    with pytest.raises(type(error)):
        asyncio.run(rig.restarts.kept("work", work))
    assert (len(begun), rig.count("work")) == (1, 0.0)


def test_work_that_is_cancelled_from_within_is_restarted_and_work_cancelled_from_outside_ends() -> None:
    async def run() -> None:
        rig = RestartsRig()
        begun: list[int] = []

        async def work() -> None:
            begun.append(1)
            if len(begun) == 1:
                waiting = asyncio.get_running_loop().create_future()
                waiting.cancel()
                await waiting
            await asyncio.Event().wait()

        async with background(rig.restarts.kept("work", work)):
            await until(lambda: len(begun) == 2)
        assert rig.count("work") == 1.0

    asyncio.run(run())


class OnceFailing:
    """What it stands for, but for the `th` call, which raises after it was made."""

    def __init__(self, own: Callable[..., Any], th: int = 1) -> None:
        self._own = own
        self._left = th

    def __call__(self, *arguments: Any) -> Any:
        answer = self._own(*arguments)
        self._left -= 1
        if self._left == 0:
            raise AttributeError("nobody foresaw this")
        return answer


@pytest.mark.parametrize("where", ["before the log", "after the log", "on handing on"])
async def test_an_intake_that_fails_anywhere_gives_no_position_twice_and_records_on(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, rig = QuoteServiceCore(tmp_path), RestartsRig()
    if where == "before the log":
        core.history.draft = OnceFailing(core.history.draft, 2)  # type: ignore[method-assign,assignment]
    elif where == "after the log":
        core.history.note_recorded = OnceFailing(core.history.note_recorded, 2)  # type: ignore[method-assign,assignment]
    else:
        core.intake.on_recorded = OnceFailing(core.intake.on_recorded, 2)  # type: ignore[method-assign,assignment]
    async with core.running():

        async def poll() -> None:
            for _ in range(6):
                core.wall = max(core.wall, NOON) + SECOND
                core.said = [seen(str(100 + (core.wall - NOON).seconds), core.wall)]
                await core.poll.poll_once()
                await asyncio.sleep(0)

        await rig.restarts.kept("intake", poll)
        assert rig.count("intake") == 1.0
        await until(lambda: core.history.pending == 0)
        stored = await core.shard.after(COIN, None, 100)
        logged = await core.recorder.log.after(COIN, None, 100)
    assert stored == logged
    assert len({quote.position for quote in stored}) == len(stored) >= 7
    assert [quote.before for quote in stored[1:]] == [quote.position for quote in stored[:-1]]


class OneSickCoin(MemoryShard):
    """Raises what nobody foresaw for one coin, as long as it is `sick`."""

    sick: str | None = "bitcoin"

    async def append(self, coin: str, *arguments: Any, **more: Any) -> Stored:
        if coin == self.sick:
            raise AttributeError("'NoneType' object has no attribute 'bind_execute'")
        return await super().append(coin, *arguments, **more)


async def test_one_coin_and_one_shards_days_that_fail_do_not_take_the_others_down(tmp_path: Path) -> None:
    coins = ["bitcoin", "ethereum", "solana"]
    shard, rig, core = OneSickCoin("shard1", coins), RestartsRig(), QuoteServiceCore(tmp_path / "unused")
    rig.restarts._sleep = asyncio.sleep
    directory = directory_over({"shard1": shard}, dict.fromkeys(coins, "shard1"))
    directory.dsns["shard1"] = "memory"
    metrics = QuoteMetrics(Metrics())
    writer = Writer(lambda: None)
    new_log = functools.partial(QuoteLog, tmp_path, quota_bytes=2**30)
    recorder = Recorder(new_log, directory, writer=writer, metrics=metrics, now=lambda: NOON)
    publisher = Publisher(recorder.histories, MemoryBus(), writer=writer, metrics=metrics, wait_s=0.05)
    days: list[str] = []

    def new_delivery(history: CoinHistory) -> Delivery:
        return Delivery(
            history,
            directory=directory,
            recorder=recorder,
            publisher=publisher,
            metrics=metrics,
            pace=Pace(10**9),
            shard_deadline_s=1.0,
            random=Random(1),
        )

    def open_days(name: str, _: str) -> NoReturn:
        days.append(name)
        raise ZeroDivisionError

    tasks = CoinTasks(
        directory,
        recorder,
        rig.restarts,
        new_delivery=new_delivery,
        jump=JumpLimit(),
        random=Random(1),
        now=lambda: NOON,
        open_days=open_days,
    )
    tasks.begin()
    await recorder.start()
    try:
        async with background(tasks.run()):
            await recorder.record({coin: [seen("1", NOON)] for coin in coins})
            for delivery in tasks.deliveries.values():
                delivery.wake()

            def pending() -> list[str]:
                return [coin for coin in coins if recorder.histories[coin].pending]

            await until(lambda: pending() == ["bitcoin"] and rig.count("delivery") > 0 and len(days) > 1)
            assert tasks.deliveries["bitcoin"].held == "AttributeError; see the log of quote_service"
            shard.sick = None
            await until(lambda: not pending())
            assert tasks.deliveries["bitcoin"].held is None
    finally:
        await recorder.close()
        await core.recorder.close()


def test_a_client_whose_history_fails_does_not_affect_the_others() -> None:
    async def scenario(rig: StreamRig) -> None:
        for coin in ("bitcoin", "ethereum"):
            rig.record(coin, 18)
            await rig.publish(coin, 2)  # so the ring does not reach back
        own = rig.history.page
        left = 10  # more than there are readers

        def page(coin: str, *question: Any) -> HistoryPage:
            nonlocal left
            if coin == "bitcoin" and left:
                left -= 1
                raise IndexError("nobody foresaw this")
            return own(coin, *question)

        rig.history.page = page  # type: ignore[method-assign,assignment]
        clients = {coin: rig.client() for coin in ("bitcoin", "ethereum")}
        for coin, client in clients.items():
            client.subscribe(coin, since={coin: "5-3"})
        await settle()
        clients["ethereum"].read()
        assert clients["ethereum"].quotes() == [(5, seq) for seq in range(4, 21)]
        await asyncio.sleep(30)
        clients["bitcoin"].read()
        assert clients["bitcoin"].quotes() == [(5, seq) for seq in range(4, 21)]

    streaming(scenario, "bitcoin", "ethereum")


def test_a_history_that_fails_for_one_coin_affects_no_other_and_is_requested_again() -> None:
    async def scenario(world: FeedSystem) -> None:
        own = world.history.page
        left = 3

        def page(coin: str, *question: Any) -> HistoryPage:
            nonlocal left
            if coin == "bitcoin" and left:
                left -= 1
                raise IndexError("nobody foresaw this")
            return own(coin, *question)

        world.history.page = page  # type: ignore[method-assign,assignment]
        for coin in ("bitcoin", "ethereum"):
            await world.publish(2, coin)
            world.record(3, coin)  # missed
            await world.publish(1, coin)
        await asyncio.sleep(0.5)
        assert world.seqs("ethereum") == [1, 2, 3, 4, 5, 6]
        await asyncio.sleep(20)
        assert world.seqs("bitcoin") == [1, 2, 3, 4, 5, 6]

    following(scenario, coins=("bitcoin", "ethereum"))
