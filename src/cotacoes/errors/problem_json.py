"""The HTTP answer to an error: a body of `application/problem+json` (RFC 9457) and its headers.

Every answer of every service has `SAFETY_HEADERS`, whichever code writes it.
"""

from __future__ import annotations

import http
import json
import math
from collections.abc import Mapping
from typing import Any

from cotacoes.errors import (
    BadRequestError,
    ProblemError,
    ServiceUnavailableError,
    TooLargeError,
    UnauthorizedError,
    UpgradeRequiredError,
    problem_types,
)

PROBLEM_JSON = "application/problem+json"
DETAIL_CHARACTERS_MAX = 500  # a detail may repeat some of what the caller sent
_NOT_EXTRA = frozenset({"type", "title", "status", "detail", "retry_after_s", "self"})
SAFETY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


def problem_of(error: ProblemError) -> dict[str, object]:
    """The fields of RFC 9457; `type` links to the explanation in /docs."""
    return {
        "type": f"/docs#{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": shortened(error.detail, DETAIL_CHARACTERS_MAX),
        **error.extra,
    }


def problem_body(error: ProblemError) -> bytes:
    """The fields as JSON."""
    return json.dumps(problem_of(error)).encode()


def problem_headers(error: ProblemError) -> dict[str, str]:
    """The headers of the answer: when to try again, how to authenticate."""
    headers = {"cache-control": "no-store"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, UnauthorizedError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, UpgradeRequiredError):
        headers |= {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
    if isinstance(error, TooLargeError):
        headers["connection"] = "close"  # the rest of the body is not read
    return headers


def read_problem(fields: Mapping[str, Any], status: int, wait_s: float | None = None) -> ProblemError:
    """The error that a service raised, from the fields of its answer; `wait_s` is its `retry-after`, if given."""
    slug = str(fields.get("type", "")).rpartition("#")[2]
    unknown = BadRequestError if status < 500 else ServiceUnavailableError
    kind: type[ProblemError] = next((kind for kind in problem_types() if kind.slug == slug), unknown)
    extra = {name: value for name, value in fields.items() if name not in _NOT_EXTRA}
    return kind(str(fields.get("detail", "")), **({} if wait_s is None else {"retry_after_s": wait_s}), **extra)


def problem_answer(error: ProblemError) -> bytes:
    """A whole HTTP/1.1 answer, after which the connection closes."""
    body = problem_body(error)
    headers = {
        **SAFETY_HEADERS,
        "content-type": PROBLEM_JSON,
        "content-length": str(len(body)),
        **problem_headers(error),
        "connection": "close",
    }
    return head(error.status, headers) + body


def head(status: int, headers: dict[str, str]) -> bytes:
    """The status line and headers of an HTTP/1.1 answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("latin-1")


def shortened(text: str, characters_max: int) -> str:
    """The text, cut to `characters_max` if it is longer."""
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
