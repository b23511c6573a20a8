"""The log events, from the calls of loggers in the source: name, level, fields, and which room says it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docs.make_reference.markdown import WRITTEN, code, codes, joined, table

import cotacoes

SOURCE = Path(cotacoes.__file__).parent
LEVELS = ("debug", "info", "warning", "error", "exception", "note")
INTRODUCTION = """
An event is a fact in the past, for a change of state or a failure; what happens per quote is counted, not logged. Logs
go to stderr: one JSON object a line if a program reads them, short text on a terminal. Each line has `time`, `level`,
`service` and `event` beside the fields below; `…` stands for further ones. An unexpected error has `exception`, its
traceback, too.
"""


@dataclass
class Event:
    """An event with what all its calls have."""

    levels: set[str] = field(default_factory=set)
    fields: dict[str, None] = field(default_factory=dict)
    rooms: set[str] = field(default_factory=set)


def page() -> str:
    """All events by name."""
    events: dict[str, Event] = {}
    for module in sorted(SOURCE.rglob("*.py")):
        for call, name in _calls(module):
            event = events.setdefault(name, Event())
            event.levels.add(_level(call))
            event.rooms.add(module.relative_to(SOURCE).parts[0].removesuffix(".py"))
            event.fields |= dict.fromkeys(_fields(call))
    rows = [
        (code(name), ", ".join(sorted(its.levels)), codes(its.fields), ", ".join(sorted(its.rooms)))
        for name, its in sorted(events.items())
    ]
    return joined("# Log events", WRITTEN, INTRODUCTION, table(("event", "level", "fields", "said by"), rows))


def _calls(module: Path) -> Iterator[tuple[ast.Call, str]]:
    """Calls of a logger's methods whose first argument is the name of an event."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and node.args
        ):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.count(".") == 1:
                yield node, first.value


def _level(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return "error" if call.func.attr in ("exception", "note") else call.func.attr


def _fields(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg != "exc_info":
            yield keyword.arg or "…"
