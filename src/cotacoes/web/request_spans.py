"""A span around each request.

It begins before everything else, so lean answers, refusals and passed deadlines have one too. Streams, which have no
end, and the routes for operators (`/livez`, `/readyz`, `/metrics`) have none. Without a collector, none of this code is
in a request's way.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send
from cotacoes.observability import tracing
from cotacoes.observability.metrics import Metrics, SpanMetrics
from cotacoes.web.request_limits import ObservedAnswer

_CALLER_HEADERS = (b"traceparent", b"tracestate")


def traced(app: ASGIApp, metrics: Metrics, *, lean: Container[str], streams: Container[str]) -> ASGIApp:
    """The app with a span around each request, or the app itself if no spans are collected.

    `lean` and `streams` are those of `build_app`.
    """
    tracer = tracing.active()
    if tracer is None:
        return app
    tracer.listener = SpanMetrics(metrics).count
    return TracedRequests(app, tracer, lean, streams)


class TracedRequests:
    """An ASGI app with a span around each request."""

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
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"], "url.path": path}
        with tracing.around(self._tracer.begin("server", method, attributes, caller=_caller(scope))) as span:
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
        """The route as the metrics name it; None for an unknown path, of which there is no end."""
        prefix = scope["path"].rpartition("/")[0]
        if scope["method"] == "GET" and prefix in self._lean:
            return f"{prefix}/{{coin}}"
        route: str | None = getattr(scope.get("route"), "path", None)
        return route


def _caller(scope: Scope) -> Mapping[str, str]:
    """The headers with the caller's trace context; a header given twice is joined, which makes it invalid."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _CALLER_HEADERS:
            key = name.decode()
            found[key] = f"{found[key]},{value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found
