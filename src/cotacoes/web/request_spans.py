"""What every service has of tracing: it is opened for the process, and each request has a span around it.

A request's span begins at the very edge, so that it is there for lean answers, for refusals and for deadlines that are
over. Left out is what has no end (streams), and what asks for nothing but us (`/livez`, `/readyz`, `/metrics`).
Where spans are not wanted, nothing of this is in the way of a request.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send
from cotacoes.observability import tracing
from cotacoes.observability.metrics import Metrics, SpanMetrics
from cotacoes.web.request_limits import ObservedAnswer

_CALLER_HEADERS = (b"traceparent", b"tracestate")


def traced(app: ASGIApp, metrics: Metrics, *, lean: Container[str], streams: Container[str]) -> ASGIApp:
    """The app with a span around each request, or as it is where spans are not wanted.

    `lean` and `streams` are those of `build_app`.
    """
    tracer = tracing.active()
    if tracer is None:
        return app
    tracer.listener = SpanMetrics(metrics).count
    return TracedRequests(app, tracer, lean, streams)


class TracedRequests:
    """See the head of this file."""

    def __init__(self, app: ASGIApp, tracer: tracing.Tracer, lean: Container[str], streams: Container[str]) -> None:
        self._app = app
        self._tracer = tracer
        self._lean = lean
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else None
        if path is None or path in tracing.OPERATOR_PATHS or path in self._streams:
            await self._app(scope, receive, send)
            return
        answer = ObservedAnswer(send)
        method = scope["method"]
        told = {"http.request.method": method, "url.scheme": scope["scheme"], "url.path": path}
        with tracing.around(self._tracer.begin("server", method, told, caller=_caller(scope))) as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                if route := self._route(scope):
                    span.rename(f"{method} {route}")
                    span.note({"http.route": route})
                if answer.status:
                    span.note({"http.response.status_code": answer.status})
                if answer.status >= 500:
                    span.fail(str(answer.status))
                elif not answer.is_complete:
                    span.fail("incomplete")

    def _route(self, scope: Scope) -> str | None:
        """As it stands in the metrics; None where there is none, since paths from outside are without number."""
        prefix = scope["path"].rpartition("/")[0]
        if scope["method"] == "GET" and prefix in self._lean:
            return f"{prefix}/{{coin}}"
        route: str | None = getattr(scope.get("route"), "path", None)
        return route


def _caller(scope: Scope) -> Mapping[str, str]:
    """The headers that tell of the caller's span; one that is given twice makes them tell of none."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _CALLER_HEADERS:
            key = name.decode()
            found[key] = f"{found[key]},{value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found
