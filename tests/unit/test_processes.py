"""Processes and their families."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cotacoes.up.supervision import processes

SLEEP = [sys.executable, "-IS", "-c", "import time; time.sleep(600)"]
DEADLINE_S = 10.0


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP, cwd=tmp_path) as process:
        yield process
        process.kill()


def test_a_process_is_the_same_only_with_the_same_birth(sleeper: subprocess.Popen[bytes]) -> None:
    born = processes.birth(sleeper.pid)
    assert born
    assert processes.is_same(sleeper.pid, born)
    assert not processes.is_same(sleeper.pid, born + "0")
    assert not processes.is_same(sleeper.pid, "")


def test_an_ended_process_is_gone_even_before_its_parent_waits_for_it(sleeper: subprocess.Popen[bytes]) -> None:
    born = processes.birth(sleeper.pid)
    member = psutil.Process(sleeper.pid)
    member.kill()
    assert processes.wait_gone([member], DEADLINE_S) == []
    assert processes.birth(sleeper.pid) == ""
    assert not processes.is_same(sleeper.pid, born)


def test_processes_in_a_folder_are_found_by_name_and_working_directory(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    name = psutil.Process(sleeper.pid).name()
    assert [process.pid for process in processes.living_in(tmp_path.resolve(), name)] == [sleeper.pid]
    assert processes.living_in(tmp_path.resolve(), "postgres") == []
    assert processes.living_in(tmp_path.parent.resolve(), name) == []


def test_leftovers_are_ended_even_if_paused_but_not_a_stranger_with_a_reused_pid(
    sleeper: subprocess.Popen[bytes],
) -> None:
    with subprocess.Popen(SLEEP) as stranger:
        processes.suspend(processes.family(sleeper.pid))
        children = {
            "ours": (sleeper.pid, processes.birth(sleeper.pid)),
            "theirs": (stranger.pid, processes.birth(stranger.pid) + "0"),
            "gone": (2**22 + 1, "boot/1"),
        }
        assert processes.end_leftovers(children, deadline_s=DEADLINE_S) == ["ours"]
        assert sleeper.wait(DEADLINE_S) == -15
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (4, "ended with exit code 4"),
        (-9, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
    ],
)
def test_an_exit_code_in_words(code: int, words: str) -> None:
    assert processes.cause_of_end(code) == words
