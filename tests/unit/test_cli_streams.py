"""The commands over standard streams that are closed, full, or have few letters: words, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUFFERED = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as people have it
REFUSED = b"cotacoes: standard output cannot be written (%s)\n"
SHOWN = """
from cotacoes.cli.output import put
from cotacoes.observability.printer import open_standard_streams
open_standard_streams()
put("price \\u2581\\u2588 67012.34 \\u20ac")
"""


def run(*words: str, closed: int | None = None, stdout: int | None = None, **environment: str) -> tuple[int, bytes]:
    """The exit code and stderr of the command, started with one descriptor closed."""
    redirected = f"{closed}>&-" if closed is not None else ""
    script = f'exec "$@" {redirected}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "cotacoes", *words],
        env=BUFFERED | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", [["--version"], ["--help"], ["quote", "--help"], ["doctor"]], ids=" ".join)
@pytest.mark.slow
def test_a_closed_stdout_is_one_sentence_and_1(command: list[str], tmp_path: Path) -> None:
    result = run(*command, closed=1, COTACOES_DATA=str(tmp_path))
    assert result == (1, REFUSED % b"Bad file descriptor")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", [["--version"], ["quote", "--help"]], ids=" ".join)
@pytest.mark.slow
def test_a_full_stdout_is_the_same_sentence_from_every_writer(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        assert run(*command, stdout=full.fileno()) == (1, REFUSED % b"No space left on device")


@pytest.mark.parametrize("closed", [0, 2])
@pytest.mark.slow
def test_a_closed_stdin_or_stderr_changes_nothing(closed: int) -> None:
    assert run("--version", closed=closed) == (0, b"")
    assert run("quote", closed=closed)[0] == 2


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
@pytest.mark.slow
def test_characters_that_the_encoding_lacks_are_replaced(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOWN], env=BUFFERED | {"PYTHONIOENCODING": encoding}, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"price ?? 67012.34 ")
