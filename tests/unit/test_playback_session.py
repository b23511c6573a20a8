"""A playback session is resumed after a restart, and another one begins only if it must."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from cotacoes import config
from cotacoes.external_service.playback_session import (
    PlaybackSession,
    digest_of,
    load_or_begin,
    parse_cursor,
    remember_played,
)
from cotacoes.external_service.simulation import Simulation
from cotacoes.model.quote import to_microseconds

NOON = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
DIGEST = digest_of("a.gz", "mid")


def test_a_restart_resumes_its_session(tmp_path: Path) -> None:
    first = load_or_begin(tmp_path / "new", DIGEST, NOON)
    assert first == PlaybackSession(DIGEST, NOON.replace(microsecond=123000))
    assert load_or_begin(tmp_path / "new", DIGEST, NOON + timedelta(days=3)) == first


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"digest":"x"}', b'{"digest":1,"started_ms":"soon"}', b"\xff"]
)
def test_an_unreadable_note_counts_as_absent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert load_or_begin(tmp_path, DIGEST, NOON).started_at == NOON.replace(microsecond=123000)


@pytest.mark.slow
async def test_progress_is_remembered_and_no_clock_sends_it_back(tmp_path: Path) -> None:
    begun = load_or_begin(tmp_path, DIGEST, NOON + timedelta(hours=3))  # by a clock that is ahead
    keeping = asyncio.ensure_future(remember_played(tmp_path, lambda: replace(begun, played_s=600.0)))
    async with asyncio.timeout(10):
        while not load_or_begin(tmp_path, DIGEST, NOON).played_s:
            await asyncio.sleep(0.05)
    keeping.cancel()
    again = load_or_begin(tmp_path, DIGEST, NOON + timedelta(minutes=11))
    assert (again.name, again.elapsed_s(NOON + timedelta(minutes=11))) == (begun.name, 600)
    assert round(again.elapsed_s(NOON + timedelta(hours=3, minutes=20))) == 1200


async def test_the_tape_of_a_session_begun_with_the_clock_ahead_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings = config.load({}, source_mode="tape", tick_ms=250)
    note = tmp_path / "run.json"
    run = Simulation(settings, tmp_path).played()
    started_ms = to_microseconds(datetime.now(UTC) + timedelta(hours=3)) // 1000
    note.write_text(json.dumps({"digest": run.digest, "started_ms": started_ms, "played_s": 600.0}))
    again = Simulation(settings, tmp_path)
    index = 600 * 4 * len(again.coins)
    page = await again.pages.page(again.played().cursor(index), 10, 5.0)
    assert page.quotes[0].index == index + 1


def test_another_market_and_an_ended_session_begin_a_new_one(tmp_path: Path) -> None:
    first = load_or_begin(tmp_path, DIGEST, NOON)
    later = NOON + timedelta(hours=1)
    assert load_or_begin(tmp_path, DIGEST, later, lambda run: run != first) == first
    again = load_or_begin(tmp_path, DIGEST, later, lambda run: run == first)
    assert again.started_at > first.started_at
    assert load_or_begin(tmp_path, digest_of("b.gz"), later).digest != again.digest


def test_a_folder_that_cannot_be_written_is_logged_and_the_session_begins(tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    with structlog.testing.capture_logs() as logs:
        run = load_or_begin(tmp_path / "in the way" / "folder", DIGEST, NOON)
    assert run.digest == DIGEST
    assert [log["event"] for log in logs] == ["session.forgotten"]


def test_a_cursor_is_read_as_it_is_written() -> None:
    run = PlaybackSession(DIGEST, NOON)
    assert parse_cursor(run.cursor(7)) == (run.name, 7)


@pytest.mark.parametrize(
    "text", ["", "7", "x-7", f"{DIGEST}-7", f"{DIGEST}.1-", f"{DIGEST}.1-x", f"{DIGEST}.1-{2**63}", "é.1-1"]
)
def test_an_invalid_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RUN-INDEX"):
        parse_cursor(text)
