"""Output that holds up and fails nobody who writes to it."""

import errno
import io
import logging
import subprocess
import sys
import threading

import pytest

from cotacoes.observability.printer import Printer, unblocked_stderr


def missing(count: int) -> str:
    return f"… {count} lines were not shown"


def test_all_lines_are_written_in_order_by_the_end() -> None:
    written: list[bytes] = []
    with Printer(written.append, lambda _: None, encoding="utf-8", dropped_line=missing) as one:
        for number in range(1000):
            one.put(f"{number} ▲")
    assert b"".join(written).decode().splitlines() == [f"{number} ▲" for number in range(1000)]


def test_a_reader_that_does_not_read_blocks_nothing_and_lost_lines_are_counted() -> None:
    written: list[bytes] = []
    reads, begun = threading.Event(), threading.Event()

    def write(line: bytes) -> None:
        begun.set()
        reads.wait(10)
        written.append(line)

    with Printer(write, lambda _: None, encoding="utf-8", dropped_line=missing, waiting_bytes_max=30) as one:
        one.put("first")
        begun.wait(10)
        for number in range(10, 30):
            one.put(str(number))
        assert one.dropped == 12
        reads.set()
        while len(written) < 9:
            begun.wait(0.001)
        one.put("after")
    assert b"".join(written).decode().splitlines() == [
        "first",
        *map(str, range(10, 18)),
        "… 12 lines were not shown",
        "after",
    ]


def test_a_line_longer_than_the_queue_is_written_if_the_queue_is_empty() -> None:
    written: list[bytes] = []
    with Printer(written.append, lambda _: None, encoding="utf-8", dropped_line=missing, waiting_bytes_max=10) as one:
        one.put("x" * 100)
    assert written == [b"x" * 100 + b"\n"]


def test_lines_that_could_not_be_written_are_counted_and_reported_once_writing_works_again() -> None:
    written: list[bytes] = []
    failures: list[OSError] = []
    is_full = True

    def write(line: bytes) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(line)

    def wait_for_dropped(count: int) -> None:
        while one.dropped < count:
            threading.Event().wait(0.001)

    with Printer(write, failures.append, encoding="utf-8", dropped_line=missing) as one:
        one.put("a")
        one.put("b")
        wait_for_dropped(2)
        one.put("c")
        wait_for_dropped(3)
        is_full = False
        one.put("d")
    assert b"".join(written).decode().splitlines() == ["… 3 lines were not shown", "d"]
    assert len(failures) == 1


def test_the_last_dropped_lines_are_reported_at_the_end() -> None:
    written: list[bytes] = []
    fails = True

    def write(line: bytes) -> None:
        if fails:
            raise BrokenPipeError
        written.append(line)

    with Printer(write, lambda _: None, encoding="utf-8", dropped_line=missing) as one:
        one.put("a")
        while not one.dropped:
            threading.Event().wait(0.001)
        fails = False
    assert written == ["… 1 lines were not shown\n".encode()]


def test_without_a_reader_one_failure_is_reported_and_the_rest_is_discarded() -> None:
    failures: list[OSError] = []

    def write(_: bytes) -> None:
        raise BrokenPipeError

    with Printer(write, failures.append, encoding="utf-8", dropped_line=missing) as one:
        for _ in range(5):
            one.put("line")
    assert [type(error) for error in failures] == [BrokenPipeError]


def test_characters_that_the_encoding_lacks_are_replaced() -> None:
    written: list[bytes] = []
    with Printer(written.append, lambda _: None, encoding="ascii", dropped_line=str) as one:
        one.put("▲")
    assert written == [b"?\n"]


class Memory(io.StringIO):
    """A stream in memory that can be full."""

    is_full = False

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_everything_written_to_standard_error_goes_through_the_printer(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(sys, "stderr", memory)
    with unblocked_stderr(missing):
        log = logging.Logger("asyncio")
        log.addHandler(logging.StreamHandler())
        log.error("from the log")
        thread = threading.Thread(target=lambda: 1 / 0)
        monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
        thread.start()
        thread.join()
        sys.stderr.write("without an end")
        assert memory is not sys.stderr
    said = memory.getvalue()
    for words in ("from the log\n", "ZeroDivisionError: division by zero\n"):
        assert words in said
    assert said.endswith("without an end\n")
    assert sys.stderr is memory
    log.error("after the end, to nobody")
    log.handlers[0].flush()


def test_a_full_disk_behind_standard_error_causes_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    memory.is_full = True
    monkeypatch.setattr(sys, "stderr", memory)
    with unblocked_stderr(missing) as output:
        sys.stderr.write("lost\n")
        while not output.dropped:
            threading.Event().wait(0.001)
        memory.is_full = False
        sys.stderr.write("kept\n")
    assert memory.getvalue() == "… 1 lines were not shown\nkept\n"


def test_a_line_without_an_end_is_not_held_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(sys, "stderr", memory)
    with unblocked_stderr(missing):
        for _ in range(3):
            sys.stderr.write("x" * 50_000)
    assert memory.getvalue() == "x" * 100_000 + "\n" + "x" * 50_000 + "\n"


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_a_process_started_without_standard_streams_opens_no_other_file_in_their_place(closed: list[int]) -> None:
    code = f"""
import os, sys
for descriptor in {closed}:
    os.close(descriptor)
    setattr(sys, ["stdin", "stdout", "stderr"][descriptor], None)
from cotacoes.observability.printer import open_standard_streams
open_standard_streams()
if os.open(os.devnull, os.O_RDONLY) <= 2:
    os._exit(4)
if 0 in {closed}:
    assert sys.stdin.read() == ""
if 2 in {closed}:
    print("to nobody", file=sys.stderr)
try:
    print("said", flush=True)
except OSError as error:
    os._exit(3 if error.strerror == "Bad file descriptor" else 1)
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, stdout=subprocess.DEVNULL)
    assert ended.returncode == (3 if 1 in closed else 0)
