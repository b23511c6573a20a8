"""The keeper of a shard's days: what it does when, and what remains of a round after a failure; without a server."""

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

import pytest
import structlog

from cotacoes.adapters.postgres.days import CoinDay, Dropped, Erased, Sealing
from cotacoes.errors import CoinMovedError, ShardUnavailableError
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.shard import Home
from cotacoes.quote_service.days import DAYS_AHEAD, RETRY_FIRST_S, RETRY_MOST_S, ROUND_INTERVAL_S, DayKeeper

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TODAY = NOON.date()


def day(ago: int) -> date:
    return TODAY - timedelta(days=ago)


class MemoryDays:
    """A shard whose days a test sets; `faults` maps a call, or a call and its day, to an error to raise."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.to_seal: list[CoinDay] = []
        self.refused: set[CoinDay] = set()
        self.sealed: list[CoinDay] = []
        self.marked: list[date] = []
        self.unpacked: list[date] = []
        self.is_taken = False
        self.is_open = False
        self.asked: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._note("open")
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_open = False

    def _note(self, call: str, on: object = "") -> None:
        name = f"{call} {on}".strip()
        assert call == "open" or self.is_open
        self.calls.append(name)
        for key in (call, name):
            if key in self.faults:
                raise self.faults[key]

    async def prepare(self, first: date, last: date) -> None:
        self._note("prepare", f"{first} {last}")

    async def acquire(self) -> bool:
        return not self.is_taken

    async def closed(self) -> list[CoinDay]:
        return self.to_seal

    async def seal(self, closed: CoinDay) -> Sealing | None:
        self._note("seal", closed.day)
        return Sealing(closed not in self.refused, 5, 4 if closed in self.refused else 5)

    async def expired(self, retention_days: Mapping[str, int]) -> list[CoinDay]:
        self.asked["expired"] = dict(retention_days)
        return [sealed for sealed in self.sealed if sealed.coin in retention_days]

    async def drop(self, expired: CoinDay, retention_days: int) -> Dropped | None:
        self._note("drop", f"{expired.day} {retention_days}")
        return Dropped(5, Position(7, 3)) if expired.day != day(2) else None

    async def dropped(self, before: datetime) -> list[date]:
        self.asked["dropped"] = before
        return self.marked

    async def erase(self, day: date, before: datetime) -> Erased:
        assert before == self.asked["dropped"]
        self._note("erase", day)
        return Erased(5, False)

    async def loose(self, over_before: datetime) -> list[date]:
        self.asked["loose"] = over_before
        return self.unpacked

    async def pack(self, day: date) -> None:
        self._note("pack", day)


class Schedule:
    """Waits that end at once and move the clock; the keeper is cancelled in its wait number `waits_max`."""

    def __init__(self, days: MemoryDays, waits_max: int, **homes: Home) -> None:
        self.days = days
        self.now = NOON
        self.waits_s: list[float] = []
        self.floors: list[tuple[str, Position]] = []
        self.homes = homes
        self.on_wait: Callable[[int], None] = lambda _: None
        self._waits_max = waits_max

    async def sleep(self, seconds: float) -> None:
        assert not self.days.is_open, "nothing is held while it waits"
        self.waits_s.append(seconds)
        self.now += timedelta(seconds=seconds)
        self.on_wait(len(self.waits_s))
        if len(self.waits_s) == self._waits_max:
            raise asyncio.CancelledError

    def run(self) -> list[str]:
        """Run until the last wait; returns the log lines in short form."""
        keeper = DayKeeper(
            "shard1",
            "postgresql://nowhere",
            homes=lambda: self.homes,
            on_floor=lambda coin, floor: self.floors.append((coin, floor)),
            random=random.Random(3),
            now=lambda: self.now,
            sleep=self.sleep,
            open_days=lambda _, __: self.days,
        )
        with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
            asyncio.run(keeper.run())
        return [str(entry["event"]) for entry in logs]


def test_partitions_are_created_ahead_every_hour_of_every_day() -> None:
    schedule = Schedule(MemoryDays(), 14)
    assert schedule.run() == []
    assert schedule.waits_s == [ROUND_INTERVAL_S] * 14
    prepared = [call for call in schedule.days.calls if call != "open"]
    last = TODAY + timedelta(days=DAYS_AHEAD)
    assert prepared[:12] == [f"prepare {TODAY} {last}"] * 12
    assert prepared[12:] == [f"prepare {day(-1)} {last + timedelta(days=1)}"] * 2


def test_a_round_goes_from_sealing_to_packing() -> None:
    days = MemoryDays()
    days.to_seal = [CoinDay("bitcoin", day(1))]
    days.sealed = [CoinDay("bitcoin", day(3)), CoinDay("bitcoin", day(2)), CoinDay("ethereum", day(9))]
    days.marked = [day(5)]
    days.unpacked = [day(1)]
    schedule = Schedule(
        days, 1, bitcoin=Home(1, "shard1", 1, 30), ethereum=Home(2, "shard2", 1, 30), other=Home(3, "shard1", 1)
    )
    said = schedule.run()
    assert days.calls[2:] == [
        f"seal {day(1)}",
        f"drop {day(3)} 30",
        f"drop {day(2)} 30",
        f"erase {day(5)}",
        f"pack {day(1)}",
    ]
    assert said == ["day.sealed", "day.dropped", "partition.thinned", "partition.compacted"]
    assert days.asked == {
        "expired": {"bitcoin": 30},
        "dropped": NOON - timedelta(minutes=5),
        "loose": NOON - timedelta(hours=1),
    }
    assert schedule.floors == [("bitcoin", Position(7, 3))]


def test_a_changed_retention_applies_from_the_next_round() -> None:
    days = MemoryDays()
    schedule = Schedule(days, 2, bitcoin=Home(1, "shard1", 1))
    schedule.on_wait = lambda _: schedule.homes.update(bitcoin=Home(1, "shard1", 1, 7))
    schedule.run()
    assert days.asked["expired"] == {"bitcoin": 7}


def test_a_shard_that_is_away_is_retried_with_back_off_and_logged_once() -> None:
    days = MemoryDays()
    days.faults["open"] = ShardUnavailableError("shard1 is not reachable")
    schedule = Schedule(days, 42)
    schedule.on_wait = lambda number: days.faults.clear() if number == 40 else None
    assert schedule.run() == ["days.held", "days.resumed"]
    waits_s = schedule.waits_s[:40]
    bounds_s = [min(RETRY_MOST_S, RETRY_FIRST_S * 2**number) for number in range(40)]
    assert all(0 <= wait_s <= bound_s for wait_s, bound_s in zip(waits_s, bounds_s, strict=True))
    assert len(set(waits_s)) == 40  # with jitter
    assert max(waits_s) > RETRY_MOST_S / 2
    assert schedule.waits_s[40:] == [ROUND_INTERVAL_S] * 2


def test_the_back_off_restarts_after_a_successful_round() -> None:
    days = MemoryDays()
    away = {"open": ShardUnavailableError("shard1 is not reachable")}
    days.faults = dict(away)
    schedule = Schedule(days, 22)

    def change(number: int) -> None:
        if number == 20:
            days.faults.clear()
        elif number == 21:
            days.faults.update(away)

    schedule.on_wait = change
    assert schedule.run() == ["days.held", "days.resumed", "days.held"]
    assert schedule.waits_s[20] == ROUND_INTERVAL_S
    assert schedule.waits_s[21] <= RETRY_FIRST_S


@pytest.mark.parametrize("failing", ["prepare", f"seal {day(2)}", f"drop {day(3)} 30", f"erase {day(5)}", "pack"])
def test_a_failed_task_blocks_no_other_and_is_retried_soon(failing: str) -> None:
    days = MemoryDays()
    days.to_seal = [CoinDay("bitcoin", day(2)), CoinDay("bitcoin", day(1))]
    days.sealed = [CoinDay("bitcoin", day(3)), CoinDay("bitcoin", day(4))]
    days.marked = [day(5), day(6)]
    days.unpacked = [day(7), day(8)]
    days.faults[failing] = ShardUnavailableError("shard1 failed (53100)")
    schedule = Schedule(days, 1, bitcoin=Home(1, "shard1", 1, 30))
    said = schedule.run()
    assert len(days.calls) == 2 + 8
    assert schedule.waits_s[0] <= RETRY_FIRST_S
    assert said.count("days.held") == 1


def test_a_moved_coin_is_no_failure() -> None:
    days = MemoryDays()
    days.to_seal = [CoinDay("bitcoin", day(2)), CoinDay("other", day(2))]
    days.faults["seal"] = CoinMovedError("shard1: the coin has moved")
    schedule = Schedule(days, 1)
    assert schedule.run() == []
    assert schedule.waits_s == [ROUND_INTERVAL_S]


def test_a_refused_day_is_logged_and_the_others_continue() -> None:
    days = MemoryDays()
    days.to_seal = [CoinDay("bitcoin", day(2)), CoinDay("bitcoin", day(1))]
    days.refused = {days.to_seal[0]}
    schedule = Schedule(days, 1)
    assert schedule.run() == ["day.refused", "day.sealed"]
    assert schedule.waits_s == [ROUND_INTERVAL_S]


def test_the_second_of_two_keepers_only_creates_partitions() -> None:
    days = MemoryDays()
    days.is_taken = True
    days.to_seal = [CoinDay("bitcoin", day(1))]
    schedule = Schedule(days, 1)
    assert schedule.run() == []
    assert days.calls == ["open", f"prepare {TODAY} {TODAY + timedelta(days=DAYS_AHEAD)}"]


def test_a_keeper_cancelled_in_the_middle_closes_its_connections() -> None:
    days = MemoryDays()
    days.unpacked = [day(1)]

    async def hang(_: date) -> None:
        await asyncio.Event().wait()

    days.pack = hang  # type: ignore[assignment,method-assign]
    schedule = Schedule(days, 1)

    async def main() -> None:
        keeper = DayKeeper(
            "shard1",
            "postgresql://nowhere",
            homes=dict,
            on_floor=lambda *_: None,
            random=random.Random(3),
            now=lambda: NOON,
            sleep=schedule.sleep,
            open_days=lambda _, __: days,
        )
        task = asyncio.create_task(keeper.run())
        while not days.is_open:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not days.is_open

    asyncio.run(main())
