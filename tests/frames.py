"""Holds what tests see against docs/asyncapi.yaml: lines on Redis, frames and events to clients, ops of clients."""

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
    """What holds a message against one schema of the document."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": document()["components"]}
    return jsonschema_rs.Draft202012Validator(root)


def check(schema: str, message: object) -> None:
    """AssertionError with all that is wrong."""
    if not validator(schema).is_valid(message):
        wrong = [f"{error.instance_path}: {error.message}" for error in validator(schema).iter_errors(message)]
        raise AssertionError(f"{message} is no {schema}: {'; '.join(wrong)}")


def check_line(line: bytes) -> None:
    """One line of a message on Redis."""
    message = json.loads(line)
    assert message["type"] in {"quote", "heartbeat"}
    check("quote" if message["type"] == "quote" else "heartbeatLine", message)


def check_frame(frame: Mapping[str, Any] | str | bytes) -> None:
    """One frame of the WebSocket to a client, or the data of one event."""
    message = dict(frame) if isinstance(frame, Mapping) else json.loads(frame)
    kind = message.get("type")
    sent = document()["operations"]["sendFrames"]["messages"]
    known = {reference["$ref"].rpartition("/")[2] for reference in sent}
    assert kind in known, f"{message} is of a type that is not in the document"
    check("conflatedQuote" if kind == "quote" and "after" in message else kind, message)


def check_op(op: object) -> None:
    """What a client says."""
    assert isinstance(op, dict)
    assert op.get("op") in {"subscribe", "unsubscribe", "ping"}
    check(op["op"], op)
