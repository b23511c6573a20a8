"""What somebody else can cause is logged once a while, with how often it came."""

import asyncio
from typing import Any

import pytest
import structlog

from cotacoes.observability.bounded_log import INTERVAL_S, KINDS_MAX, BoundedLog, log_loop_errors


def test_a_kind_is_logged_once_per_interval_with_a_count() -> None:
    now = 100.0
    log = BoundedLog(lambda: now)
    with structlog.testing.capture_logs() as logs:
        for _ in range(1_000):
            log.note("connection.refused", "24", reason="Too many open files")
        log.note("connection.refused", "23", reason="Too many open files in system")
        now += INTERVAL_S
        log.note("connection.refused", "24", reason="Too many open files")
    assert [(line["reason"], line["count"]) for line in logs] == [
        ("Too many open files", 1),
        ("Too many open files in system", 1),
        ("Too many open files", 1_000),
    ]


def test_kinds_beyond_the_limit_count_as_one() -> None:
    log = BoundedLog(lambda: 0.0)
    with structlog.testing.capture_logs() as logs:
        for kind in range(10_000):
            log.note("thing.failed", str(kind))
    assert len(logs) == KINDS_MAX + 1


async def test_errors_of_callbacks_are_logged_by_kind_with_the_first_traceback() -> None:
    def fail() -> None:
        raise ZeroDivisionError("in a callback")

    loop = asyncio.get_running_loop()
    log_loop_errors(loop)
    try:
        with structlog.testing.capture_logs() as logs:
            for _ in range(500):
                loop.call_soon(fail)
            loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": OSError(24)})
            await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert len(logs) == 2
    first = next(line for line in logs if "callback" in line["message"])
    assert first["event"] == "loop.failed"
    assert isinstance(first["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("context", [{}, {"message": "m" * 10_000}, {"exception": None, "message": None}])
async def test_everything_that_the_loop_reports_is_logged(context: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    log_loop_errors(loop)
    try:
        with structlog.testing.capture_logs() as logs:
            loop.call_exception_handler(context)
    finally:
        loop.set_exception_handler(None)
    assert len(logs) == 1
