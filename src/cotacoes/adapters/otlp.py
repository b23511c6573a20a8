"""OpenTelemetry: spans, sent by its SDK to a collector by OTLP over HTTP (docs/decisions/0010).

This is the only file that imports OpenTelemetry, and it is imported only if a collector is configured. No work waits
for the collector: spans that have ended are put into a queue, and a thread of the SDK sends them. What can go wrong:

    the queue is full                       the span is dropped and counted
    the collector rejects a batch           the batch is lost and counted; the log says when that begins and ends
    it hangs while the service stops        the service waits at most `STOP_S`, or not at all if it was away before
    the library logs warnings               each kind is logged once, without the values in it
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import cotacoes
from cotacoes.errors import SettingError
from cotacoes.observability.logs import get_logger
from cotacoes.observability.tracing import Attributes, Span, SpanKind, SpanListener, SpanOutcome

STOP_S = 2.0  # for the last spans, when a service stops
QUEUE_SPANS_MAX = 2_048  # the specification's default
_QUEUE_VARIABLE = "OTEL_BSP_MAX_QUEUE_SIZE"
VALUE_CHARS_MAX = 256  # of an attribute: paths come from outside and wait in the queue
_KINDS = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}
_W3C = TraceContextTextMapPropagator()  # without baggage, which callers could fill at will


class OtlpSpan(Span):
    """A `tracing.Span` of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        _W3C.inject(headers, trace.set_span_in_context(self._span, Context()))
        return headers

    def current(self) -> AbstractContextManager[object]:
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self, at_ns: int | None = None) -> None:
        self._span.end(at_ns)


class OtlpTracer:
    """A `tracing.Tracer` of OpenTelemetry."""

    def __init__(
        self, service: str, exporter: SpanExporter, complaints: _Complaints, *, spans_max: int, stop_s: float
    ) -> None:
        self.listener: SpanListener | None = None
        self._stop_s = stop_s
        self._sending = _Sending(exporter, complaints, self)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service, "service.version": cotacoes.__version__}),
            shutdown_on_exit=False,  # it would wait for half a minute
            span_limits=SpanLimits(max_span_attribute_length=VALUE_CHARS_MAX),
        )
        self._provider.add_span_processor(_Queue(self._sending, spans_max, self))
        self._tracer = self._provider.get_tracer("cotacoes", cotacoes.__version__)

    @property
    def is_within(self) -> bool:
        return trace.get_current_span().get_span_context().is_valid

    def begin(
        self, kind: SpanKind, name: str, attributes: Attributes, *, caller: Mapping[str, str] | None = None
    ) -> OtlpSpan:
        context = None if caller is None else _W3C.extract(caller)
        return OtlpSpan(self._tracer.start_span(name, context, _KINDS[kind], attributes))

    def report(self, outcome: SpanOutcome, count: int) -> None:
        """Pass the outcome of spans to the listener."""
        if self.listener is not None:
            self.listener(outcome, count)

    def close(self) -> None:
        """Send the queued spans within `STOP_S`; discard them at once if the collector was away before."""
        if self._sending.is_in_trouble:
            self._sending.shutdown()
        ending = threading.Thread(target=self._provider.shutdown, name="end of tracing", daemon=True)
        ending.start()
        ending.join(self._stop_s)
        if ending.is_alive():
            get_logger().warning("collector.abandoned", waited_s=self._stop_s)


class _Queue(SpanProcessor):
    """The SDK's queue, but when it is full the new span is dropped instead of an old one, so that it can be counted."""

    def __init__(self, sending: _Sending, spans_max: int, tracer: OtlpTracer) -> None:
        self._batches = BatchSpanProcessor(sending, max_queue_size=spans_max)
        self._sending = sending
        self._spans_max = spans_max
        self._tracer = tracer
        self._put = 0

    def on_end(self, span: ReadableSpan) -> None:
        if self._put - self._sending.taken >= self._spans_max:
            self._tracer.report("dropped", 1)
            return
        self._put += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]


class _Sending(SpanExporter):
    """An exporter that counts spans, and logs when the collector goes away and comes back."""

    def __init__(self, exporter: SpanExporter, complaints: _Complaints, tracer: OtlpTracer) -> None:
        self.taken = 0  # out of the queue
        self.is_away = False
        self._is_shut_down = False
        self._exporter = exporter
        self._complaints = complaints
        self._tracer = tracer

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        with self._complaints.of_sending():
            result = self._exporter.export(spans)
        is_sent = result is SpanExportResult.SUCCESS
        self._tracer.report("sent" if is_sent else "failed", len(spans))
        if is_sent and self.is_away:
            get_logger().info("collector.back")
        elif not is_sent and not self.is_away:
            get_logger().warning("collector.away", reason=self._complaints.reason or "unknown")
        self.is_away = not is_sent
        return result

    @property
    def is_in_trouble(self) -> bool:
        """Whether the last batch failed, or the first attempt to send the current one."""
        return self.is_away or (self._complaints.is_sending and self._complaints.reason is not None)

    def shutdown(self) -> None:
        if not self._is_shut_down:  # the library warns of a second time
            self._is_shut_down = True
            self._exporter.shutdown()


class _Complaints(logging.Handler):
    """Handles the library's log: an error of sending becomes `reason`, all else is logged once, without values."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.is_sending = False
        self.reason: str | None = None
        self._logged: set[str] = set()

    @contextlib.contextmanager
    def of_sending(self) -> Iterator[None]:
        """The context in which a batch is sent."""
        self.is_sending, self.reason = True, None
        try:
            yield
        finally:
            self.is_sending = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.is_sending and record.name.startswith("opentelemetry.exporter."):
            self.reason = _reason(record.args) or self.reason or "no success in time"
        elif (said := str(record.msg)) not in self._logged:
            self._logged.add(said)
            get_logger().warning("tracing.warned", library=record.name, message=said)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """The context in which this handler replaces all others of the library's log."""
        log = logging.getLogger("opentelemetry")
        log.addHandler(self)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(self)
            log.propagate = True


def _reason(quoted: object) -> str | None:
    """Why sending failed: the class or the status among a log line's values, since an error's message has addresses."""
    for one in quoted if isinstance(quoted, tuple) else ():
        if isinstance(one, Exception):
            return type(one).__name__
        if isinstance(one, int) and 100 <= one <= 599:
            return f"answered {one}"
    return None


def _queue_spans_max() -> int:
    text = os.environ.get(_QUEUE_VARIABLE, str(QUEUE_SPANS_MAX))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{_QUEUE_VARIABLE} must be a whole number")
    return int(text)


@contextlib.contextmanager
def opened(
    service: str, make_exporter: Callable[[], SpanExporter] = OTLPSpanExporter, *, stop_s: float = STOP_S
) -> Iterator[OtlpTracer]:
    """A tracer for `service`, configured by OpenTelemetry's variables; SettingError if one is invalid.

    Empty variables are removed: the specification treats them as unset, the library does not treat all of them so.
    """
    for name in [name for name, text in os.environ.items() if name.startswith("OTEL_") and not text.strip()]:
        del os.environ[name]
    complaints = _Complaints()
    with complaints.heard():
        try:
            name = os.environ.get("OTEL_SERVICE_NAME", service)
            tracer = OtlpTracer(name, make_exporter(), complaints, spans_max=_queue_spans_max(), stop_s=stop_s)
        except (ValueError, RuntimeError) as error:
            raise SettingError(f"the OpenTelemetry settings (OTEL_…) are invalid: {error}") from error
        try:
            yield tracer
        finally:
            tracer.close()
