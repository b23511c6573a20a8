"""JSON schemas in words: what a field holds, and a table of a type's fields."""

from __future__ import annotations

import inspect
from typing import Any

from docs.make_reference.markdown import code, codes, joined, table

Schema = dict[str, Any]


def kind_of(schema: Schema) -> str:
    """What a value may be: `integer, 1 to 100`, one of several words, a link to a type."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for one_of in ("anyOf", "oneOf"):
        if one_of in schema:
            return " or ".join(dict.fromkeys(kind_of(one) for one in schema[one_of]))
    if "allOf" in schema:
        return kind_of(schema["allOf"][0])
    if "enum" in schema:
        return codes(schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    kinds = schema.get("type", "any")
    return " or ".join(_of_one(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def described(name: str, schema: Schema) -> str:
    """A type under a heading of its own, with its fields."""
    description = inspect.cleandoc(schema.get("description", ""))
    if "properties" not in schema:
        return joined(f"### {name}", description, kind_of(schema))
    return joined(f"### {name}", description, fields(schema))


def fields(schema: Schema) -> str:
    """The fields of an object, as a table."""
    needed = schema.get("required", [])
    rows = [
        (
            code(field),
            kind_of(its) + ("" if field in needed else "; may be absent"),
            its.get("description", ""),
        )
        for field, its in schema["properties"].items()
    ]
    return table(("field", "type", "meaning"), rows)


def _of_one(kind: str, schema: Schema) -> str:
    if kind == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object: name to {kind_of(schema['additionalProperties'])}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return f"{kind}, {low} or more" if low is not None else kind
