"""The bounds of every request, in ASGI middleware around the framework.

The number of concurrent requests, the size of bodies and the time of each request are bounded here, and requests are
counted. Lean routes, for the few answers that are requested thousands of times a second, are answered here. Direct
routes, which many clients request at once, skip the framework but have the same bounds. Streams, which have no end,
skip the bounds too; the code that opens them bounds them.

A request ends by the service's deadline or by the caller's (`X-Deadline-Ms`), whichever is earlier, and so do the calls
that it makes: no work is done for a caller that no longer waits. A GET is also cancelled if its client disconnects; a
request that changes something is finished.
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

REQUESTS_MAX = 512  # concurrent requests in one service; more could not be answered in time
BODY_BYTES_MAX = 65_536
HUNG_UP = 499  # the status that proxies count for a client that has gone; it is never sent
UNAUTHORIZED = 401
_JSON_LINES = b"content-type: application/json\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
_DEADLINE_HEADER = HEADER.encode()

Lean = Callable[[str], bytes]


class _Route(NamedTuple):
    """A direct route, in the ASGI scope like a route of the framework."""

    path: str


class RequestLimits:
    """The ASGI app within its limits. `is_observed` says that middleware around it looks at the messages sent."""

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
        except Exception:  # the process continues; the caller gets problem+json, the log gets the traceback
            problem = _crash(getattr(scope.get("route"), "path", "unmatched"), scope.get("cotacoes.request_id"))
        try:
            if problem is not None and not answer.status:
                await _send_problem(answer, problem)
            elif problem is not None and not answer.is_complete:
                await connection.cut(scope)  # an incomplete body must not look like a complete one
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            if answer.status == UNAUTHORIZED:
                self._note_unauthorized(scope, route)
            self._metrics.requests.labels(route=route, status=str(answer.status)).inc()
            self._metrics.request_duration.labels(route=route).observe(time.monotonic() - started)

    def _note_unauthorized(self, scope: Scope, route: str) -> None:
        """Log an attempt to use an administrative route without the token."""
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
    """The client has disconnected."""


@contextlib.asynccontextmanager
async def _heard(scope: Scope) -> AsyncIterator[None]:
    """Cancel the body and raise _HungUpError if the client of a GET disconnects."""
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
    """The error for a request that crashed; the log has the traceback under the same id."""
    request_id = log_crash("request.crashed", request_id, route=route)
    return InternalError("internal error; see the service log", request_id=request_id)


def _deadline(scope: Scope, most_s: float) -> Deadline:
    """The request's deadline; BadRequestError if the caller's is invalid, DeadlineExceededError if it has passed."""
    own = Deadline(time.monotonic() + most_s, time.monotonic)
    header = next((value for name, value in scope["headers"] if name == _DEADLINE_HEADER), None)
    if header is None:
        return own
    try:
        its = Deadline.of_header(header.decode("latin-1"), time.monotonic)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    if its.remaining() == 0:
        raise DeadlineExceededError("the caller's deadline has passed")
    return min(own, its, key=lambda deadline: deadline.at)


def _limited(receive: Receive, scope: Scope) -> Receive:
    """`receive`, with TooLargeError for a body beyond `BODY_BYTES_MAX`, whether its length was announced or not."""
    announced = int(next((value for name, value in scope["headers"] if name == b"content-length"), b"0"))
    total = 0

    async def bounded() -> Any:
        nonlocal total
        if announced <= BODY_BYTES_MAX:  # a larger one is refused without reading it
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
