"""A run of the tests that is ended from outside leaves none of its servers behind."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.harness_ended_run import PIDS
from tests.system.conftest import wait_until

from cotacoes.up.supervision import die_with_parent, processes

ENDLESS = Path(__file__).with_name("harness_ended_run.py")
START_DEADLINE_S = 60.0
GONE_DEADLINE_S = 60.0  # pytest-xdist gives its workers ten seconds after Ctrl-C


@contextlib.contextmanager
def run_of_tests(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose test has noted its servers in `folder` and stands still."""
    folder.mkdir()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: the run would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(
        [
            *die_with_parent.launcher(signal.SIGKILL),
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'base'}"),
            *(*options, str(ENDLESS)),
        ],
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        | {PIDS: str(folder / "pids")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def living(servers: dict[str, tuple[int, str]]) -> list[str]:
    return [name for name, server in servers.items() if processes.is_same(*server)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel ends a process with its parent")
def test_no_server_outlives_a_run_that_is_ended(tmp_path: Path) -> None:
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
    ways = [(number, options) for number in signals for options in ([], ["-n", "1"])]
    with contextlib.ExitStack() as stack:
        folders = [tmp_path / str(number) for number in range(len(ways))]
        runs = [
            stack.enter_context(run_of_tests(folder, *options))
            for folder, (_, options) in zip(folders, ways, strict=True)
        ]
        notes = [folder / "pids" for folder in folders]
        wait_until("all servers run", lambda: all(note.exists() for note in notes), START_DEADLINE_S)
        servers = {
            f"{number.name} {options} {pid}": (int(pid), processes.birth(int(pid)))
            for note, (number, options) in zip(notes, ways, strict=True)
            for pid in note.read_text().split()
        }
        assert len(servers) == 2 * len(ways)
        assert all(born for _, born in servers.values())
        for run, (number, _) in zip(runs, ways, strict=True):
            run.send_signal(number)
        with contextlib.suppress(AssertionError):
            wait_until("they are gone", lambda: not living(servers), GONE_DEADLINE_S)
        assert living(servers) == []
