"""Bounded logging of events that outsiders can cause at will: one line of each kind per interval, with a count."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from cotacoes.observability.logs import get_logger

INTERVAL_S = 10.0
KINDS_MAX = 64  # all further kinds count as one
_OTHER = "other"


class BoundedLog:
    """Writes at most one line of each kind per `interval_s`. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float], interval_s: float = INTERVAL_S) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._last: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def note(self, event: str, kind: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """Log the event unless its kind was logged within the interval; `count` covers the events since that line."""
        kind = kind if kind in self._count or len(self._count) < KINDS_MAX else _OTHER
        self._count[kind] = self._count.get(kind, 0) + 1
        now = self._clock()
        if kind in self._last and now - self._last[kind] < self._interval_s:
            return
        self._last[kind] = now
        count, self._count[kind] = self._count[kind], 0
        get_logger().warning(event, **fields, count=count, exc_info=exc_info)


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log errors that the event loop reports of callbacks and lost tasks, bounded; asyncio would log each in full."""
    log = BoundedLog(loop.time)

    def on_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = str(context.get("message", ""))
        log.note("loop.failed", f"{message[:80]} {type(error).__name__}", exc_info=error, message=message)

    loop.set_exception_handler(on_error)


def log_crash(event: str, request_id: str | None = None, **fields: Any) -> str:
    """Log the current exception with its traceback; returns the id under which it is logged, for the client."""
    request_id = request_id or uuid.uuid4().hex
    get_logger().exception(event, request_id=request_id, **fields)
    return request_id
