"""A child's lines and its end."""

import asyncio
import os
import sys

from cotacoes.supervision.child import LINE_BYTES_MAX, Child

LIMIT_S = 20.0


async def lines_of(code: str) -> tuple[int, list[tuple[str, bytes]]]:
    heard: list[tuple[str, bytes]] = []
    child = await Child.start([sys.executable, "-IS", "-c", code], os.environ, lambda *line: heard.append(line))
    async with asyncio.timeout(LIMIT_S):
        return await child.wait(), heard


async def test_lines_come_whole_and_the_last_one_needs_no_line_feed() -> None:
    code = "import sys; print('one\\r'); sys.stdout.flush(); sys.stderr.write('two\\n\\nthree')"
    _, heard = await lines_of(code)
    assert [line for stream, line in heard if stream == "stdout"] == [b"one"]
    assert [line for stream, line in heard if stream == "stderr"] == [b"two", b"", b"three"]


async def test_all_that_it_wrote_is_read_before_its_end_is_told() -> None:
    code, heard = await lines_of("print('x\\n' * 50_000, end='')")
    assert code == 0
    assert heard == [("stdout", b"x")] * 50_000


async def test_of_a_line_without_end_the_head_is_kept_and_the_rest_dropped() -> None:
    _, heard = await lines_of(f"print('a' * {5 * LINE_BYTES_MAX}); print('after')")
    assert heard == [("stdout", b"a" * LINE_BYTES_MAX), ("stdout", b"after")]


async def test_its_end_is_told_although_an_orphan_of_it_holds_the_pipes() -> None:
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
