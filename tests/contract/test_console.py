"""The commands and services over real sockets: what they refuse, and in which words."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from tests.harness_http_server import serving

from cotacoes.adapters.http_server import server as http_server
from cotacoes.adapters.http_server.connection import Receive, Scope, Send
from cotacoes.cli import other_system
from cotacoes.web.process import cannot_listen

NOWHERE = {"COTACOES_QUOTE_URL": "http://127.0.0.1:9", "COTACOES_REDIS_URL": "redis://127.0.0.1:9"}
SERVE = "s = socket.create_server(('127.0.0.1', 0))"


def run(*words: str, **environment: str) -> tuple[int, bytes]:
    """The exit code of the command, and what it says on stderr."""
    command = [sys.executable, "-m", "cotacoes", *words]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("host", ["not a host", "203.0.113.9"])
def test_an_error_about_a_foreign_host_names_the_host_and_not_the_port(host: str) -> None:
    with pytest.raises((OSError, UnicodeError)) as refused:
        http_server.listen(host, 0)
    assert isinstance(refused.value, (OSError, UnicodeError))
    said = str(cannot_listen(host, 8000, refused.value))
    assert said.startswith(f"cannot listen on COTACOES_HOST={host} (")
    assert said.endswith("): set it to an address of this machine")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as refused:
            http_server.listen("127.0.0.1", port)
    said = str(cannot_listen("127.0.0.1", port, refused.value))
    assert said.startswith(f"cannot listen on port {port} of 127.0.0.1 (")
    assert said.endswith("): stop the process that uses it or set COTACOES_PORT_BASE")


def test_the_folder_of_a_listening_system_is_read_from_its_process(tmp_path: Path) -> None:
    listening = f"import socket; {SERVE}; print(s.getsockname()[1], flush=True); input()"
    environment = {**os.environ, "COTACOES_DATA": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", listening], stdin=-1, stdout=-1, env=environment) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert other_system.data_folder_on(port) == tmp_path
        process.communicate(b"\n")
    assert other_system.data_folder_on(port) is None


def test_a_recording_without_redis_ends_with_4_and_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "recording.ndjson"
    code, said = run("record", "--for", "0.2", "--out", str(file), "bitcoin", **NOWHERE)
    assert code == 4
    assert b"\ncotacoes: Redis is not reachable\n" in said
    assert not file.exists()


def test_the_log_of_a_command_is_plain_text(tmp_path: Path) -> None:
    code, said = run("record", "--for", "0.2", "--out", str(tmp_path / "x"), **NOWHERE)
    assert code == 4
    assert b"  bus away: Redis is not reachable\n" in said
    assert b"{" not in said


REPORT: dict[str, Any] = {
    "generated_at": "2026-11-30T07:13:55.187717Z",
    "deadline_ms": 1000,
    "elapsed_ms": 26,
    "complete": True,
    "missing": [],
    "window": {
        "name": "24h",
        "from": "2026-11-29T07:13:00.000000Z",
        "to": "2026-11-30T07:13:00.000000Z",
        "closes_from": "2026-11-29T07:13:00.000000Z",
        "step_minutes": 60,
    },
    "sources": {name: {"status": "ok", "elapsed_ms": 20} for name in ("quote_service", "shard1")},
    "trace": [
        {"branch": name, "status": "ok", "start_ms": 0.1, "elapsed_ms": 20.0, "attempts": 1, "reason": None}
        for name in ("quote_service", "shard1")
    ],
    "coins": {
        "bitcoin": {
            "current": {
                "coin": "bitcoin",
                "currency": "USD",
                "price": "66654.81",
                "epoch": 1796021846680,
                "seq": 852,
                "observed_at": "2026-11-30T07:13:54.487717Z",
                "at": "2026-11-30T07:13:54.487717Z",
                "age_ms": 700,
                "status": "fresh",
                "source": "live",
                "origin": "sim",
            },
            "average": {
                "coin": "bitcoin",
                "currency": "USD",
                "average": "66679.743",
                "count": 10,
                "from": "1796021846680-843",
                "to": "1796021846680-852",
            },
            "last_logs": [],
            "through": "1796021846680-852",
            "pending": 0,
            "window": {
                "currency": "USD",
                "origin": "sim",
                "open": "66629.42",
                "high": "66861.37",
                "low": "66540.78",
                "close": "66732.20",
                "change_percent": "0.154",
                "mean": "66702.901365914786967419",
                "count": 798,
                "from": "2026-11-30T06:55:00.000000Z",
                "to": "2026-11-30T07:13:00.000000Z",
                "complete": False,
                "minutes": 16,
                "holes": 0,
                "closed": True,
                "closes": [None] * 23 + ["66629.42", "66732.20"],
            },
        }
    },
}
VALUES = [
    "bitcoin",
    "66654.81",
    "USD",
    "fresh",
    "66679.743",
    "1796021846680-852",
    "66629.42",
    "66732.20",
    "+0.15",
    "▁█",
]
VALUES += ["66702.901365914786967419", "798", "16"]


HELD = "24h (18 min held) until 2026-11-30T07:13:00.000000Z"
AS_OF_TERMINAL = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}}


async def answer_report(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(json.dumps(REPORT), media_type="application/json")(scope, receive, send)


def on_terminal(columns: int, words: Sequence[str], environment: Mapping[str, str], typed: bytes = b"") -> str:
    """What the command shows on a real terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "cotacoes", *words]
    shown = b""
    with subprocess.Popen(
        command,
        env={**AS_OF_TERMINAL, **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        os.write(ours, typed)
        with contextlib.suppress(OSError):  # the terminal ends with its last process
            while chunk := os.read(ours, 65_536):
                shown += chunk
        process.wait(60)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [200, 80, 40, 20])
async def test_a_report_breaks_no_value_on_a_narrow_terminal(columns: int) -> None:
    async with serving(answer_report) as port:
        environment = {"COTACOES_AGGREGATOR_URL": f"http://127.0.0.1:{port}", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        shown = await asyncio.to_thread(on_terminal, columns, ["report", "--trace"], environment)
    words = [word for line in shown.splitlines() for word in line.split()]
    assert [value for value in VALUES if not any(value in word for word in words)] == []
    assert HELD in shown
    of_tables = shown[: shown.index("2026-11-30T07:13:55")].replace(HELD, "")
    assert [line for line in of_tables.splitlines() if len(line) > columns and len(line.split()) > 1] == []
    assert (shown.splitlines()[0].split() == ["bitcoin"]) == (columns < 200)


@pytest.mark.parametrize(("typed", "ends"), [(b"n\n", "nothing was added\n"), (b"\n", "nothing was added\n")])
async def test_a_coin_is_not_added_unless_a_person_says_yes(typed: bytes, ends: str) -> None:
    async with serving(quoting) as port:
        environment = {"COTACOES_EXTERNAL_URL": f"http://127.0.0.1:{port}"}
        shown = await asyncio.to_thread(on_terminal, 200, ["coins", "add", "BAD"], environment, typed)
    question = "bad cannot be removed once it is added; the source quotes bitcoin, ethereum, not bad. Add bad? [y/N] "
    assert question in shown
    assert shown.endswith(ends)


async def quoting(scope: Scope, receive: Receive, send: Send) -> None:
    body = json.dumps({"coins": ["bitcoin", "ethereum"], "open": False})
    await Response(body, media_type="application/json")(scope, receive, send)


def test_a_script_has_to_confirm_a_new_coin_with_an_option() -> None:
    code, said = run("coins", "add", "BAD", **NOWHERE)
    assert (code, said) == (
        2,
        b"cotacoes: there is no terminal for a question: add --yes to add it without a question\n",
    )
