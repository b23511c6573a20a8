"""A child's lines and its end."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cotacoes.up.supervision.child import LINE_BYTES_MAX, Child

LIMIT_S = 20.0
BLOCKING = "import os; os.set_blocking(1, True); "


async def lines_of(code: str) -> tuple[int, list[tuple[str, bytes]]]:
    heard: list[tuple[str, bytes]] = []
    child = await Child.start([sys.executable, "-IS", "-c", code], os.environ, lambda *line: heard.append(line))
    async with asyncio.timeout(LIMIT_S):
        return await child.wait(), heard


async def test_lines_arrive_whole_and_the_last_one_needs_no_line_feed() -> None:
    code = "import sys; print('one\\r'); sys.stdout.flush(); sys.stderr.write('two\\n\\nthree')"
    _, heard = await lines_of(code)
    assert [line for stream, line in heard if stream == "stdout"] == [b"one"]
    assert [line for stream, line in heard if stream == "stderr"] == [b"two", b"", b"three"]


async def test_all_output_is_read_before_the_end_is_reported() -> None:
    code, heard = await lines_of(f"{BLOCKING} print('x\\n' * 50_000, end='')")
    assert code == 0
    assert heard == [("stdout", b"x")] * 50_000


async def test_the_rest_of_an_endless_line_is_dropped() -> None:
    _, heard = await lines_of(f"{BLOCKING} print('a' * {5 * LINE_BYTES_MAX}); print('after')")
    assert heard == [("stdout", b"a" * LINE_BYTES_MAX), ("stdout", b"after")]


async def test_the_end_is_reported_although_an_orphan_holds_the_pipes() -> None:
    code = (
        "import subprocess, sys; sleep = [sys.executable, '-IS', '-c', 'import time; time.sleep(600)'];"
        "print(subprocess.Popen(sleep).pid, flush=True)"
    )
    code_of_end, heard = await lines_of(code)
    os.kill(int(heard[0][1]), 9)
    assert code_of_end == 0


async def test_a_death_by_signal_is_a_negative_code() -> None:
    code, _ = await lines_of("import os; os.kill(os.getpid(), 9)")
    assert code == -9


async def test_a_child_that_nobody_reads_is_not_held_up(tmp_path: Path) -> None:
    """As when the launcher stands still: here the loop does."""
    done = tmp_path / "done"
    code = f"""
import os, pathlib
for descriptor in (1, 2):
    for _ in range(300):
        try:
            os.write(descriptor, b"x" * 1023 + b"\\n")
        except BlockingIOError:
            pass
pathlib.Path({str(done)!r}).touch()
"""
    heard: list[bytes] = []
    child = await Child.start([sys.executable, "-IS", "-c", code], os.environ, lambda _, line: heard.append(line))
    due = time.monotonic() + LIMIT_S
    while not done.exists():
        assert time.monotonic() < due
        time.sleep(0.01)  # noqa: ASYNC251  # the loop stands still
    async with asyncio.timeout(LIMIT_S):
        assert await child.wait() == 0
    assert set(heard) == {b"x" * 1023}
    assert len(heard) < 600


async def test_a_program_that_cannot_be_started_leaves_no_pipe_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many processes")

    before = set(os.listdir("/dev/fd"))
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(OSError, match="too many processes"):
        await Child.start(["x"], os.environ, lambda *_: None)
    assert set(os.listdir("/dev/fd")) == before
