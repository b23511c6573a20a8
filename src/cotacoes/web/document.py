"""The document at `/openapi.json`: the type of each route's answer, and the problems that it may answer instead.

FastAPI knows the parameters and bodies of a route. It knows neither the answer of a route that encodes it itself, nor
the errors that the route raises, nor the refusals in front of it, and it never runs lean and direct routes. So routes
declare them:

    @router.get("/v1/quotes/{coin}", summary=…, **answering(PageJson, UnknownCoinError, PositionGoneError))

The problems that any request can meet are added to every route.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI

from cotacoes.errors import (
    BadRequestError,
    DeadlineExceededError,
    HeadersTooLargeError,
    InternalError,
    MalformedRequestError,
    MisdirectedRequestError,
    OverloadedError,
    ProblemError,
    RequestTimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    problem_types,
)
from cotacoes.errors.problem_json import PROBLEM_JSON

JSON = "application/json"
OF_EVERY_ROUTE: tuple[type[ProblemError], ...] = (
    MalformedRequestError,
    RequestTimeoutError,
    MisdirectedRequestError,
    BadRequestError,
    HeadersTooLargeError,
    InternalError,
    OverloadedError,
    DeadlineExceededError,
)
_ANSWER, _PROBLEMS, _SCHEMAS = "x-answer", "x-problems", "x-schemas"
_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "title": "Problem",
    "description": "An error (RFC 9457); further fields depend on its type.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "link to the explanation of this type in /docs"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_ADMIN = {"type": "http", "scheme": "bearer", "description": "The admin token, which `cotacoes env` prints."}


def answering(
    kind: type[msgspec.Struct] | str, *problems: type[ProblemError], also: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Arguments for a route's decorator: the type of its answer, or its media type if it is not JSON, and its problems.

    `also` describes further statuses; a 503 among them has the answer's own type.
    """
    extra = refusing(*problems)["openapi_extra"]
    content: dict[str, Any] = {kind: {}} if isinstance(kind, str) else {}
    if not isinstance(kind, str):
        (schema,), extra[_SCHEMAS] = msgspec.json.schema_components([kind], ref_template=_REF)
        content = {JSON: {"schema": schema}}
    extra[_ANSWER] = {"200": {"description": "The answer", "content": content}}
    for status, words in (also or {}).items():
        extra[_ANSWER][status] = {"description": words} | ({"content": content} if status == "503" else {})
    return {"response_model": None, "openapi_extra": extra}


def query_parameters(described: Mapping[str, tuple[str, Mapping[str, object]]]) -> list[dict[str, object]]:
    """The parameters of a direct route, which the framework does not read, from their descriptions and schemas."""
    return [
        {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
        for name, (description, schema) in described.items()
    ]


def refusing(*problems: type[ProblemError]) -> dict[str, Any]:
    """Arguments for the decorator of a route whose answer FastAPI knows: its problems only."""
    return {"openapi_extra": {_PROBLEMS: [kind.slug for kind in problems]}}


class DocumentedApp(FastAPI):
    """A FastAPI app whose document is completed by the routes' own declarations."""

    def openapi(self) -> dict[str, Any]:
        """The document, built once."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi())
        return self.openapi_schema


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with the declarations of the routes put in place."""
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own errors, which no service answers
        schemas.pop(name, None)
    for methods in document["paths"].values():
        for method, operation in methods.items():
            schemas.update(operation.pop(_SCHEMAS, {}))
            slugs = operation.pop(_PROBLEMS, [])
            kinds = [kind for kind in problem_types() if kind.slug in slugs]
            if method != "get":
                kinds.append(TooLargeError)
            answers = operation.pop(_ANSWER, None) or {
                status: its for status, its in operation["responses"].items() if status < "400"
            }
            operation["responses"] = _with_problems(answers, [*kinds, *OF_EVERY_ROUTE])
            if UnauthorizedError in kinds:
                operation["security"] = [{"admin": []}]
                document["components"]["securitySchemes"] = {"admin": _ADMIN}
    return document


def _with_problems(answers: Mapping[str, Any], kinds: Iterable[type[ProblemError]]) -> dict[str, Any]:
    """The responses, sorted by status."""
    responses = {status: {**its, "content": dict(its.get("content", {}))} for status, its in answers.items()}
    by_status: dict[str, list[type[ProblemError]]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(str(kind.status), []).append(kind)
    for status, its in by_status.items():
        words = "; ".join(dict.fromkeys(kind.title for kind in its))
        response = responses.setdefault(status, {"description": words, "content": {}})
        response["content"][PROBLEM_JSON] = {"schema": _problem_schema(its, is_all="5XX" not in answers)}
        if any(issubclass(kind, UnavailableError) for kind in its):
            response["headers"] = {
                "Retry-After": {"description": "Seconds to wait before trying again", "schema": {"type": "integer"}}
            }
    return {status: _without_nothing(responses[status]) for status in sorted(responses)}


def _without_nothing(response: dict[str, Any]) -> dict[str, Any]:
    return response if response["content"] else {name: its for name, its in response.items() if name != "content"}


def _problem_schema(kinds: Iterable[type[ProblemError]], *, is_all: bool) -> dict[str, Any]:
    """A problem of one of these kinds, or of any kind unless `is_all`."""
    problem = {"$ref": _REF.format(name="Problem")}
    types = [f"/docs#{slug}" for slug in dict.fromkeys(kind.slug for kind in kinds)]
    return {"allOf": [problem], "properties": {"type": {"enum": types}}} if is_all else problem
