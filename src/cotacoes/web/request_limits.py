"""The edge of every service: the bounds around each request.

Pure ASGI, outside the framework: requests under way, their bodies and their time are bounded here, and counted. Lean
routes, for the few answers that are asked thousands of times a second, are answered here. Direct ones, which many ask
at once, are answered without the framework, within the same bounds. Streams, which have no end, are handed on before
any of that; whoever opens them bounds them.

A request ends by the service's own deadline or by the caller's (`X-Deadline-Ms`), whichever is earlier, and so do the
calls that are made for it: nobody works for a caller who has gone. Nor for one who hangs up before that, where it only
asked (GET); what was to be changed is changed to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from cotacoes.adapters.http_server import connection
from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send
from cotacoes.errors import (
    BadRequestError,
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ProblemError,
    TooLargeError,
)
from cotacoes.errors.problem_json import PROBLEM_JSON, problem_body, problem_headers
from cotacoes.observability.bounded_log import BoundedLog, log_crash
from cotacoes.observability.metrics import HttpMetrics
from cotacoes.patterns.resilience.deadline import HEADER, Deadline

REQUESTS_MAX = 512  # under way at once in one service; more is work that could not end in time
BODY_BYTES_MAX = 65_536
HUNG_UP = 499  # as proxies count it; nobody is sent it
UNAUTHORIZED = 401
_JSON_LINES = b"content-type: application/json\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
_DEADLINE_HEADER = HEADER.encode()

Lean = Callable[[str], bytes]


class _Route(NamedTuple):
    """A direct route, in an ASGI scope as the framework's are."""

    path: str


class Edge:
    """The limits of every request, around the app. `is_observed`: something looks at the messages that are sent."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics,
        deadline_s: float,
        lean: Mapping[str, Lean],
        direct: Mapping[str, ASGIApp],
        streams: Mapping[str, ASGIApp],
        *,
        is_observed: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._lean = lean
        self._direct = direct
        self._streams = streams
        self._lean_counters = {
            prefix: metrics.requests.labels(route=f"{prefix}/{{coin}}", status="200") for prefix in lean
        }
        self._is_observed = is_observed
        self._under_way = 0
        self._log = BoundedLog(time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] in self._streams:
            await self._open_stream(scope, receive, send)
            return
        if scope["method"] == "GET":
            prefix, _, last = scope["path"].rpartition("/")
            answer = self._lean.get(prefix)
            if answer is not None:
                await self._answer_lean(scope, prefix, answer, last, send)
                return
        if self._under_way >= REQUESTS_MAX:
            self._metrics.refusals.labels(reason="overloaded").inc()
            await _send_problem(send, OverloadedError(f"the limit of {REQUESTS_MAX} concurrent requests is reached"))
            return
        self._under_way += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._under_way -= 1

    async def _answer_lean(self, scope: Scope, prefix: str, answer: Lean, last: str, send: Send) -> None:
        try:
            body = answer(last)
        except ProblemError as error:
            self._metrics.requests.labels(route=f"{prefix}/{{coin}}", status=str(error.status)).inc()
            await _send_problem(send, error)
            return
        except Exception:  # as in _answer
            self._metrics.requests.labels(route=f"{prefix}/{{coin}}", status="500").inc()
            await _send_problem(send, _crash(prefix))
            return
        self._lean_counters[prefix].inc()
        if not self._is_observed and connection.answer_at_once(scope, _JSON_LINES % len(body), body):
            return
        await send({"type": "http.response.start", "status": 200, "headers": _json_headers(len(body))})
        await send({"type": "http.response.body", "body": body})

    async def _open_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            await self._streams[scope["path"]](scope, receive, send)
        except ProblemError as error:
            status = error.status
            await _send_problem(send, error)
        except Exception:  # as in _answer
            status = 500
            await _send_problem(send, _crash(scope["path"]))
        self._metrics.requests.labels(route=scope["path"], status=str(status)).inc()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        answer = ObservedAnswer(send)
        app = self._app
        if scope["method"] == "GET" and scope["path"] in self._direct:
            app = self._direct[scope["path"]]
            scope["route"] = _Route(scope["path"])
        problem: ProblemError | None = None
        try:
            deadline = _deadline(scope, self._deadline_s)
            async with _heard(scope):
                with deadline.scope():
                    async with asyncio.timeout(deadline.remaining()):
                        await app(scope, _limited(receive, scope), answer)
        except _HungUpError:
            answer.status = HUNG_UP
        except TimeoutError:
            problem = DeadlineExceededError(f"the answer was not ready within {time.monotonic() - started:.3g} s")
        except ProblemError as error:
            problem = error
        except Exception:  # the process goes on; the caller gets problem+json, the log gets the traceback
            problem = _crash(getattr(scope.get("route"), "path", "unmatched"), scope.get("cotacoes.request_id"))
        try:
            if problem is not None and not answer.status:
                await _send_problem(answer, problem)
            elif problem is not None and not answer.is_complete:
                await connection.cut(scope)  # a body that broke off must not look like one that ended
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            if answer.status == UNAUTHORIZED:
                self._note_unauthorized(scope, route)
            self._metrics.requests.labels(route=route, status=str(answer.status)).inc()
            self._metrics.request_duration.labels(route=route).observe(time.monotonic() - started)

    def _note_unauthorized(self, scope: Scope, route: str) -> None:
        """Somebody tried an administrative route without the token: an operator wants to know."""
        self._metrics.refusals.labels(reason="unauthorized").inc()
        address = (scope.get("client") or ("unknown",))[0]
        self._log.note("admin.refused", route, route=route, method=scope["method"], address=address)


class ObservedAnswer:
    """An ASGI `send` that notes the status of the answer (0 before it has begun), and whether it is complete."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self.is_complete = False
        self._send = send

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.is_complete = not message.get("more_body", False)
        await self._send(message)


class _HungUpError(Exception):
    """Nobody waits for the answer any more."""


@contextlib.asynccontextmanager
async def _heard(scope: Scope) -> AsyncIterator[None]:
    """What is within is cancelled where the client of a GET hangs up; _HungUpError then."""
    task, has_hung_up = asyncio.current_task(), False

    def hang_up() -> None:
        nonlocal has_hung_up
        if not has_hung_up and task is not None:
            has_hung_up = task.cancel()

    if scope["method"] != "GET":
        yield
        return
    try:
        with connection.hanging_up(scope, hang_up):
            yield
    except asyncio.CancelledError as error:
        if task is None or not has_hung_up or task.uncancel():
            raise
        raise _HungUpError from error


def _crash(route: str, request_id: str | None = None) -> InternalError:
    """The answer to a request that crashed; the log has the traceback under the same id."""
    request_id = log_crash("request.crashed", request_id, route=route)
    return InternalError("internal error; see the service log", request_id=request_id)


def _deadline(scope: Scope, most_s: float) -> Deadline:
    """The request's; BadRequestError if the caller's is invalid, DeadlineExceededError if it has passed."""
    own = Deadline(time.monotonic() + most_s, time.monotonic)
    told = next((value for name, value in scope["headers"] if name == _DEADLINE_HEADER), None)
    if told is None:
        return own
    try:
        its = Deadline.of_header(told.decode("latin-1"), time.monotonic)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    if its.remaining() == 0:
        raise DeadlineExceededError("the caller's deadline has passed")
    return min(own, its, key=lambda deadline: deadline.at)


def _limited(receive: Receive, scope: Scope) -> Receive:
    """`receive`, refusing a body beyond `BODY_BYTES_MAX` whether its length was announced or not."""
    announced = int(next((value for name, value in scope["headers"] if name == b"content-length"), b"0"))
    total = 0

    async def bounded() -> Any:
        nonlocal total
        if announced <= BODY_BYTES_MAX:  # else refused unread
            message = await receive()
            total += len(message.get("body", b""))
            if total <= BODY_BYTES_MAX:
                return message
        raise TooLargeError(f"the body exceeds the limit of {BODY_BYTES_MAX} bytes")

    return bounded


def _json_headers(length: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", str(length).encode()),
        (b"cache-control", b"no-store"),
    ]


async def _send_problem(send: Send, error: ProblemError) -> None:
    body = problem_body(error)
    headers = {"content-type": PROBLEM_JSON, "content-length": str(len(body)), **problem_headers(error)}
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
