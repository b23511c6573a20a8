"""A module of ours run beside the measure, as a process of its own that does not outlive us."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cotacoes.up.supervision import die_with_parent

ROOT = Path(__file__).parents[1]
STOP_DEADLINE_S = 10.0


@contextlib.contextmanager
def helper_process(
    module: str, *arguments: str, python: str = sys.executable, is_quiet: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """`python -m module arguments…`, its stdout a pipe; ended with the context.

    `python` is the interpreter. What a quiet program says on stderr is dropped.
    """
    process = subprocess.Popen(
        [*die_with_parent.launcher(signal.SIGKILL), python, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if is_quiet else None,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process
        process.terminate()
        process.wait(STOP_DEADLINE_S)
    finally:
        process.kill()
        process.wait()
