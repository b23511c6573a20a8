"""The log events, from the calls of loggers in the source: name, level, fields, and which room says it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docs.make_reference.markdown import WRITTEN, code, codes, joined, table

import cotacoes

SOURCE = Path(cotacoes.__file__).parent
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
LOG_CRASH, NOTE = "log_crash", "note"  # our own: an error with an id; at most one line in a while for each kind
ALWAYS = ("time", "level", "service", "event")
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
INTRODUCTION = """
An event is a fact in the past, for a change of state or a failure; what happens per quote is counted, not logged. Logs
go to stderr: one JSON object a line if a program reads them, short text on a terminal. Each line has `time`, `level`,
`service` and `event` beside the fields below; `…` stands for further fields. An unexpected error also has `exception`,
its traceback. The room is the folder of `src/cotacoes` that logs the event.
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
        room = module.relative_to(SOURCE).parts[0].removesuffix(".py")
        tree = ast.parse(module.read_text(encoding="utf-8"))
        for name, level, fields in (*_calls(tree), *_lines(tree)):
            event = events.setdefault(name, Event())
            event.levels.add(level)
            event.rooms.add(room)
            event.fields |= dict.fromkeys(fields)
    rows = [
        (code(name), ", ".join(sorted(its.levels)), codes(its.fields), ", ".join(sorted(its.rooms)))
        for name, its in sorted(events.items())
    ]
    return joined("# Log events", WRITTEN, INTRODUCTION, table(("event", "level", "fields", "room"), rows))


def _calls(tree: ast.Module) -> Iterator[tuple[str, str, list[str]]]:
    """Event, level and fields of each call that logs."""
    tables = dict(_tables(tree))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            facts = dict(_tables(function))
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and call.args and (level := _level(call)):
                    for name in _names(call.args[0], tables):
                        yield name, level, list(_fields(call, facts))


def _lines(tree: ast.Module) -> Iterator[tuple[str, str, list[str]]]:
    """Lines that are written without a logger: `{"event": "log.dropped", "count": …}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            line = {
                key.value: value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            event, level = line.get("event"), line.get("level")
            if isinstance(event, ast.Constant) and EVENT.fullmatch(str(event.value)):
                shown = level.value if isinstance(level, ast.Constant) else "warning"
                yield str(event.value), str(shown), [str(key) for key in line if key not in ALWAYS]


def _tables(tree: ast.AST) -> Iterator[tuple[str, list[ast.Dict]]]:
    """The dictionaries that a name is assigned, or joined with, in a piece of code."""
    found: dict[str, list[ast.Dict]] = {}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
                found.setdefault(target.id, []).append(value)
    yield from found.items()


def _names(first: ast.expr, tables: dict[str, list[ast.Dict]]) -> Iterator[str]:
    """The events that a call may log: its first argument, or all of a table from which that is taken."""
    values: list[ast.expr] = [first]
    if isinstance(first, ast.Subscript) and isinstance(first.value, ast.Name):
        values = [value for its in tables.get(first.value.id, ()) for value in its.values]
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and EVENT.fullmatch(value.value):
            yield value.value


def _level(call: ast.Call) -> str | None:
    """The level at which a call logs; None if it is no call of a logger."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == NOTE:
        second = call.args[1] if len(call.args) > 1 else None
        return "error" if isinstance(second, ast.Name) and second.id.endswith("error") else "warning"
    return "error" if name == LOG_CRASH else LEVELS.get(name)


def _fields(call: ast.Call, facts: dict[str, list[ast.Dict]]) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg is not None and keyword.arg != "exc_info":
            yield keyword.arg
        elif isinstance(keyword.value, ast.Name) and keyword.value.id in facts:
            for its in facts[keyword.value.id]:
                yield from (
                    key.value for key in its.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )
        elif keyword.arg is None:
            yield "…"
