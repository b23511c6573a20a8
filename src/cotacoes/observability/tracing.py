"""Tracing: spans of each service's work, by which one request can be followed through all services.

Spans are made only if the environment names a collector, by OpenTelemetry's own variables. `adapters/otlp.py` is the
only file that knows OpenTelemetry; all other code uses `Tracer`.

Spans leave this machine. They have names, counts, states and classes of errors, but never a price, a query's text or
arguments, a DSN, the query string of a request, or the message of a library's error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from cotacoes.errors import SettingError

SpanKind = Literal["server", "client", "internal"]
SpanOutcome = Literal["sent", "failed", "dropped"]  # failed: the collector rejected it
Attributes = Mapping[str, str | int]
SpanListener = Callable[[SpanOutcome, int], None]  # is called with the number of spans that had this outcome

OPERATOR_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # requested every few seconds, for operation only
_VARIABLE = "OTEL_EXPORTER_OTLP"
_PORTS = {"http": 80, "https": 443}


class Span:
    """A piece of work in progress. This class is the span while none is collected, and does nothing."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that pass this span's context to a called service."""
        return {}

    def current(self) -> AbstractContextManager[object]:
        """A context in which new spans are children of this one."""
        return contextlib.nullcontext()

    def rename(self, name: str) -> None:
        """Name the span, once its subject is known."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""

    def fail(self, kind: str) -> None:
        """Mark the span as failed. `kind` is a status or a class of errors, of which there are few."""

    def end(self, at_ns: int | None = None) -> None:
        """End the span, now or at this Unix time in nanoseconds."""


class Tracer(Protocol):
    """Starts spans."""

    listener: SpanListener | None

    @property
    def is_within(self) -> bool:
        """Whether a span is current."""

    def begin(
        self, kind: SpanKind, name: str, attributes: Attributes, *, caller: Mapping[str, str] | None = None
    ) -> Span:
        """Start a span as a child of the `caller`'s trace context if given, else of the current span."""


_NOTHING: AbstractContextManager[Span] = contextlib.nullcontext(Span())
_active: Tracer | None = None


def active() -> Tracer | None:
    """The tracer that spans go to; None if they are not collected."""
    return _active


@contextlib.contextmanager
def reporting_to(tracer: Tracer) -> Iterator[None]:
    """Send this process's spans to `tracer` within the context."""
    global _active  # noqa: PLW0603  # one for the process, like its log: else every call would have to pass it on
    before, _active = _active, tracer
    try:
        yield
    finally:
        _active = before


@contextlib.contextmanager
def around(span: Span) -> Iterator[Span]:
    """Make `span` current in the body and end it with it; an error in the body is recorded by its class alone."""
    try:
        with span.current():
            yield span
    except BaseException as error:
        span.fail(str(getattr(error, "outcome", type(error).__name__)))
        raise
    finally:
        span.end()


def call_span(method: str, url: str) -> AbstractContextManager[Span]:
    """A span around a call over HTTP; its `headers` go with the call."""
    if _active is None:
        return _NOTHING
    address = _address(url)
    if address is None or address.path in OPERATOR_PATHS:
        return _NOTHING
    attributes: Attributes = {
        "http.request.method": method,
        "server.address": address.host,
        "server.port": address.port,
        "url.full": address.base + address.path,
    }
    return around(_active.begin("client", method, attributes))


def query_span(query: str, shard: str) -> AbstractContextManager[Span]:
    """A span around a named query to a shard, if it is part of another span: background queries are too many."""
    if _active is None or not _active.is_within:
        return _NOTHING
    attributes = {"db.system.name": "postgresql", "db.query.summary": query, "cotacoes.shard": shard}
    return around(_active.begin("client", f"{query} {shard}", attributes))


def collector(environment: Mapping[str, str]) -> str | None:
    """The collector's address without secrets, None if there is none; SettingError if a variable is invalid."""
    url = environment.get(f"{_VARIABLE}_TRACES_ENDPOINT", "") or environment.get(f"{_VARIABLE}_ENDPOINT", "")
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not url or is_disabled or environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    protocol = environment.get(f"{_VARIABLE}_TRACES_PROTOCOL", "") or environment.get(f"{_VARIABLE}_PROTOCOL", "")
    if protocol not in {"", "http/protobuf"}:
        raise SettingError(
            f"cannot send spans by {protocol[:40]!r}, only by http/protobuf: set {_VARIABLE}_TRACES_PROTOCOL="
            f"http/protobuf and {_VARIABLE}_TRACES_ENDPOINT=http://HOST:4318/v1/traces, or OTEL_SDK_DISABLED=true"
        )
    address = _address(url)
    if address is None:
        raise SettingError(f"{_VARIABLE}_ENDPOINT is invalid: write http://HOST:4318, or set OTEL_SDK_DISABLED=true")
    return address.base


class _Address(NamedTuple):
    base: str
    host: str
    port: int
    path: str


def _address(url: str) -> _Address | None:
    """A URL without user, password and query; None if it is not an HTTP URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return _Address(f"{parts.scheme}://{shown}:{port}", host, port, parts.path) if host else None
