"""The page at `/docs`: routes and problem types, rendered from the service's OpenAPI document. It needs no script."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt

from cotacoes.errors import problem_types
from cotacoes.errors.problem_json import PROBLEM_JSON
from cotacoes.web.pages import page

_MARKDOWN = MarkdownIt("commonmark", {"html": False})


def render(openapi: dict[str, Any]) -> str:
    """The page for one service's OpenAPI document."""
    back = "<a href=/>Back to the page</a> · " if "/" in openapi["paths"] else ""
    operations = [
        (method.upper(), path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    contents = "".join(
        f"<li><a href='#{_anchor(method, path)}'><code>{method} {html.escape(path)}</code></a> "
        f"{_inline(operation.get('summary', ''))}"
        for method, path, operation in operations
    )
    return page(
        openapi["info"]["title"],
        f"<p>{back}As JSON: <a href=/openapi.json>/openapi.json</a></p>"
        f"{_with_anchors(openapi['info'].get('description', ''))}"
        f"<h2>Routes</h2><ul>{contents}</ul>{''.join(_route(*one) for one in operations)}"
        "<h2>Problem types</h2>"
        "<p>Every error is <code>application/problem+json</code>; its <code>type</code> links to this page.</p>"
        f"{''.join(_problems())}",
    )


def _with_anchors(text: str) -> str:
    """Markdown whose headings can be linked to: `#scatter-gather` for Scatter/gather."""
    tokens = _MARKDOWN.parse(text)
    for opening, within in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", re.sub("[^a-z0-9]+", "-", within.content.lower()))
    rendered: str = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return rendered


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    text = inspect.cleandoc(operation.get("description", ""))
    return (
        f"<h3 id='{_anchor(method, path)}'><code>{method} {html.escape(path)}</code></h3>"
        f"<p>{_inline(operation.get('summary', ''))}</p>{_MARKDOWN.render(text)}"
        f"{_parameters(operation.get('parameters', []))}<p>Problems: {', '.join(_problems_of(operation))}</p>"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(one['name'])}</code><td>{one['in']}<td>{_inline(one.get('description', ''))}</tr>"
        for one in parameters
    )
    return f"<table><tr><th>parameter<th>in<th>meaning</tr>{rows}</table>" if rows else ""


def _problems_of(operation: dict[str, Any]) -> Iterator[str]:
    """A link for each problem type that the route may answer."""
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get(PROBLEM_JSON, {}).get("schema", {})
        for reference in schema.get("properties", {}).get("type", {}).get("enum", []):
            slug = reference.partition("#")[2]
            yield f'<a href="#{slug}">{status} {slug}</a>'


def _problems() -> Iterator[str]:
    for kind in sorted(problem_types(), key=lambda kind: (kind.status, kind.slug)):
        text = _MARKDOWN.render(inspect.cleandoc(kind.__doc__ or ""))
        yield f"<h3 id={kind.slug}>{kind.status} <code>{kind.slug}</code></h3>{text}"


def _inline(text: str) -> str:
    rendered: str = _MARKDOWN.renderInline(text)
    return rendered


def _anchor(method: str, path: str) -> str:
    return html.escape(f"{method} {path}".replace(" ", ""))
