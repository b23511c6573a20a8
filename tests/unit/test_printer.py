"""Standard output that holds nobody up."""

import threading

import pytest

from cotacoes import printer
from cotacoes.printer import Printer


def test_lines_are_written_in_order_and_all_of_them_by_the_end() -> None:
    written: list[bytes] = []
    with Printer(
        written.append, lambda _: None, encoding="utf-8", dropped=lambda count: f"… {count} lines were not shown"
    ) as one:
        for number in range(1000):
            one.put(f"{number} ▲")
    assert b"".join(written).decode().splitlines() == [f"{number} ▲" for number in range(1000)]


def test_a_reader_that_does_not_read_holds_nobody_up_and_what_was_not_shown_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(printer, "LINES_MAX", 10)
    written: list[bytes] = []
    reads, begun = threading.Event(), threading.Event()

    def write(line: bytes) -> None:
        begun.set()
        reads.wait(10)
        written.append(line)

    with Printer(
        write, lambda _: None, encoding="utf-8", dropped=lambda count: f"… {count} lines were not shown"
    ) as one:
        one.put("first")
        begun.wait(10)
        for number in range(30):
            one.put(str(number))
        reads.set()
        while len(written) < 11:
            begun.wait(0.001)
        one.put("after")
    assert written[-2:] == ["… 20 lines were not shown\n".encode(), b"after\n"]


def test_when_nobody_is_there_to_read_it_is_told_once_and_the_rest_is_thrown_away() -> None:
    told: list[OSError] = []

    def write(_: bytes) -> None:
        raise BrokenPipeError

    with Printer(write, told.append, encoding="utf-8", dropped=lambda count: f"… {count} lines were not shown") as one:
        for _ in range(5):
            one.put("line")
    assert [type(error) for error in told] == [BrokenPipeError]


def test_what_an_encoding_lacks_is_replaced() -> None:
    written: list[bytes] = []
    with Printer(written.append, lambda _: None, encoding="ascii", dropped=str) as one:
        one.put("▲")
    assert written == [b"?\n"]
