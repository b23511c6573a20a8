"""Tracing: what a service tells of its work, piece by piece, so that one question can be followed through all of them.

Nobody listens unless the environment names a collector, by OpenTelemetry's own variables; who does then is
`adapters/otlp.py`, the only file that knows OpenTelemetry. Everyone else speaks to `Tracer` here.

A span carries names, counts, states and classes of errors. Never a price, a query's text or arguments, a DSN, the query
string of a request, or the words of an error that is not ours: all of that leaves this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from cotacoes.errors import SettingError

Kind = Literal["server", "client", "internal"]
Outcome = Literal["sent", "failed", "dropped"]
Attributes = Mapping[str, str | int]

OPERATOR_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds, about nothing but us
_VARIABLE = "OTEL_EXPORTER_OTLP"
_PORTS = {"http": 80, "https": 443}


class Span(Protocol):
    """One piece of work that is under way."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What tells a service that is called of this span."""

    def current(self) -> AbstractContextManager[object]:
        """The scope in which spans that begin are its children."""

    def rename(self, name: str) -> None:
        """Once it is known what this is."""

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""

    def fail(self, kind: str) -> None:
        """It failed. `kind` is one of few: a status, a class of errors."""

    def end(self, at_ns: int | None = None) -> None:
        """It has ended, now or at this Unix time."""


class Listener(Protocol):
    """Is told what becomes of spans: `count` were sent, failed (the collector did not take them), or dropped."""

    def __call__(self, outcome: Outcome, count: int) -> None: ...


class Tracer(Protocol):
    """Takes spans."""

    listener: Listener | None

    @property
    def is_within(self) -> bool:
        """Whether a span is current."""

    def begin(self, kind: Kind, name: str, attributes: Attributes, *, caller: Mapping[str, str] | None = None) -> Span:
        """A new span: a child of that of which the headers of a `caller` tell, else of the current one."""


class _NoSpan:
    """A span while nobody listens."""

    headers: Mapping[str, str] = {}

    def current(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def rename(self, name: str) -> None: ...

    def note(self, attributes: Attributes) -> None: ...

    def fail(self, kind: str) -> None: ...

    def end(self, at_ns: int | None = None) -> None: ...


_NOTHING: AbstractContextManager[Span] = contextlib.nullcontext(_NoSpan())
_active: Tracer | None = None


def active() -> Tracer | None:
    """Who takes spans; None: nobody."""
    return _active


@contextlib.contextmanager
def reporting_to(tracer: Tracer) -> Iterator[None]:
    """Within it, this process's spans go to `tracer`."""
    global _active  # noqa: PLW0603  # of the process, as its log is: handing it to every call would be its main subject
    before, _active = _active, tracer
    try:
        yield
    finally:
        _active = before


@contextlib.contextmanager
def around(span: Span) -> Iterator[Span]:
    """`span` is current in the body, and ends with it; what the body raises is told by its class alone."""
    try:
        with span.current():
            yield span
    except BaseException as error:
        span.fail(str(getattr(error, "outcome", type(error).__name__)))
        raise
    finally:
        span.end()


def call_span(method: str, url: str) -> AbstractContextManager[Span]:
    """Around a call over HTTP; its `headers` go with the call."""
    if _active is None:
        return _NOTHING
    address = _address(url)
    if address is None or address.path in OPERATOR_PATHS:
        return _NOTHING
    told: Attributes = {
        "http.request.method": method,
        "server.address": address.host,
        "server.port": address.port,
        "url.full": address.base + address.path,
    }
    return around(_active.begin("client", method, told))


def query_span(query: str, shard: str) -> AbstractContextManager[Span]:
    """Around a named query to a shard, where it is part of something: what runs by itself runs thousands of times."""
    if _active is None or not _active.is_within:
        return _NOTHING
    told = {"db.system.name": "postgresql", "db.query.summary": query, "cotacoes.shard": shard}
    return around(_active.begin("client", f"{query} {shard}", told))


def collector(environment: Mapping[str, str]) -> str | None:
    """Where spans go, as the log may tell it; None where they are not wanted. SettingError for what is impossible."""
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
    """What may be told of a URL: no user, no password, no query; None where it is none of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return _Address(f"{parts.scheme}://{shown}:{port}", host, port, parts.path) if host else None
