"""The HTTP routes of every service, from the documents that the services answer at `/openapi.json`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.make_reference import schemas
from docs.make_reference.markdown import WRITTEN, code, joined, table
from tests.unit.harness_openapi import SERVICES

INTRODUCTION = """
Each service answers a JSON document of its routes at `/openapi.json`, and the same for people at `/docs`; this page is
made from those documents. Prices are strings of plain decimals, exact. Times are RFC 3339 in UTC. A position is written
`EPOCH-SEQ`.

Every error is `application/problem+json` (RFC 9457); [Problem types](problems.md) explains each. A request may send
`X-Deadline-Ms` to cap the time spent on it. A route marked *administrators* needs `Authorization: Bearer` with the
admin token.

`/v1/ws`, the live stream as a WebSocket, is among the [messages](messages.md#the-live-stream-as-a-websocket).
"""
PROBLEM = "application/problem+json"
Operation = dict[str, Any]
Document = dict[str, Any]


def page() -> str:
    """The routes of each service, then the types of their bodies and answers."""
    documents = [asyncio.run(_document(name)) for name in ("gateway", "quote", "aggregator", "feed", "external")]
    each = [set(_problems(operation)) for one in documents for _, _, operation in _operations(one)]
    shared = set.intersection(*filter(None, each))  # the faults of the source have no list
    everywhere = f"Every route may also answer {_links(sorted(shared))}."
    services = [_service(document, shared) for document in documents]
    return joined("# Routes", WRITTEN, INTRODUCTION, everywhere, *services, _types(documents))


async def _document(service: str) -> Document:
    """The document of a service that is built over memory; what it logs meanwhile is of no interest."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        async with SERVICES[service](Path(folder)) as built:
            return built.document


def _operations(document: Document) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _service(document: Document, shared: set[str]) -> str:
    routes = (_route(*operation, shared) for operation in _operations(document))
    return joined(f"## {document['info']['title']}", *routes)


def _route(method: str, path: str, operation: Operation, shared: set[str]) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    answer = operation["responses"].get("200", {}).get("content", {})
    own = [problem for problem in _problems(operation) if problem not in shared]
    facts = [
        f"- Body: {_content(body)}" if body else "",
        f"- Answer: {_content(answer)}" if answer else "",
        *(f"- {status}: {_words(one['description'])}" for status, one in _further(operation)),
        f"- Problems: {_links(own)}" if own else "",
    ]
    return joined(
        f"### {method} {path}",
        _sentence(operation["summary"]),
        inspect.cleandoc(operation.get("description", "")),
        _parameters(operation.get("parameters", [])),
        "\n".join(fact for fact in facts if fact),
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        (
            code(one["name"]),
            one["in"],
            schemas.kind_of(one["schema"]).removesuffix(" or null"),
            code(json.dumps(one["schema"]["default"]).strip('"')) if "default" in one["schema"] else "",
            one.get("description", ""),
        )
        for one in parameters
    ]
    return table(("parameter", "in", "type", "default", "meaning"), rows)


def _content(content: dict[str, Any]) -> str:
    shown = [
        schemas.kind_of(its["schema"]) if media_type == "application/json" else code(media_type)
        for media_type, its in content.items()
    ]
    return ", ".join(shown)


def _problems(operation: Operation) -> Iterator[str]:
    """The slugs of the problems that a route may answer, each once."""
    seen: list[str] = []
    for response in operation["responses"].values():
        schema = response.get("content", {}).get(PROBLEM, {}).get("schema", {})
        slugs = schema.get("properties", {}).get("type", {}).get("enum", [])
        seen += [slug.partition("#")[2] for slug in slugs]
    yield from dict.fromkeys(seen)


def _further(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Statuses other than 200 that are not problems alone."""
    for status, response in operation["responses"].items():
        if status != "200" and PROBLEM not in response.get("content", {}):
            yield status, response


def _links(slugs: list[str]) -> str:
    return ", ".join(f"[{slug}](problems.md#{slug})" for slug in slugs)


def _types(documents: list[Document]) -> str:
    types: dict[str, dict[str, Any]] = {}
    for document in documents:
        types |= document["components"]["schemas"]
    shown = (schemas.described(name, types[name]) for name in sorted(types) if name != "Problem")
    return joined("## Types", *shown)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _words(text: str) -> str:
    return " ".join(text.split())
