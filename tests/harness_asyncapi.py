"""Holds what tests see against docs/asyncapi.yaml: lines on Redis, frames and events to clients, ops of clients.

What is not as described is an AssertionError that says what is wrong. A schema takes 42.0 for an integer, and a parser
a name that comes twice; neither is written here, so neither is taken.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

DOCUMENT = Path(__file__).parents[1] / "docs" / "asyncapi.yaml"


@functools.cache
def document() -> dict[str, Any]:
    """The document, read once."""
    loaded: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    return loaded


@functools.cache
def validator(schema: str) -> Any:
    """What holds a message against one schema of the document, in the dialect of AsyncAPI's schemas."""
    root = {"allOf": [{"$ref": f"#/components/schemas/{schema}"}], "components": document()["components"]}
    return jsonschema_rs.Draft7Validator(root)


@functools.cache
def kinds(operation: str) -> frozenset[str]:
    """The messages of an operation, by what they have as `type` or `op`."""
    messages = document()["operations"][operation]["messages"]
    return frozenset(reference["$ref"].rpartition("/")[2] for reference in messages)


def check(schema: str, message: object) -> None:
    """AssertionError with all that is wrong."""
    if not validator(schema).is_valid(message):
        wrong = [f"{error.instance_path}: {error.message}" for error in validator(schema).iter_errors(message)]
        raise AssertionError(f"{message} is no {schema}: {'; '.join(wrong)}")


def check_line(line: bytes) -> None:
    """One line of a message on Redis."""
    assert b"\n" not in line, f"{line!r} is not one line"
    message = _read(line)
    kind = _kind(message, "type", frozenset({"quote", "heartbeat"}))
    check("quote" if kind == "quote" else "heartbeatLine", message)


def check_frame(frame: Mapping[str, Any] | str | bytes) -> None:
    """One frame of the WebSocket to a client, or the data of one event."""
    message = _read(frame)
    kind = _kind(message, "type", kinds("sendFrames"))
    check("conflatedQuote" if kind == "quote" and "after" in message else kind, message)


def check_op(op: object) -> None:
    """What a client says."""
    message = _read(op)
    check(_kind(message, "op", kinds("receiveOps")), message)


def _kind(message: dict[str, Any], field: str, known: frozenset[str]) -> str:
    kind = message.get(field)
    assert isinstance(kind, str), f"{message} has no {field}"
    assert kind in known, f"{message}: there is no {field} {kind!r} in the document"
    return kind


def _read(given: object) -> dict[str, Any]:
    message = given
    if isinstance(given, str | bytes):
        try:
            message = json.loads(given, object_pairs_hook=_once, parse_float=_refuse, parse_constant=_refuse)
        except ValueError as error:  # of JSON, of UTF-8, or ours
            raise AssertionError(f"{given!r} is not taken: {error}") from error
    assert isinstance(message, Mapping), f"{given!r} is no JSON object"
    assert float not in map(type, message.values()), f"{given!r} has a number that is not written as an integer"
    return dict(message)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a name comes twice")
    return named


def _refuse(number: str) -> None:
    raise ValueError(f"{number} is not written as an integer")
