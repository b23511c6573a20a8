"""The log of a process: structured events on standard error.

A log event is a fact in the past, for a change of state or a failure (`breaker.opened upstream=quote_service.quotes
failures=5`); what happens per quote is counted, not logged. A program that reads the log gets one JSON object per line,
a terminal gets short coloured text. A slow or absent reader and a full disk never delay or fail the work: lines are
dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cotacoes.observability import printer

if TYPE_CHECKING:  # it takes 65 ms to import: commands that log nothing do without it
    import structlog

    Logger = structlog.stdlib.BoundLogger

_outputs: list[printer.Printer] = []  # of this process's log, so that the lines they dropped can be counted

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@contextlib.contextmanager
def logging_to_stderr(service: str, level: str = "info", *, in_words: bool = False) -> Iterator[None]:
    """Log to standard error within the context, without ever waiting for its reader or failing with it.

    `in_words` writes plain text wherever standard error goes: the log of a command is read by a person.
    """
    terminal = sys.stderr.isatty()

    def dropped_line(count: int) -> str:
        if terminal or in_words:
            return f"… {count} lines of the log were dropped"
        time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return json.dumps(
            {"event": "log.dropped", "count": count, "level": "warning", "time": time, "service": service}
        )

    with printer.unblocked_stderr(dropped_line) as output:
        _outputs.append(output)
        configure_logging(service, level, in_words=in_words)
        yield


def configure_logging(service: str, level: str = "info", *, in_words: bool = False) -> None:
    """Configure this process's log; every line names `service`. For `in_words` see logging_to_stderr."""
    import structlog

    terminal = sys.stderr.isatty()
    shape: list[Any]
    if in_words:
        shape = [structlog.processors.format_exc_info, plain_line]
    elif terminal:
        # plain tracebacks: the default prints the values of all variables, including tokens
        shape = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        shape = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]

    def name_service(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            name_service,
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s", force=True)


def plain_line(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """Render an event as plain text: `12:00:02  history away (coin bitcoin): no time left`."""
    reason, trace = event.get("reason"), event.get("exception")
    hidden = {"event", "level", "time", "service", "reason", "exception"}
    about = ", ".join(f"{name} {value}" for name, value in event.items() if name not in hidden)
    line = f"{datetime.now().astimezone():%H:%M:%S}  {str(event['event']).replace('.', ' ')}"
    line += (f" ({about})" if about else "") + (f": {reason}" if reason else "")
    text = "".join(one if one.isprintable() else "�" for one in line)
    return f"{text}\n{trace}" if trace else text


def get_logger() -> Logger:
    """The structured logger; configure_logging decides where it writes."""
    import structlog

    logger: Logger = structlog.get_logger()
    return logger


def dropped_lines() -> int:
    """The number of log lines that this process has dropped."""
    return sum(output.dropped for output in _outputs)


class FailureLog:
    """Logs each kind of unexpected error once, with its traceback, and at most `KINDS_MAX` kinds.

    A kind is an event with the error's type and the line that raised it. Repetitions are for the caller to count.
    """

    KINDS_MAX = 50

    def __init__(self) -> None:
        self._kinds: set[tuple[str, type[BaseException], str, int]] = set()

    def note(self, event: str, error: BaseException, **facts: object) -> None:
        """Log the failure, unless one of its kind has been logged."""
        kind = (event, type(error), *_raised_at(error))
        if kind not in self._kinds and len(self._kinds) < self.KINDS_MAX:
            self._kinds.add(kind)
            get_logger().error(event, **facts, reason=type(error).__name__, exc_info=error)


def _raised_at(error: BaseException) -> tuple[str, int]:
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)
