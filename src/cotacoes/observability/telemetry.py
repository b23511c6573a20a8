"""The names of log events and metrics, and how both are written.

A log event is a fact in the past, for a change of state or a failure (`breaker.opened coin=bitcoin failures=5`);
what happens per quote is counted, not logged. Logs go to stderr: one JSON object a line where a program reads them,
short coloured text on a terminal. A log that cannot be written, or that nobody reads, never holds up or fails the
work: lines are dropped and counted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from cotacoes.observability import printer

Logger = structlog.stdlib.BoundLogger

_outputs: list[printer.Printer] = []  # of this process's log, so that the lines they dropped can be counted

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
AGE_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # 300 s is the default limit
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


@contextlib.contextmanager
def logging_to_stderr(service: str, level: str = "info", *, in_words: bool = False) -> Iterator[None]:
    """Within, this process logs to stderr, which never waits for its reader and never fails with it.

    `in_words` is for a command: a person reads its log, whatever stderr is.
    """
    terminal = sys.stderr.isatty()

    def dropped_line(count: int) -> str:
        if terminal or in_words:
            return f"… {count} lines of the log were dropped"
        time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return json.dumps(
            {"event": "log.dropped", "count": count, "level": "warning", "time": time, "service": service}
        )

    with printer.unblocked_stderr(dropped_line) as output:
        _outputs.append(output)
        configure_logging(service, level, in_words=in_words)
        yield


def configure_logging(service: str, level: str = "info", *, in_words: bool = False) -> None:
    """Send this process's log to stderr, each line with `service`; `in_words` as above."""
    terminal = sys.stderr.isatty()
    shape: list[Any]
    if in_words:
        shape = [structlog.processors.format_exc_info, words]
    elif terminal:
        # plain tracebacks: the default prints the values of all variables, tokens among them
        shape = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        shape = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]

    def name_service(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            name_service,
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s", force=True)


def words(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """`12:00:01  bus away: Redis is not reachable`, `12:00:02  history away (coin bitcoin): no time left`."""
    reason, trace = event.get("reason"), event.get("exception")
    hidden = {"event", "level", "time", "service", "reason", "exception"}
    about = ", ".join(f"{name} {value}" for name, value in event.items() if name not in hidden)
    line = f"{datetime.now().astimezone():%H:%M:%S}  {str(event['event']).replace('.', ' ')}"
    line += (f" ({about})" if about else "") + (f": {reason}" if reason else "")
    text = "".join(one if one.isprintable() else "�" for one in line)
    return f"{text}\n{trace}" if trace else text


def get_logger() -> Logger:
    """The structured logger; configure_logging decides where it writes."""
    logger: Logger = structlog.get_logger()
    return logger


class FailureLog:
    """Says unexpected errors in the log: each kind once, with its traceback, and `KINDS_MAX` of them at most.

    A kind is the error's type and where it was raised. What repeats is counted by whoever notes it.
    """

    KINDS_MAX = 50

    def __init__(self) -> None:
        self._kinds: set[tuple[str, type[BaseException], str, int]] = set()

    def note(self, event: str, error: BaseException, **facts: object) -> None:
        """Say that something failed, unless this kind has been said."""
        kind = (event, type(error), *_raised_at(error))
        if kind not in self._kinds and len(self._kinds) < self.KINDS_MAX:
            self._kinds.add(kind)
            get_logger().error(event, **facts, reason=type(error).__name__, exc_info=error)


def _raised_at(error: BaseException) -> tuple[str, int]:
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)


class Metrics:
    """The metrics of one service, in a registry of its own, so that two may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    @functools.cached_property
    def http(self) -> HttpMetrics:
        """What every HTTP service counts."""
        return HttpMetrics(self)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"cotacoes_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"cotacoes_{name}", text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """`buckets` reach as far as what is measured can: beyond the last one nothing is told apart."""
        return Histogram(f"cotacoes_{name}", text, labels, registry=self.registry, buckets=buckets)


class DroppedLogLines(Collector):
    """Counts the lines of this process's log that were not written."""

    def collect(self) -> Iterable[Metric]:
        total = sum(output.dropped for output in _outputs)
        yield CounterMetricFamily("cotacoes_log_lines_dropped", "Lines of the log that were not written", value=total)


class HttpMetrics:
    """What every HTTP service counts."""

    def __init__(self, metrics: Metrics) -> None:
        metrics.registry.register(DroppedLogLines())
        self.requests = metrics.counter("http_requests", "Requests answered", "route", "status")
        self.seconds = metrics.histogram(
            "http_request_seconds", "From headers to the last byte sent", "route", buckets=LATENCY_BUCKETS_S
        )
        self.refused = metrics.counter("http_refused", "Requests or connections turned away", "reason")


class SpanMetrics:
    """What becomes of spans, where they are wanted."""

    def __init__(self, metrics: Metrics) -> None:
        self.spans = metrics.counter("spans", "Spans sent, not taken by the collector (failed), or dropped", "outcome")

    def count(self, outcome: str, count: int) -> None:
        self.spans.labels(outcome=outcome).inc(count)


class ExternalMetrics:
    """What external_service counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.served = metrics.counter("source_served", "Requests for prices; fault is none, error or a kind", "fault")
        self.replay_frames = metrics.counter(
            "replay_frames", "Lines of the recording; late ones, which go back in time, count as price too", "outcome"
        )


class QuoteMetrics:
    """What quote_service counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.screened = metrics.counter("screened", "Prices not recorded", "coin", "reason")
        self.source_gaps = metrics.counter("source_gaps", "Holes in the source's tape")
        self.recorded = metrics.counter("recorded", "Quotes committed to the log", "coin")
        self.delivered = metrics.counter("delivered", "Quotes that a shard answered for", "coin")
        self.deliveries_failed = metrics.counter("deliveries_failed", "Batches that a shard did not answer", "coin")
        self.pending = metrics.gauge("pending", "Quotes in the log that the shard does not have yet", "coin")
        self.pending_oldest = metrics.gauge(
            "pending_oldest_seconds",
            "Age of the oldest quote that the shard does not have yet, 0 where it has all",
            "coin",
        )
        self.delivered_through = metrics.gauge(
            "delivered_through_seconds", "Unix time of the newest quote that the shard answered for", "coin"
        )
        self.conflicts = metrics.counter(
            "conflicts", "Quotes sent under a position at which the shard holds another one", "coin"
        )
        self.clock_behind = metrics.gauge(
            "clock_behind_seconds", "By how much the newest stored time lies ahead of the clock, 0 if it does not"
        )
        self.holes = metrics.gauge("holes_unaccepted", "Holes of the history that nobody accepted yet", "coin")
        self.orphans = metrics.gauge("orphans_unaccepted", "Quotes beside the history, not accepted yet", "coin")
        self.refused = metrics.counter("quotes_refused", "Quotes that became orphans, too late for the history", "coin")
        self.published = metrics.counter("published", "Quotes published", "coin")
        self.publish_failed = metrics.counter("publish_failed", "Quotes whose publish failed", "coin")
        self.publish_late = metrics.counter(
            "publish_late",
            "Those of them that Redis did not answer for by the deadline, and that may have been heard",
            "coin",
        )
        self.unheard = metrics.counter("unheard", "Messages that no subscriber heard", "coin")
        self.log_bytes = metrics.gauge("log_bytes", "Size of the local log")
        self.log_failures = metrics.counter("log_failures", "Commits that the log refused")
        self.record_seconds = metrics.histogram(
            "record_seconds", "From the source's answer to the commit in the log", buckets=LATENCY_BUCKETS_S
        )


class ResilienceMetrics:
    """What every service counts of the endpoints that it calls."""

    def __init__(self, metrics: Metrics) -> None:
        self.calls = metrics.counter("calls", "Calls made, retries included, or not permitted", "endpoint", "outcome")
        self.slow_calls = metrics.counter("slow_calls", "Calls longer than the breaker's threshold", "endpoint")
        self.retries = metrics.counter("retries", "Calls that were tries after the first", "endpoint")
        self.retries_stopped = metrics.counter(
            "retries_stopped", "Calls that failed for good, by why there was no further try", "endpoint", "reason"
        )
        self.retry_budget = metrics.gauge("retry_budget", "Retries that may be made now", "endpoint")
        self.transitions = metrics.counter(
            "breaker_transitions", "Changes of a breaker's state", "endpoint", "to_state", "reason"
        )
        self.fallbacks = metrics.counter(
            "fallbacks", "Answers of before given, or missed, in place of one that did not come", "endpoint", "reason"
        )
        self.fallback_age = metrics.histogram(
            "fallback_age_seconds", "Age of the earlier answers given", "endpoint", buckets=AGE_BUCKETS_S
        )
        self.breaker_state = metrics.gauge(
            "breaker_state", "1 for the state in which the breaker is", "endpoint", "state"
        )


class StreamMetrics:
    """What gateway_service counts of its streams. `wire` is websocket or sse."""

    def __init__(self, metrics: Metrics) -> None:
        self.open = metrics.gauge("streams", "Streams that are open", "wire")
        self.refused = metrics.counter("streams_refused", "Streams that were not let in", "reason")
        self.ended = metrics.counter("streams_ended", "Streams that we ended", "wire", "reason")
        self.delivered = metrics.counter("stream_events", "Quotes and gaps sent, to all clients together", "wire")
        self.upstream = metrics.counter(
            "upstream_gaps",
            "What Redis lost or falsified; kind is missed, recovered, lost, retracted or dismissed",
            "coin",
            "kind",
        )
        self.ignored = metrics.counter(
            "upstream_ignored",
            "Lines of Redis that were ignored; reason is malformed, other_coin, old, contradicted or foreign",
            "coin",
            "reason",
        )
        self.ring_bytes = metrics.gauge("ring_bytes", "About what the rings take")

    def count_ignored(self, coin: str, reason: str, count: int) -> None:
        """So many more were ignored."""
        self.ignored.labels(coin=coin, reason=reason).inc(count)


class AggregatorMetrics:
    """What aggregator_service counts. `still_running` tells how many branches ignore their cancellation just now."""

    def __init__(self, metrics: Metrics, still_running: Callable[[], int]) -> None:
        self.reports = metrics.counter("reports", "Reports made", "complete")
        self.sources = metrics.counter("report_sources", "How each source did, report by report", "source", "status")
        self.abandoned = metrics.gauge("branches_abandoned", "Cancelled branches that have not ended")
        self.abandoned.set_function(still_running)
