"""What is wrong with a value that was given, in our own words, whichever library found it.

pydantic says of each problem its kind and what the kind needs to be explained (`ctx`); its English is for programmers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
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
_QUOTED = re.compile("'([^']*)'")
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}


def explain_value(problem: Mapping[str, Any]) -> str:
    """One of the problems that a pydantic error lists, without where it is and what was given."""
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
