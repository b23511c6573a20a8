"""A service whose log nobody reads, or which cannot be written, works on as if it could."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.system.conftest import free_port_block

from cotacoes.config import PORT_OFFSETS
from cotacoes.up.supervision import die_with_parent

LIMIT_S = 30.0
TOKEN = "token"
LOG_LINES = 700  # each of more than 100 bytes: more than a pipe holds


def unread_pipe() -> tuple[int, list[int]]:
    """A pipe that is full, as a part finds it whose launcher stands still."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return writing, [reading, writing]


def unread_pipe_of_the_launcher() -> tuple[int, list[int]]:
    """The same, with the child's end as `supervision` makes it."""
    writing, opened = unread_pipe()
    os.set_blocking(writing, False)
    return writing, opened


def closed_pipe() -> tuple[int, list[int]]:
    reading, writing = os.pipe()
    os.close(reading)
    return writing, [writing]


def full_disk() -> tuple[int, list[int]]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    return descriptor, [descriptor]


@contextlib.contextmanager
def external_service(folder: Path, stderr: int | None) -> Iterator[int]:
    """A real external_service whose standard error is this descriptor, None: closed; its port."""
    port_base = free_port_block()
    ours = {name: text for name, text in os.environ.items() if not name.startswith("COTACOES_")}
    settings = {"COTACOES_PORT_BASE": str(port_base), "COTACOES_DATA": str(folder), "COTACOES_ADMIN_TOKEN": TOKEN}
    command = [*die_with_parent.launcher(signal.SIGKILL), sys.executable, "-m", "cotacoes", "external-service"]
    if stderr is None:
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=ours | settings)
    try:
        yield port_base + PORT_OFFSETS["external_service"]
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()


def connected(port: int) -> http.client.HTTPConnection:
    """A connection to the service, once it listens."""
    due = time.monotonic() + LIMIT_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        try:
            connection.connect()
        except ConnectionRefusedError:
            assert time.monotonic() < due, "the service does not listen"
            time.sleep(0.02)
        else:
            return connection


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.mark.parametrize("opened", [unread_pipe, unread_pipe_of_the_launcher, closed_pipe, full_disk, None])
def test_a_log_that_cannot_be_written_neither_stops_nor_fails_a_service(
    tmp_path: Path, opened: Callable[[], tuple[int, list[int]]] | None
) -> None:
    stderr, descriptors = (None, []) if opened is None else opened()
    try:
        with external_service(tmp_path, stderr) as port, contextlib.closing(connected(port)) as connection:
            for _ in range(LOG_LINES):
                assert ask(connection, "PUT", "/faults", {"latency_ms": 1})[0] == 200
            assert ask(connection, "GET", "/livez")[0] == 200
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_lines_that_could_not_be_written_are_counted(tmp_path: Path) -> None:
    stderr, _ = full_disk()
    with external_service(tmp_path, stderr) as port, contextlib.closing(connected(port)) as connection:
        os.close(stderr)
        ask(connection, "PUT", "/faults", {"latency_ms": 1})
        due = time.monotonic() + LIMIT_S
        while "cotacoes_log_lines_dropped_total 2.0" not in (text := ask(connection, "GET", "/metrics")[1]):
            assert time.monotonic() < due, [line for line in text.splitlines() if "log_lines" in line]
