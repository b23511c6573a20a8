"""Explanations of invalid values and messages for users, whichever library found the problem.

pydantic reports the kind of each problem and details (`ctx`), msgspec one sentence with the place in it; the English of
both is for programmers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "json_invalid": "is not valid JSON",
    "finite_number": "write a finite number",
    "path_type": "write a path",
}
_WORDS |= dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "write a whole number")
_WORDS |= dict.fromkeys(("float_type", "float_parsing"), "write a number")
_WORDS |= dict.fromkeys(("bool_type", "bool_parsing"), "write 1 or 0")
_WORDS |= dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "write text")
_WORDS |= dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "write an object")
_WORDS |= dict.fromkeys(("list_type", "tuple_type", "set_type"), "write a list")
_FIELD = re.compile("Object (missing required|contains unknown) field `([^`]*)`")
_PLACE = re.compile(r" - at `(?:key` in `)?\$\.?([^`]+)`")
_QUOTED = re.compile("'([^']*)'")
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}


def explain_message(error: Exception) -> str:
    """Why a message cannot be read, from the error that decoding it raised; our own errors explain themselves."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not type(error).__module__.startswith("msgspec"):
        return str(error)
    if field := _FIELD.search(str(error)):
        return f"{field[2]} {'is missing' if field[1].startswith('missing') else 'is unknown'}"
    if place := _PLACE.search(str(error)):
        return f"{place[1]} is invalid"
    return "it has the wrong shape" if type(error).__name__ == "ValidationError" else "it is not valid JSON"


def explain_value(problem: Mapping[str, Any]) -> str:
    """The explanation of one problem in a pydantic error, without its place and input."""
    kind, context = str(problem["type"]), problem.get("ctx") or {}
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "value_error":
        return str(context["error"])
    if "expected" in context:  # `'mid' or 'trade'`
        return f"write one of {', '.join(_QUOTED.findall(context['expected']))}"
    for name, words in _BOUNDS.items():
        if name in context:
            return f"must be {words} {context[name]}"
    for name, words in _LENGTHS.items():
        if name in context:
            return f"must have {words} {context[name]} {'characters' if kind.startswith('string') else 'items'}"
    return "is not allowed"
