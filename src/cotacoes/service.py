"""What every service has: its process, its routes for operators, its errors and its limits.

    run_process      settings → log → signals → the service's own main → exit code
    build_app        FastAPI with /livez /readyz /metrics /docs /openapi.json, every error as problem+json
    serve_http       opens the service's resources, then listens; stops in the reverse order

A request passes the edge first (`edge.py`), which bounds it and answers the lean routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import gc
import hmac
import http
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cotacoes import config, docs_page, telemetry
from cotacoes.adapters import http_server
from cotacoes.adapters.http_server import ASGIApp
from cotacoes.edge import PROBLEM_JSON, Edge, Lean, problem_body, problem_headers
from cotacoes.errors import (
    BadRequestError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    ProblemError,
    SettingError,
    TooLargeError,
    UnauthorizedError,
    UnknownCoinError,
    setting_error_in,
)
from cotacoes.quote import COIN_PATTERN
from cotacoes.service_tracing import NO_FASTAPI_SPANS, reported, traced

CHECK_DEADLINE_S = 1.0


Resources = Callable[[], AbstractAsyncContextManager[None]]


class Stop:
    """Asks the process to end, with an exit code; the first one asked for stands."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.code = 0

    def __call__(self, code: int = 0) -> None:
        if not self.event.is_set():
            self.code = code
            self.event.set()


@dataclass(frozen=True)
class Check:
    """One line of /readyz: `probe` returns None where all is well, else the reason in words.

    A check that is not `required` is told and changes nothing: the service can answer without it.
    """

    probe: Callable[[], Awaitable[str | None]]
    required: bool = False


@dataclass(frozen=True)
class Service:
    """A wired HTTP service, not yet started: its app and the scope in which its resources are open."""

    name: str
    app: ASGIApp
    resources: Resources = contextlib.nullcontext
    websocket: Callable[..., asyncio.Protocol] | None = None


def run_process(name: str, main: Callable[[config.Settings, Stop], Coroutine[Any, Any, None]], **given: Any) -> int:
    """Run one part as this process until a signal or its own end; returns the exit code."""
    try:
        settings = config.load(**given)
        telemetry.configure_logging(name, settings.log_level)
        with reported(name):
            return asyncio.run(_until_stopped(main, settings))
    except SettingError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2


async def _until_stopped(
    main: Callable[[config.Settings, Stop], Coroutine[Any, Any, None]], settings: config.Settings
) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    await main(settings, stop)
    return stop.code


async def serve_http(service: Service, settings: config.Settings, stop: Stop) -> None:
    """Listen on the service's port while its resources are open; SettingError where the port is taken."""
    port = settings.port(service.name)
    try:
        listener = http_server.listen(settings.host, port)
    except OSError as error:
        raise SettingError(
            f"port {port} on {settings.host} is not to be had ({error.strerror}): set COTACOES_PORT_BASE"
        ) from error
    with listener:
        async with service.resources():
            gc.freeze()  # what was imported is no garbage; looking at it each time stopped everything for 50 ms
            telemetry.get_logger().info("service.started", address=f"http://{settings.host}:{port}")
            await http_server.serve(service.app, listener, stop.event, websocket=service.websocket)
    telemetry.get_logger().info("service.stopped", code=stop.code)


def build_app(
    name: str,
    settings: config.Settings,
    metrics: telemetry.Metrics,
    router: APIRouter,
    *,
    checks: Mapping[str, Check] | None = None,
    lean: Mapping[str, Lean] | None = None,
    direct: Mapping[str, ASGIApp] | None = None,
    streams: Mapping[str, ASGIApp] | None = None,
) -> ASGIApp:
    """The service's own routes, those of every service, and its limits around them.

    `lean` maps a path without its last part (`/cotacao_atual`) to what answers that part with JSON, `direct` a whole
    path to what answers it without the framework, `streams` one to what opens a stream on it.
    """
    app = FastAPI(
        title=name, version="1", docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=NO_FASTAPI_SPANS
    )
    app.include_router(router)
    app.include_router(_operator_routes(app, metrics, checks or {}))
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_bug)
    edge = Edge(
        app, telemetry.HttpMetrics(metrics), settings.request_deadline_s, lean or {}, direct or {}, streams or {}
    )
    return traced(edge, metrics, lean=lean or {}, streams=streams or {})


def _operator_routes(app: FastAPI, metrics: telemetry.Metrics, checks: Mapping[str, Check]) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/livez", summary="The process runs; touches nothing else")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="Whether it can answer, and each thing it leans on; 503 where it can not")
    async def readyz(response: Response) -> dict[str, Any]:
        reasons = await asyncio.gather(*(_run_check(check) for check in checks.values()))
        told = {
            part: {"ok": reason is None, "required": check.required, "reason": reason}
            for (part, check), reason in zip(checks.items(), reasons, strict=True)
        }
        ready = all(
            reason is None or not check.required for check, reason in zip(checks.values(), reasons, strict=True)
        )
        response.status_code = 200 if ready else 503
        return {"ready": ready, "checks": told}

    @router.get("/metrics", summary="Metrics in Prometheus' text format")
    async def render_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    page: list[str] = []

    @router.get("/docs", summary="This page: routes and problem types, without a script", include_in_schema=False)
    async def docs() -> HTMLResponse:
        if not page:
            page.append(docs_page.render(app.openapi()))
        return HTMLResponse(page[0], headers={"content-security-policy": docs_page.CONTENT_SECURITY_POLICY})

    return router


async def _run_check(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_DEADLINE_S):
            return await check.probe()
    except TimeoutError:
        return f"no answer within {CHECK_DEADLINE_S:g} s"
    except ProblemError as error:
        return error.detail


def require_coin(coin: str, coins: Collection[str]) -> str:
    """The coin, where it is quoted here; UnknownCoinError with the nearest names otherwise."""
    if coin in coins:
        return coin
    shown = coin if COIN_PATTERN.match(coin) else "that name"
    raise UnknownCoinError(f"{shown} is not quoted here", did_you_mean=nearest(coin, list(coins)))


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The names that may have been meant, at most three."""
    return difflib.get_close_matches(name[:64].lower(), known, n=3, cutoff=0.5)


def require_admin(request: Request, settings: config.Settings) -> None:
    """UnauthorizedError unless the request carries the admin token."""
    token = settings.admin_token.get_secret_value()
    given = request.headers.get("authorization", "")
    # compared in full whatever the first difference, so that the time it takes tells nothing
    if not token or not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise UnauthorizedError("send Authorization: Bearer with the admin token (COTACOES_ADMIN_TOKEN)")


def admins_only(settings: config.Settings) -> Any:
    """What stands among the `dependencies` of an administrative route."""

    async def check(request: Request) -> None:  # a coroutine: else each request would be checked in a thread
        require_admin(request, settings)

    return Depends(check)


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return Response(problem_body(error), error.status, problem_headers(error), PROBLEM_JSON)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "GET")
        response = await _on_problem(request, MethodNotAllowedError(f"this route takes {allowed}"))
        response.headers["allow"] = allowed
        return response
    if isinstance(error.__cause__, TooLargeError):  # FastAPI takes it for a body that can not be parsed
        return await _on_problem(request, error.__cause__)
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        return await _on_problem(request, NotFoundError("no such route; /docs lists them"))
    return await _on_problem(request, BadRequestError(str(error.detail)))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5])
    return await _on_problem(request, BadRequestError(said))


async def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # read by nobody; counted under the number that proxies use for it


async def _on_bug(request: Request, _: Exception) -> Response:
    request_id = uuid.uuid4().hex
    request.scope["cotacoes.request_id"] = request_id
    return await _on_problem(request, InternalError("a bug of ours; the log tells more", request_id=request_id))


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.TaskGroup]:
    """Run coroutines beside the body; they are cancelled at its end, and one that fails ends the body.

    A SettingError of one of them comes out as itself.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(not_cancelled_by_itself(coroutine)) for coroutine in coroutines]
            try:
                yield group
            finally:
                for task in tasks:
                    task.cancel()
    except ExceptionGroup as several:
        raise setting_error_in(several) or several from None


async def not_cancelled_by_itself(coroutine: Coroutine[Any, Any, None]) -> None:
    """A task group takes a task that something cancelled from within for one that has ended well, and goes on."""
    try:
        await coroutine
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("background work was cancelled by nobody") from error
