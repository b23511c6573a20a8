"""Handlers that answer every error of the framework and of the routes as problem+json (RFC 9457)."""

from __future__ import annotations

import http
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cotacoes.errors import (
    BadRequestError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    ProblemError,
    TooLargeError,
)
from cotacoes.errors.problem_json import PROBLEM_JSON, problem_body, problem_headers, shortened
from cotacoes.errors.values import explain_value

NAME_CHARACTERS_MAX = 64


def answer_errors(app: FastAPI) -> None:
    """Register the handlers of this file."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_bug)


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return Response(problem_body(error), error.status, problem_headers(error), PROBLEM_JSON)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "GET")
        response = await _on_problem(request, MethodNotAllowedError(f"this route supports {allowed}"))
        response.headers["allow"] = allowed
        return response
    if isinstance(error.__cause__, TooLargeError):  # FastAPI mistakes it for a body that cannot be parsed
        return await _on_problem(request, error.__cause__)
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        return await _on_problem(request, NotFoundError("this route does not exist; /docs lists all routes"))
    return await _on_problem(request, BadRequestError(str(error.detail)))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_problem(request, BadRequestError("; ".join(map(_explain, error.errors()[:5]))))


def _explain(problem: dict[str, Any]) -> str:
    """The place and the reason of a problem; a name from the caller is shortened."""
    origin, *within = problem["loc"]
    place = ".".join(shortened(str(part), NAME_CHARACTERS_MAX) for part in within or [origin])
    return f"{place}: {explain_value(problem)}"


async def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # never read; counted under the status that proxies use


async def _on_bug(request: Request, _: Exception) -> Response:
    request_id = uuid.uuid4().hex
    request.scope["cotacoes.request_id"] = request_id
    return await _on_problem(request, InternalError("internal error; see the service log", request_id=request_id))
