"""A clock that was ahead for a moment costs no price, now or after a restart, and no age is invented."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import structlog
from tests.unit.harness_quote_service import COIN, NOON, QuoteServiceCore, seen
from tests.unit.test_quote_service_tape import page

from cotacoes.errors import LogUnavailableError, NoQuoteError, SettingError
from cotacoes.model.quote import Quote
from cotacoes.observability.metrics import Metrics, QuoteMetrics
from cotacoes.quote_service.clock import ClockWatch

pytestmark = pytest.mark.anyio

AHEAD = timedelta(hours=3)


async def poll(core: QuoteServiceCore, price: str, wall: datetime, observed_at: datetime | None = None) -> None:
    """Poll a second later by the monotonic clock, whatever the wall clock shows."""
    core.wall = wall
    core.seconds += 1
    core.said = [seen(price, observed_at or wall)]
    await core.poll.poll_once()


async def recorded(core: QuoteServiceCore) -> list[Quote]:
    return await core.recorder.log.after(COIN, None, 100)


async def with_a_clock_that_was_ahead(core: QuoteServiceCore) -> None:
    """Record two prices at the right time and one three hours ahead of it; then the clock is right again."""
    await core.recorder.start()
    await poll(core, "10", NOON)
    await poll(core, "11", NOON + timedelta(seconds=1))
    await poll(core, "12", NOON + AHEAD)
    core.wall = NOON + timedelta(seconds=3)


async def test_after_the_clock_is_set_right_prices_are_recorded_at_the_last_stored_time(
    tmp_path: Path,
) -> None:
    core = QuoteServiceCore(tmp_path)
    await with_a_clock_that_was_ahead(core)
    await poll(core, "13", NOON + timedelta(seconds=4))
    await poll(core, "14", NOON + timedelta(seconds=5))
    quotes = await recorded(core)
    assert [str(quote.price) for quote in quotes] == ["10", "11", "12", "13", "14"]
    assert [quote.at - NOON for quote in quotes[2:]] == [AHEAD] * 3
    assert [quote.observed_at - NOON for quote in quotes[3:]] == [timedelta(seconds=4), timedelta(seconds=5)]
    payload = json.loads(core.answers.current(COIN))
    assert (payload["price"], payload["status"], payload["age_ms"], payload["source"]) == ("14", "fresh", 0, "live")
    await core.recorder.close()


async def test_the_rules_apply_again_from_the_first_correct_time_on(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await with_a_clock_that_was_ahead(core)
    await poll(core, "13", NOON + timedelta(seconds=4))
    await poll(core, "14", NOON + timedelta(seconds=5), observed_at=NOON + timedelta(seconds=4))
    await poll(core, "15", NOON + timedelta(seconds=6), observed_at=NOON + timedelta(seconds=3))
    await poll(core, "16", NOON + timedelta(seconds=7), observed_at=NOON + AHEAD)
    await poll(core, "1300", NOON + timedelta(seconds=8))
    assert [str(quote.price) for quote in await recorded(core)][3:] == ["13"]
    await core.recorder.close()


async def test_a_time_a_few_seconds_ahead_counts_and_an_earlier_price_is_not_new(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    await poll(core, "10", NOON, observed_at=NOON + timedelta(seconds=4))
    await poll(core, "11", NOON + timedelta(seconds=1), observed_at=NOON + timedelta(seconds=3))
    assert [str(quote.price) for quote in await recorded(core)] == ["10"]
    await core.recorder.close()


async def test_after_a_restart_a_price_of_unknown_age_is_not_called_fresh(tmp_path: Path) -> None:
    first = QuoteServiceCore(tmp_path)
    await with_a_clock_that_was_ahead(first)
    await first.recorder.close()
    core = QuoteServiceCore(tmp_path, wall=NOON + timedelta(minutes=4))
    await core.recorder.start()
    with pytest.raises(NoQuoteError, match="its age is unknown") as error:
        core.answers.current(COIN)
    assert error.value.extra["reason"] == "too_old"
    await poll(core, "13", core.wall)
    payload = json.loads(core.answers.current(COIN))
    assert (payload["price"], payload["status"]) == ("13", "fresh")
    assert (await recorded(core))[-1].at == NOON + AHEAD
    await core.recorder.close()


async def test_recording_goes_on_after_a_shard_history_with_times_ahead(tmp_path: Path) -> None:
    first = QuoteServiceCore(tmp_path / "first")
    async with first.running():
        await first.record("10")
        await asyncio.wait_for(_delivered(first), 10)
    core = QuoteServiceCore(tmp_path / "second", first.shard, wall=NOON - AHEAD)
    await core.recorder.start()
    await poll(core, "11", core.wall)
    (quote,) = [one for one in await recorded(core) if one.price == 11]
    assert (quote.at, quote.observed_at) == ((await first.shard.last(COIN, 1))[0].at, NOON - AHEAD)
    await core.recorder.close()


async def _delivered(core: QuoteServiceCore) -> None:
    while core.history.pending:
        await asyncio.sleep(0.005)


async def test_reads_by_time_find_quotes_recorded_at_the_last_stored_time(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await with_a_clock_that_was_ahead(core)
    await poll(core, "13", NOON + timedelta(seconds=4))
    later = json.loads(await core.answers.between(COIN, NOON + AHEAD, None, after=None, limit=10))
    before = json.loads(await core.answers.between(COIN, None, NOON + AHEAD, after=None, limit=10))
    assert [quote["price"] for quote in before["quotes"]] == ["10", "11"]
    assert [quote["price"] for quote in later["quotes"]] == ["12", "13"]
    assert json.loads(await core.answers.mean(COIN))["count"] == 4
    await core.recorder.close()


async def test_a_tape_goes_on_too_and_its_price_steps_are_judged(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    core.wall = NOON + AHEAD
    core.pages = [page(1, "5", at=core.wall), page(2, "6", "600", "7", at=NOON)]
    await core.tape_reader.read_page()
    core.wall = NOON
    await core.tape_reader.read_page()
    quotes = await recorded(core)
    assert [str(quote.price) for quote in quotes] == ["5", "6", "7"]
    assert {quote.at for quote in quotes} == {NOON + AHEAD}
    await core.recorder.close()


async def test_times_more_than_a_day_ahead_need_a_setting_that_the_error_names(tmp_path: Path) -> None:
    first = QuoteServiceCore(tmp_path, wall=NOON + timedelta(days=2))
    await first.recorder.start()
    await first.record("10")
    await first.recorder.close()
    refused = QuoteServiceCore(tmp_path)
    with pytest.raises(SettingError, match=r"--accept-clock \(COTACOES_ACCEPT_CLOCK=1\)"):
        await refused.recorder.start()
    await refused.recorder.close()
    core = QuoteServiceCore(tmp_path, accepts_clock=True)
    await core.recorder.start()
    await poll(core, "11", NOON)
    assert [str(quote.price) for quote in await recorded(core)] == ["10", "11"]
    await core.recorder.close()


async def test_times_a_day_ahead_do_not_stop_a_running_service(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path, wall=NOON + timedelta(days=2))
    await core.recorder.start()
    await core.record("10")
    core.recorder._note_failure(LogUnavailableError("for the test"))
    await poll(core, "11", NOON)
    assert [str(quote.price) for quote in await recorded(core)] == ["10", "11"]
    await core.recorder.close()


async def test_stored_times_ahead_are_logged_once_and_measured_until_the_clock_catches_up(tmp_path: Path) -> None:
    core = QuoteServiceCore(tmp_path)
    await with_a_clock_that_was_ahead(core)
    metrics = QuoteMetrics(Metrics())
    watch = ClockWatch(metrics, lambda: core.wall)
    gauge, shown = metrics.clock_behind, []
    with structlog.testing.capture_logs() as logs:
        for wall in (NOON, NOON + timedelta(hours=1), NOON + AHEAD, NOON + AHEAD):
            core.wall = wall
            watch.compare([core.history])
            shown.append(gauge._value.get())
    assert shown == [10_800, 7_200, 0, 0]
    assert [log["event"] for log in logs] == ["clock.fell_behind", "clock.caught_up"]
    await core.recorder.close()
