"""The messages of the live path, from `docs/asyncapi.yaml`: channels, messages, fields, an example each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from docs.make_reference import schemas
from docs.make_reference.markdown import WRITTEN, code, joined

DOCUMENT = Path(__file__).parents[1] / "asyncapi.yaml"
INTRODUCTION = """
[asyncapi.yaml](../asyncapi.yaml) is the same as an AsyncAPI 3 document, which tests hold against every message that is
sent; [Publish/subscribe](../explanation/pub-sub.md) explains why the messages are as they are.
"""


def page() -> str:
    """The channels, then the messages, then the types of their fields."""
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    messages = document["components"]["messages"]
    types = document["components"]["schemas"]
    for its in types.values():  # a field that is described as that of another message
        for name, field in its.get("properties", {}).items():
            whole, _, part = field.get("$ref", "").removeprefix("#/components/schemas/").partition("/properties/")
            if part:
                its["properties"][name] = types[whole]["properties"][part]
    own = {message["payload"]["$ref"].rpartition("/")[2] for message in messages.values()}
    return joined(
        "# Messages",
        WRITTEN,
        document["info"]["description"],
        INTRODUCTION,
        "## Channels",
        *(_channel(its) for its in document["channels"].values()),
        "## Messages",
        *(_message(name, its, types) for name, its in messages.items()),
        "## Types",
        *(_type(name, its) for name, its in types.items() if name not in own),
    )


def _channel(channel: dict[str, Any]) -> str:
    links = ", ".join(_link(one["$ref"].rpartition("/")[2]) for one in channel["messages"].values())
    return joined(
        f"### {channel['title']}", f"Address: {code(channel['address'])}", channel["description"], f"Messages: {links}."
    )


def _message(name: str, message: dict[str, Any], types: dict[str, Any]) -> str:
    schema = types[message["payload"]["$ref"].rpartition("/")[2]]
    examples = "\n".join(json.dumps(one["payload"], separators=(",", ":")) for one in message["examples"])
    return joined(
        f"### {name}",
        f"{message['title']}.",
        message.get("summary", ""),
        schemas.fields(schema),
        f"```json\n{examples}\n```",
    )


def _type(name: str, schema: dict[str, Any]) -> str:
    pattern = schema.get("pattern")
    return joined(
        f"### {name}",
        schema.get("description", ""),
        schemas.kind_of(schema),
        f"Pattern: {code(pattern)}" if pattern else "",
    )


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"
