"""The app of a service: its own routes, the routes of every service, and the limits of requests."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import HTMLResponse
from fastapi.telemetry import TelemetryConfig

from cotacoes import config
from cotacoes.adapters.http_server.connection import ASGIApp
from cotacoes.errors import ProblemError
from cotacoes.observability import tracing
from cotacoes.observability.metrics import Metrics
from cotacoes.web.document import DocumentedApp, answering
from cotacoes.web.pages import answer_page
from cotacoes.web.problems import answer_errors
from cotacoes.web.request_limits import Lean, RequestLimits
from cotacoes.web.request_spans import traced

# request_spans traces requests: FastAPI would miss lean answers and refusals, and would send the query string
NO_FASTAPI_SPANS: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
CHECK_DEADLINE_S = 1.0


@dataclass(frozen=True)
class Check:
    """One line of /readyz: `probe` returns None if all is well, else the reason in words.

    A check that is not `required` is shown, but does not make the service unready.
    """

    probe: Callable[[], Awaitable[str | None]]
    required: bool = False
    deadline_s: float = CHECK_DEADLINE_S


class Alive(msgspec.Struct, frozen=True):
    """The process runs."""

    status: Literal["alive"]


class CheckJson(msgspec.Struct, frozen=True):
    """Whether one dependency of the service works; `reason` says why not."""

    ok: bool
    required: bool
    reason: str | None


class Ready(msgspec.Struct, frozen=True):
    """Whether the service can answer, which it can if all required checks are ok."""

    ready: bool
    checks: dict[str, CheckJson]


def build_app(
    name: str,
    settings: config.Settings,
    metrics: Metrics,
    router: APIRouter,
    *,
    checks: Mapping[str, Check] | None = None,
    lean: Mapping[str, Lean] | None = None,
    direct: Mapping[str, ASGIApp] | None = None,
    streams: Mapping[str, ASGIApp] | None = None,
    description: str = "",
) -> ASGIApp:
    """The service's own routes and those of every service, within its limits.

    `lean` maps a path without its last segment (`/cotacao_atual`) to a function that answers that segment with JSON,
    `direct` a whole path to an app that answers it without the framework, `streams` one to an app that opens a stream.
    `description` is Markdown, for /docs.
    """
    app = DocumentedApp(
        title=name,
        version="1",
        description=description,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_FASTAPI_SPANS,
    )
    app.include_router(router)
    app.include_router(_operator_routes(app, metrics, checks or {}))
    answer_errors(app)
    edge = RequestLimits(
        app,
        metrics.http,
        settings.request_deadline_s,
        lean or {},
        direct or {},
        streams or {},
        is_observed=tracing.active() is not None,
    )
    return traced(edge, metrics, lean=lean or {}, streams=streams or {})


def _operator_routes(app: FastAPI, metrics: Metrics, checks: Mapping[str, Check]) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/livez", summary="Whether the process runs; checks nothing else", **answering(Alive))
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="Whether the service can answer, and the state of each dependency; 503 if it cannot",
        **answering(Ready, also={"503": "Not ready"}),
    )
    async def readyz(response: Response) -> dict[str, Any]:
        reasons = await asyncio.gather(*(_run_check(check) for check in checks.values()))
        results = {
            name: {"ok": reason is None, "required": check.required, "reason": reason}
            for (name, check), reason in zip(checks.items(), reasons, strict=True)
        }
        ready = all(
            reason is None or not check.required for check, reason in zip(checks.values(), reasons, strict=True)
        )
        response.status_code = 200 if ready else 503
        return {"ready": ready, "checks": results}

    @router.get("/metrics", summary="Metrics in Prometheus' text format", **answering("text/plain"))
    async def render_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    @functools.cache
    def page() -> str:
        from cotacoes.web import docs_page  # only here: few ask for it, and a start need not wait for its library

        return docs_page.render(app.openapi())

    @router.get("/docs", summary="This page: routes and problem types, without scripts", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return answer_page(page())

    return router


async def _run_check(check: Check) -> str | None:
    try:
        async with asyncio.timeout(check.deadline_s):
            return await check.probe()
    except TimeoutError:
        return f"no answer within {check.deadline_s:g} s"
    except ProblemError as error:
        return error.detail
