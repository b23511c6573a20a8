"""The page at `/docs`: routes and problem types as plain HTML."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from cotacoes.errors import problem_types
from cotacoes.errors.problem_json import PROBLEM_JSON
from cotacoes.web.pages import page


def render(openapi: dict[str, Any]) -> str:
    """The page for one service's OpenAPI document."""
    return page(
        openapi["info"]["title"],
        "<p>As JSON: <a href=/openapi.json>/openapi.json</a></p>"
        f"<h2>Routes</h2>{''.join(_routes(openapi))}<h2>Problem types</h2>"
        "<p>Every error is <code>application/problem+json</code>; its <code>type</code> links to this page.</p>"
        f"{''.join(_problems())}",
    )


def _routes(openapi: dict[str, Any]) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            summary = html.escape(operation.get("summary", ""))
            yield f"<h3><code>{method.upper()} {html.escape(path)}</code></h3><p>{summary}</p>"
            if operation.get("description"):
                yield f"<p>{html.escape(operation['description'])}</p>"
            for parameter in operation.get("parameters", []):
                text = html.escape(parameter.get("description", ""))
                yield f"<p><code>{html.escape(parameter['name'])}</code> ({parameter['in']}) {text}</p>"
            yield f"<p>Problems: {', '.join(_problems_of(operation))}</p>"


def _problems_of(operation: dict[str, Any]) -> Iterator[str]:
    """A link for each problem type that the route may answer."""
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get(PROBLEM_JSON, {}).get("schema", {})
        for reference in schema.get("properties", {}).get("type", {}).get("enum", []):
            slug = reference.partition("#")[2]
            yield f'<a href="#{slug}">{status} {slug}</a>'


def _problems() -> Iterator[str]:
    for kind in sorted(problem_types(), key=lambda kind: (kind.status, kind.slug)):
        text = html.escape(" ".join((kind.__doc__ or "").split()))
        yield f"<h3 id={kind.slug}>{kind.status} <code>{kind.slug}</code></h3><p>{text}</p>"
