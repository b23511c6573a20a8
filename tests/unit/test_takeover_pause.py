"""How long a superseded writer waits before it takes over again."""

import itertools
from pathlib import Path

import pytest

from cotacoes.quote_service.takeover_pause import FIRST_S, LONGEST_S, STEADY_S, TakeoverPause, forget


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_writer_that_was_not_superseded_does_not_wait(tmp_path: Path, clock: Clock) -> None:
    assert TakeoverPause(tmp_path, wall_s=clock).left_s() == 0.0


def test_two_writers_that_supersede_each_other_wait_longer_each_time(tmp_path: Path, clock: Clock) -> None:
    """Each starts again as soon as it has ended, and takes over after its pause."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    taken_over_at: list[float] = []
    for turn in range(40):
        TakeoverPause(folders[turn % 2], wall_s=clock).note_superseded(written_for_s=1.0)
        clock.now_s += TakeoverPause(folders[turn % 2], wall_s=clock).left_s()
        taken_over_at.append(clock.now_s)
    gaps = [later - earlier for earlier, later in itertools.pairwise(taken_over_at)]
    assert gaps[:4] == [FIRST_S, 2 * FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert set(gaps[-10:]) == {LONGEST_S}


def test_a_pause_ends_at_its_time_and_not_before(tmp_path: Path, clock: Clock) -> None:
    assert TakeoverPause(tmp_path, wall_s=clock).note_superseded(0.0) == FIRST_S
    clock.now_s += FIRST_S - 1
    assert TakeoverPause(tmp_path, wall_s=clock).left_s() == 1.0
    clock.now_s += 2
    assert TakeoverPause(tmp_path, wall_s=clock).left_s() == 0.0


def test_setting_the_clock_back_does_not_make_a_pause_longer(tmp_path: Path, clock: Clock) -> None:
    TakeoverPause(tmp_path, wall_s=clock).note_superseded(0.0)
    clock.now_s -= 86_400
    assert TakeoverPause(tmp_path, wall_s=clock).left_s() == FIRST_S


def test_after_writing_longer_than_any_pause_the_first_pause_is_short_again(tmp_path: Path, clock: Clock) -> None:
    pause = TakeoverPause(tmp_path, wall_s=clock)
    for _ in range(20):
        pause.note_superseded(0.0)
    assert pause.note_superseded(STEADY_S) == LONGEST_S
    assert pause.note_superseded(STEADY_S + 1) == FIRST_S


def test_a_writer_started_by_a_person_does_not_wait(tmp_path: Path, clock: Clock) -> None:
    TakeoverPause(tmp_path, wall_s=clock).note_superseded(0.0)
    forget(tmp_path)
    forget(tmp_path)
    assert TakeoverPause(tmp_path, wall_s=clock).left_s() == 0.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"count":"x","until_s":1}', '{"count":1}', '{"count":1e999}'])
def test_a_damaged_note_counts_as_absent(tmp_path: Path, clock: Clock, text: str) -> None:
    (tmp_path / "superseded.json").write_text(text)
    assert TakeoverPause(tmp_path, wall_s=clock).left_s() == 0.0
