"""Candles count each quote once, wherever it is during the read, and quotes close them, not a clock."""

import json
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.harness_history_seam import Seam
from tests.unit.harness_quote_service import COIN, NOON

from cotacoes.errors import HistoryUnavailableError, NoQuoteError
from cotacoes.model.candle import INTERVALS, CandleJson, candles_of, interval_start
from cotacoes.model.quote import Position, Quote, format_time, parse_time
from cotacoes.quote_service.candles import CandleAnswers, CandleQuestion, _encode
from cotacoes.quote_service.reading import HistoryReader

pytestmark = pytest.mark.anyio


@pytest.fixture
async def seam(tmp_path: Path) -> AsyncIterator[Seam]:
    one = await Seam(tmp_path).start()
    yield one
    await one.close()


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def ask(seam: Seam, interval: str = "1m", **given: Any) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(await seam.core.answers.candles(COIN, CandleQuestion(interval, **given)))
    return payload


def short(payload: dict[str, Any]) -> list[tuple[int, int, bool]]:
    """Each candle as (minutes after noon, count, closed)."""
    return [
        (round((parse_time(one["at"]) - NOON).total_seconds() / 60), one["count"], one["closed"])
        for one in payload["candles"]
    ]


def expected(quotes: list[Quote], payload: dict[str, Any]) -> list[Any]:
    """All candles that the answer should have for these quotes."""
    kind = (payload["origin"], payload["currency"])
    minutes = INTERVALS[payload["interval"]]
    newest = quotes[-1].at
    return [
        json.loads(_encode(CandleJson.of(one, closed=one.at + timedelta(minutes=minutes) <= newest)))
        for one in candles_of([one for one in quotes if (one.origin, one.currency) == kind], minutes)
    ]


def through(seam: Seam, payload: dict[str, Any]) -> list[Quote]:
    """All quotes up to the answer's own `through`."""
    return [quote for quote in seam.quotes if quote.position <= Position.parse(payload["through"])]


@pytest.mark.parametrize("delivered", [0, 1, 4, 5, 9])
async def test_candles_count_every_quote_however_many_are_delivered(seam: Seam, delivered: int) -> None:
    await seam.record(0, 10, 59.999999, 60, 61, 185, 186, 187, 250)
    await seam.deliver(delivered)
    for interval in INTERVALS:
        payload = await ask(seam, interval)
        assert payload["candles"] == expected(seam.quotes, payload)
        assert (payload["through"], payload["next"], payload["more"]) == (str(seam.quotes[-1].position), None, False)
    assert short(await ask(seam)) == [(0, 3, True), (1, 2, True), (3, 3, True), (4, 1, False)]


async def test_quotes_delivered_during_a_read_are_counted_once(seam: Seam) -> None:
    await seam.record(*range(0, 200, 7))
    await seam.deliver(9)

    async def deliver_more() -> None:
        await seam.deliver(9)

    seam.shard.meanwhile = deliver_more
    payload = await ask(seam)
    assert payload["candles"] == expected(seam.quotes, payload)
    assert sum(one["count"] for one in payload["candles"]) == len(seam.quotes)


async def test_quotes_trimmed_during_a_read_are_read_from_the_shard(seam: Seam) -> None:
    await seam.record(*range(0, 200, 7))
    await seam.deliver(9)
    await seam.trim(1)

    async def deliver_and_trim() -> None:
        await seam.deliver(9)
        await seam.trim(1)
        seam.shard.meanwhile = None

    seam.shard.meanwhile = deliver_and_trim
    payload = await ask(seam)
    assert payload["candles"] == expected(seam.quotes, payload)
    assert seam.shard.reads.count("candles") == 2


async def test_a_quote_beyond_its_end_closes_a_candle_and_no_clock_does(seam: Seam) -> None:
    await seam.record(0, 59.999999)
    seam.core.wall = at(86_400)
    assert short(await ask(seam)) == [(0, 2, False)]
    await seam.record(60)
    assert short(await ask(seam)) == [(0, 2, True), (1, 1, False)]
    assert short(await ask(seam, end=at(60))) == [(0, 2, True)]


async def test_a_quote_of_another_origin_closes_a_candle_without_being_in_it(seam: Seam) -> None:
    await seam.record(0, 1)
    await seam.record(70, origin="replay:x")
    await seam.deliver(2)
    payload = await ask(seam, origin="sim", end=at(600), start=at(0))
    assert short(payload) == [(0, 2, True)]
    assert (payload["origin"], payload["currency"], payload["through"]) == ("sim", "USD", str(seam.quotes[2].position))


async def test_candles_are_by_default_of_the_newest_quotes_origin_and_currency(seam: Seam) -> None:
    await seam.record(0, 1)
    await seam.record(2, 3, 4, origin="replay:x", currency="BRL")
    for delivered in (0, 2, 2, 1):
        await seam.deliver(delivered)
        payload = await ask(seam)
        assert (payload["origin"], payload["currency"], short(payload)) == ("replay:x", "BRL", [(0, 3, False)])
        assert short(await ask(seam, origin="sim", currency="USD")) == [(0, 2, False)]
        assert short(await ask(seam, origin="sim")) == []  # in BRL


async def test_the_shard_is_not_needed_if_the_log_holds_the_range_from_its_start(seam: Seam) -> None:
    await seam.record(*range(0, 600, 20))
    await seam.deliver(25)
    await seam.trim(10)
    seam.shard.away = True  # the log begins with the quote of second 400
    payload = await ask(seam, start=at(420))
    assert payload["candles"] == expected(seam.quotes, payload)[7:]
    questions: list[dict[str, Any]] = [{}, {"start": at(400)}, {"start": at(0), "end": at(60)}]
    for given in questions:
        with pytest.raises(HistoryUnavailableError, match="shard1 is not reachable"):
            await ask(seam, **given)
    seam.shard.away = False
    payload = await ask(seam)
    assert payload["candles"] == expected(seam.quotes, payload)


async def test_a_log_that_holds_the_coins_first_quote_answers_any_range(seam: Seam) -> None:
    await seam.record(0, 60, 120)
    seam.shard.away = True
    assert short(await ask(seam)) == [(0, 1, True), (1, 1, True), (2, 1, False)]


async def test_a_log_that_ends_before_the_newest_known_quote_does_not_answer_alone(seam: Seam) -> None:
    """Another writer has written to the shard, and this log knows only its newest quote."""
    await seam.record(0, 1)
    await seam.deliver(2)
    later = Quote(COIN, "USD", seam.quotes[0].price, 10**13, 1, at(5), at(5), "sim", seam.quotes[-1].position)
    await seam.shard.become_writer(COIN, 10**13, "another")
    await seam.shard.append(COIN, 1, 10**13, [later])
    seam.core.history.meet(await seam.shard.fence(COIN))
    assert short(await ask(seam)) == [(0, 3, False)]
    seam.shard.away = True
    with pytest.raises(HistoryUnavailableError):
        await ask(seam)


async def test_candles_span_epochs(seam: Seam) -> None:
    await seam.record(0, 1)
    await seam.begin_epoch()
    await seam.record(2, 61)
    await seam.deliver(3)
    await seam.begin_epoch()
    await seam.record(62)
    payload = await ask(seam)
    assert payload["candles"] == expected(seam.quotes, payload)


async def test_dropped_quotes_leave_their_candles(seam: Seam) -> None:
    await seam.record(0, 1, 86_400)
    await seam.deliver(3)
    await seam.trim(1)
    seam.shard.drop(at(80_000))
    assert short(await ask(seam, start=at(0), end=at(60))) == [(0, 2, True)]


async def test_from_and_to_are_widened_to_whole_intervals(seam: Seam) -> None:
    await seam.record(*range(0, 3600, 30))
    await seam.deliver(60)
    assert short(await ask(seam, start=at(119), end=at(181))) == [(1, 2, True), (2, 2, True), (3, 2, True)]
    assert short(await ask(seam, start=at(120), end=at(180))) == [(2, 2, True)]
    assert short(await ask(seam, "15m", start=at(1), end=at(901))) == [(0, 30, True), (15, 30, True)]


async def test_without_from_they_are_the_last_intervals_up_to_the_open_one_or_to_the_end(seam: Seam) -> None:
    await seam.record(*range(0, 3600, 30))
    await seam.deliver(40)
    assert [minute for minute, _, _ in short(await ask(seam, limit=3))] == [57, 58, 59]
    assert [minute for minute, _, _ in short(await ask(seam, limit=2, end=at(1200)))] == [18, 19]
    assert [minute for minute, _, _ in short(await ask(seam, limit=2, end=at(10**6)))] == [58, 59]
    assert await ask(seam, start=at(10**6)) == await ask(seam, start=at(10**6)) | {"candles": [], "more": False}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
@pytest.mark.parametrize("delivered", [0, 11, 30])
async def test_pages_make_up_the_range(seam: Seam, limit: int, empty: bool, delivered: int) -> None:
    seconds = [number * number * 3 for number in range(30)]  # ever more minutes without a quote
    await seam.record(*seconds)
    await seam.deliver(delivered)
    found: list[Any] = []
    start: datetime | None = at(-120)
    while start is not None:
        payload = await ask(seam, start=start, limit=limit, empty=empty)
        assert len(payload["candles"]) <= limit
        assert payload["more"] == (payload["next"] is not None)
        found += payload["candles"]
        start = None if payload["next"] is None else parse_time(payload["next"])
    whole = expected(seam.quotes, await ask(seam, limit=1))
    if not empty:
        assert found == whole
        return
    by_start = {one["at"]: one for one in whole}
    minutes = [at(60 * number) for number in range(-2, int(seconds[-1] // 60) + 1)]
    assert [one["at"] for one in found] == [format_time(minute) for minute in minutes]
    for one in found:
        none = dict.fromkeys(("open", "high", "low", "close", "mean")) | {"at": one["at"], "count": 0}
        assert one == by_start.get(one["at"], none | {"closed": True})


async def test_empty_candles_end_with_the_newest_quotes_and_are_closed_by_the_same_rule(seam: Seam) -> None:
    await seam.record(0)
    await seam.record(200, origin="replay:x")
    payload = await ask(seam, origin="sim", start=at(0), end=at(6000), empty=True)
    assert short(payload) == [(0, 1, True), (1, 0, True), (2, 0, True), (3, 0, False)]
    assert payload["more"] is False


async def test_a_range_at_the_ends_of_time_is_answered(seam: Seam) -> None:
    await seam.record(0, 60)
    first, last = parse_time("0001-01-01T00:00:30Z"), parse_time("9999-12-31T23:59:59.999999Z")
    for interval in INTERVALS:
        assert sum(one["count"] for one in (await ask(seam, interval, start=first, end=last))["candles"]) == 2
        assert (await ask(seam, interval, end=first, limit=1000))["candles"] == []
        assert (await ask(seam, interval, start=last))["candles"] == []
        assert (await ask(seam, interval, start=last, empty=True))["candles"] == []


async def test_a_range_with_too_many_quotes_only_in_the_log_is_refused_with_the_reason(
    seam: Seam,
) -> None:
    core = seam.core
    candles = CandleAnswers(
        HistoryReader(core.recorder, core.directory), core.recorder.histories, log_page_quotes=5, log_quotes_max=20
    )

    async def asked(**given: Any) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(await candles.answer(COIN, CandleQuestion("1m", **given)))
        return payload

    await seam.record(*range(0, 300, 10))
    with pytest.raises(HistoryUnavailableError, match="more than 20 quotes of bitcoin") as refused:
        await asked()
    assert (refused.value.extra["reason"], refused.value.retry_after_s) == ("too_far_behind", 5.0)
    assert short(await asked(start=at(0), end=at(120))) == [(0, 6, True), (1, 6, True)]  # needs no more than 15
    await seam.deliver(10)
    payload = await asked()
    assert payload["candles"] == expected(seam.quotes, payload)


async def test_a_range_that_the_shard_covers_does_not_ask_the_log(seam: Seam) -> None:
    await seam.record(*range(0, 600, 20))
    await seam.deliver(30)

    async def no_log(*_: Any) -> Any:
        raise AssertionError("the log was asked")

    seam.core.recorder.log.after = no_log  # type: ignore[method-assign,assignment]
    assert short(await ask(seam, start=at(60), end=at(180))) == [(1, 3, True), (2, 3, True)]
    assert len((await ask(seam, start=at(0), limit=4))["candles"]) == 4
    assert seam.shard.reads == ["candles", "candles"]


async def test_a_coin_without_quotes_has_no_candles_and_an_unknown_history_is_unavailable(seam: Seam) -> None:
    with pytest.raises(NoQuoteError):
        await ask(seam)
    seam.core.history.is_known = False
    with pytest.raises(HistoryUnavailableError):
        await ask(seam)


@pytest.mark.parametrize("round_", range(20))
@pytest.mark.slow
async def test_candles_count_all_quotes_up_to_through_whatever_happens_between_two_reads(
    seam: Seam, seeded: random.Random, round_: int
) -> None:
    dice = random.Random(seeded.randrange(2**32) + round_)
    offset = 0.0

    async def step() -> None:
        nonlocal offset
        kind = dice.randrange(6)
        if kind <= 1:
            steps = [dice.choice([0.0, 5.0, 61.0]) for _ in range(dice.randrange(1, 6))]
            origin = dice.choice(["sim", "sim", "replay:x"])
            await seam.record(*(offset := offset + one for one in steps), origin=origin)
        elif kind == 2:
            await seam.deliver(dice.randrange(1, 9))
        elif kind == 3:
            await seam.trim(dice.randrange(1, 9))
        elif kind == 4 and not dice.randrange(4):
            await seam.begin_epoch()
        elif kind == 5:
            seam.shard.away = not dice.randrange(6)

    await seam.record(0)
    for _ in range(40):
        await step()
    seam.shard.meanwhile = step
    answered = 0
    for _ in range(40):
        start, end = sorted(at(dice.uniform(-90, offset + 90)) for _ in range(2))
        interval = dice.choice(list(INTERVALS))
        limit = dice.choice([2, 1000])
        known = seam.quotes[-1]
        try:
            payload = await ask(seam, interval, start=start, end=end, limit=limit, origin=dice.choice([None, "sim"]))
        except HistoryUnavailableError:
            seam.shard.away = False
            continue
        answered += 1
        minutes = INTERVALS[interval]
        first, stop = interval_start(start, minutes), interval_start(end, minutes) + timedelta(minutes=minutes)
        counted = through(seam, payload)
        inside = [one for one in expected(counted, payload) if first <= parse_time(one["at"]) < stop]
        assert payload["candles"] == inside[:limit]
        assert counted[-1].position >= known.position or payload["more"] or counted[-1].at >= stop
    assert answered
