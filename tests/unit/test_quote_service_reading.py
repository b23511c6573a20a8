"""A time range is answered in full or refused, wherever its quotes are during the read."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.harness_history_seam import Seam
from tests.unit.harness_quote_service import COIN, NOON

from cotacoes.errors import (
    BadRequestError,
    HistoryUnavailableError,
    PositionBeyondEndError,
    PositionGoneError,
    ProblemError,
)
from cotacoes.model.quote import Position, Quote, format_time
from cotacoes.quote_service.answers import read_range

pytestmark = pytest.mark.anyio


@pytest.fixture
async def seam(tmp_path: Path) -> AsyncIterator[Seam]:
    one = await Seam(tmp_path).start()
    yield one
    await one.close()


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else NOON + timedelta(seconds=seconds)


async def page(
    seam: Seam, start: float | None, end: float | None, after: Position | None = None, limit: int = 100
) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(
        await seam.core.answers.between(COIN, at(start), at(end), after=after, limit=limit)
    )
    return payload


async def seqs(seam: Seam, start: float | None, end: float | None, **given: Any) -> list[int]:
    return [quote["seq"] for quote in (await page(seam, start, end, **given))["quotes"]]


async def paged(seam: Seam, start: float | None, end: float | None, limit: int) -> list[Position]:
    """The sequence numbers of all pages, one page after the other."""
    found: list[Position] = []
    after, more = None, True
    while more:
        payload = await page(seam, start, end, after, limit)
        found += [Position(quote["epoch"], quote["seq"]) for quote in payload["quotes"]]
        more = payload["more"]
        after = None if payload["next"] is None else Position.parse(payload["next"])
    return found


async def test_a_range_includes_its_start_and_excludes_its_end(seam: Seam) -> None:
    await seam.record(*range(10))
    for delivered in (0, 4, 6):  # all from the log, from both, all from the shard
        await seam.deliver(delivered)
        await seam.trim(1)
        assert await seqs(seam, 2, 8) == [3, 4, 5, 6, 7, 8]
        assert await seqs(seam, 2.000001, 7.999999) == [4, 5, 6, 7, 8]
        assert await seqs(seam, None, 2) == [1, 2]
        assert await seqs(seam, 8, None) == [9, 10]
        assert await seqs(seam, 20, 30) == []
        assert await seqs(seam, -20, -10) == []


async def test_a_page_that_the_shard_does_not_fill_goes_on_with_the_log(seam: Seam) -> None:
    await seam.record(0, 1, 2, 3)
    await seam.deliver(4)
    await seam.trim(1)
    await seam.record(4, 5, 6)
    assert await seqs(seam, 0, 100) == [1, 2, 3, 4, 5, 6, 7]
    payload = await page(seam, 0, 100, limit=5)
    assert (payload["next"], payload["more"]) == (str(seam.quotes[4].position), True)
    assert await seqs(seam, 0, 100, after=seam.quotes[4].position) == [6, 7]
    assert await seqs(seam, 1, 3) == [2, 3]  # it ends on the shard: the log's entries lie beyond


async def test_a_quote_in_both_log_and_shard_comes_once(seam: Seam) -> None:
    await seam.record(*range(6))
    await seam.deliver(3)
    seam.core.history.note_floor(Position(1, 1))  # so that the log alone does not cover the range
    await seam.deliver(0)
    assert await seqs(seam, 0, 100) == [1, 2, 3, 4, 5, 6]


async def test_quotes_delivered_between_two_reads_are_neither_lost_nor_doubled(seam: Seam) -> None:
    await seam.record(*range(12))
    await seam.deliver(3)
    await seam.trim(1)

    async def deliver_two() -> None:
        await seam.deliver(2)
        await seam.trim(1)

    seam.shard.meanwhile = deliver_two
    assert await seqs(seam, 0, 100) == list(range(1, 13))
    assert "between" in seam.shard.reads


async def test_quotes_recorded_between_two_reads_make_no_hole(seam: Seam) -> None:
    await seam.record(*range(4))
    await seam.deliver(4)
    await seam.trim(1)
    seconds = iter(range(4, 100))

    async def record_one() -> None:
        await seam.record(next(seconds))
        await seam.deliver(1)
        await seam.trim(1)

    seam.shard.meanwhile = record_one
    found = await seqs(seam, 0, 1000)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 4


async def test_the_shard_is_not_needed_if_the_log_holds_the_range_from_its_start(seam: Seam) -> None:
    await seam.record(*range(10))
    await seam.deliver(8)
    await seam.trim(5)
    seam.shard.away = True
    assert await seqs(seam, 6, None) == [7, 8, 9, 10]  # the log begins with 6, which is older
    assert await seqs(seam, 5.5, 8) == [7, 8]
    assert await seqs(seam, 0, None, after=seam.quotes[5].position) == [7, 8, 9, 10]
    for start in (0.0, 5.0, None):  # the time before the log's first entry is not known
        with pytest.raises(HistoryUnavailableError, match="the log does not reach back that far"):
            await page(seam, start, None)


async def test_a_log_that_begins_with_the_coins_first_quote_covers_every_range(seam: Seam) -> None:
    seam.shard.away = True
    await seam.record(*range(3))
    assert await seqs(seam, -100, 100) == [1, 2, 3]
    assert await seqs(seam, None, 1) == [1]


async def test_a_log_that_ends_before_the_newest_known_quote_does_not_answer_alone(seam: Seam) -> None:
    """Another writer has written to the shard, and this log knows only its newest quote."""
    await seam.record(*range(3))
    await seam.deliver(3)
    other = [
        Quote(
            COIN,
            "USD",
            seam.quotes[0].price,
            10**13,
            seq,
            when,
            when,
            "sim",
            seam.quotes[-1].position if seq == 1 else None,
        )
        for seq, when in ((1, NOON + timedelta(seconds=5)), (2, NOON + timedelta(seconds=6)))
    ]
    await seam.shard.become_writer(COIN, 10**13, "another")
    await seam.shard.append(COIN, 1, 10**13, other)
    seam.core.history.meet(await seam.shard.fence(COIN))
    assert await seqs(seam, 1, 100) == [2, 3, 1, 2]
    seam.shard.away = True
    for asked in (page(seam, 1, 100), seam.core.answers.after(COIN, seam.quotes[0].position, 9)):
        with pytest.raises(HistoryUnavailableError):
            await asked
    with pytest.raises(HistoryUnavailableError):
        await seam.core.answers.last(COIN, 2)


async def test_a_hole_in_the_log_is_refused_and_not_passed_over(seam: Seam) -> None:
    await seam.record(*range(6))
    await seam.deliver(2)
    lost = seam.quotes[3]
    database = seam.core.recorder.log._db
    await asyncio.get_running_loop().run_in_executor(
        seam.core.recorder.log._thread,
        lambda: database.execute("DELETE FROM entry WHERE seq = ?", (lost.seq,)).fetchall(),
    )
    with pytest.raises(HistoryUnavailableError, match="has a hole"):
        await page(seam, 0, 100)


async def test_a_range_over_several_epochs_is_read_in_full(seam: Seam) -> None:
    await seam.record(0, 1)
    await seam.begin_epoch()
    await seam.record(2, 3)
    await seam.deliver(3)
    await seam.begin_epoch()
    await seam.record(4, 5)
    assert await paged(seam, 1, 5, 2) == [quote.position for quote in seam.quotes[1:5]]


async def test_a_range_with_dropped_days_is_gone_and_one_after_them_is_not(seam: Seam) -> None:
    day = 86_400.0
    await seam.record(*(number * day / 2 for number in range(8)))  # noon and midnight of four days
    await seam.deliver(8)
    await seam.trim(1)
    seam.shard.drop(NOON + timedelta(days=1.5))
    assert [quote.seq for quote in await seam.shard.after(COIN, None, 9)] == [4, 5, 6, 7, 8]
    with pytest.raises(PositionGoneError) as gone:
        await page(seam, 0, 3 * day)
    floor = seam.quotes[3]
    assert gone.value.extra == {"floor": str(floor.position), "floor_at": format_time(floor.at)}
    with pytest.raises(PositionGoneError):
        await page(seam, day, 1.5 * day)  # only dropped ones, and there were some
    with pytest.raises(PositionGoneError):
        await page(seam, None, 3 * day, after=seam.quotes[0].position)
    assert await seqs(seam, 1.5 * day, 2.5 * day) == [4, 5]
    assert await seqs(seam, None, 2 * day) == [4]  # without a start it begins at the floor
    assert await seqs(seam, 0, 2.5 * day, after=seam.quotes[2].position) == [4, 5]
    seam.shard.drop(NOON + timedelta(days=99))
    with pytest.raises(PositionGoneError):
        await page(seam, 0, 3 * day)


async def test_a_range_before_the_coins_first_quote_is_not_gone(seam: Seam) -> None:
    await seam.record(0, 1, 2)
    await seam.deliver(3)
    await seam.trim(1)
    assert await seqs(seam, -(10**6), 2) == [1, 2]
    assert await seqs(seam, -(10**6), -10) == []


async def test_a_position_that_was_never_given_is_refused_and_so_is_one_below_a_floor_that_has_risen(
    seam: Seam,
) -> None:
    await seam.record(*range(4))
    with pytest.raises(PositionBeyondEndError) as beyond:
        await page(seam, 0, None, after=Position(seam.quotes[0].epoch, 99))
    assert beyond.value.extra == {"last": str(seam.quotes[-1].position)}, "there is nothing to go on with"
    await seam.deliver(4)
    await seam.trim(1)
    seam.shard.drop(NOON + timedelta(seconds=2))  # unknown to quote_service
    with pytest.raises(PositionGoneError):
        await seam.core.answers.after(COIN, seam.quotes[0].position, 9)


@pytest.mark.parametrize("delivered", [0, 3, 5])
async def test_a_position_that_never_existed_is_refused_with_one_to_resume_from(seam: Seam, delivered: int) -> None:
    await seam.record(*range(3))
    await seam.begin_epoch()
    await seam.record(3, 4)
    await seam.deliver(delivered)
    with pytest.raises(PositionBeyondEndError) as never:
        await seam.core.answers.after(COIN, Position(seam.quotes[0].epoch, 99), 9)
    assert never.value.extra["resume"] == str(seam.quotes[2].position)
    kind = PositionGoneError if delivered else PositionBeyondEndError
    with pytest.raises(kind) as before:
        await seam.core.answers.after(COIN, Position(1, 1), 9)
    assert before.value.extra.get("resume") is None


@pytest.mark.slow
async def test_a_time_is_found_in_the_log_among_many_entries_and_epochs(seam: Seam, seeded: random.Random) -> None:
    offset = 0.0
    for _ in range(8):
        for _ in range(seeded.randrange(1, 40)):
            offset += seeded.choice([0.0, 0.001, 7.0])
            await seam.record(offset)
        await seam.begin_epoch()
    reader = seam.core.answers._reader
    for _ in range(200):
        start = NOON + timedelta(seconds=seeded.uniform(-5, offset + 5))
        before = [quote for quote in seam.quotes if quote.at < start]
        assert await reader.log_before(COIN, start) == (before[-1] if before else None)
    for quote in seam.quotes:
        before = [one for one in seam.quotes if one.at < quote.at]
        assert await reader.log_before(COIN, quote.at) == (before[-1] if before else None)


@pytest.mark.parametrize("round_", range(25))
@pytest.mark.slow
async def test_pages_of_a_range_are_its_quotes_whatever_happens_between_any_two_reads(
    seam: Seam, seeded: random.Random, round_: int
) -> None:
    dice = random.Random(seeded.randrange(2**32) + round_)
    offset = 0.0

    async def step() -> None:
        nonlocal offset
        kind = dice.randrange(5)
        if kind == 0:
            steps = [dice.choice([0.0, 0.5, 3.0]) for _ in range(dice.randrange(1, 6))]
            await seam.record(*(offset := offset + one for one in steps))
        elif kind == 1:
            await seam.deliver(dice.randrange(1, 9))
        elif kind == 2:
            await seam.trim(dice.randrange(1, 6))
        elif kind == 3 and not dice.randrange(4):
            await seam.begin_epoch()
        elif kind == 4:
            seam.shard.away = not dice.randrange(6)

    for _ in range(40):
        await step()
    seam.shard.meanwhile = step
    answered = 0
    for _ in range(30):
        start = dice.choice([None, dice.uniform(-3, offset)])
        end = dice.uniform(start or 0, offset + 3)
        known = list(seam.quotes)
        try:
            found = await paged(seam, start, end, dice.choice([1, 3, 100]))
        except HistoryUnavailableError:
            seam.shard.away = False
            continue
        answered += 1

        def inside(quote: Quote, start: float | None = start, end: float = end) -> bool:
            first, last = at(start), at(end)
            return (first is None or quote.at >= first) and last is not None and quote.at < last

        now = [quote.position for quote in seam.quotes if inside(quote)]
        assert found == now[: len(found)]
        assert len(found) >= sum(map(inside, known))
    assert answered


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", None, "from: a time is written as RFC 3339"),
        (None, "2026-11-24T12:00:00", "to: a time is written as RFC 3339"),
        ("2026-11-24T12:00:00 02:00", None, "%2B"),
        ("2026-11-24T12:00:00Z", "2026-11-24T13:00:00+01:00", "from must be before to"),
        ("2026-13-24T12:00:00Z", None, "from: no such time"),
    ],
)
def test_an_invalid_range_is_refused_by_name_with_the_fix(start: str | None, end: str | None, said: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        read_range(start, end)
    assert said in refused.value.detail
    assert isinstance(refused.value, ProblemError)
