"""The metrics of every service: one class each, with each metric's name, help text and labels.

Names follow https://prometheus.io/docs/practices/naming/: the prefix `cotacoes_`, the thing that is counted or
measured, its base unit (seconds, bytes), and `_total` for counters. An attribute has its metric's name without the
unit. A bucket list reaches as far as its metric can: values beyond the last bucket cannot be distinguished.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from cotacoes.observability.logs import dropped_lines

NAMESPACE = "cotacoes"

# from an answer out of memory, under 1 ms, to 60 s, the longest `request_deadline_s` that can be set
REQUEST_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# a commit waits for the disk to sync: about 1 ms, up to seconds if the disk is overloaded
RECORD_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
# from the poll interval to `age_max_s`, 300 s unless set; the last bucket is for those who set more
FALLBACK_AGE_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """The metrics of one service, in a registry of its own, so that two services may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    @functools.cached_property
    def http(self) -> HttpMetrics:
        """The metrics of the HTTP server."""
        return HttpMetrics(self)

    @functools.cached_property
    def background_restarts(self) -> Counter:
        """The restarts of background tasks."""
        text = "Background tasks restarted after an unexpected error"
        return self.counter("background_restarts_total", text, "task")

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, namespace=NAMESPACE, registry=self.registry, buckets=buckets)


class DroppedLogLines(Collector):
    """The lines of this process's log that were dropped, counted by the log itself."""

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("cotacoes_log_lines_dropped", "Log lines that were not written", dropped_lines())


class HttpMetrics:
    """The HTTP server of any service."""

    def __init__(self, metrics: Metrics) -> None:
        metrics.registry.register(DroppedLogLines())
        self.requests = metrics.counter("http_requests_total", "Requests answered", "route", "status")
        self.request_duration = metrics.histogram(
            "http_request_duration_seconds",
            "Time from a request's headers to the last byte of its answer",
            "route",
            buckets=REQUEST_BUCKETS_S,
        )
        self.refusals = metrics.counter("http_refusals_total", "Requests and connections refused", "reason")


class SpanMetrics:
    """Tracing, if a collector is configured."""

    def __init__(self, metrics: Metrics) -> None:
        self.spans = metrics.counter(
            "spans_total", "Spans by outcome; failed means that the collector rejected it", "outcome"
        )

    def count(self, outcome: str, count: int) -> None:
        self.spans.labels(outcome=outcome).inc(count)


class ResilienceMetrics:
    """The calls of a service to its upstreams."""

    def __init__(self, metrics: Metrics) -> None:
        self.outbound_calls = metrics.counter(
            "outbound_calls_total", "Calls, each retry included, and calls not permitted", "upstream", "outcome"
        )
        self.slow_calls = metrics.counter("slow_calls_total", "Calls slower than the breaker's threshold", "upstream")
        self.retries = metrics.counter("retries_total", "Calls that repeated a failed one", "upstream")
        self.retries_stopped = metrics.counter(
            "retries_stopped_total", "Calls that failed and were not tried again", "upstream", "reason"
        )
        self.retry_budget = metrics.gauge("retry_budget", "Retries that the budget allows now", "upstream")
        self.breaker_transitions = metrics.counter(
            "breaker_transitions_total", "Changes of a breaker's state", "upstream", "to_state", "reason"
        )
        self.breaker_state = metrics.gauge(
            "breaker_state", "1 for the breaker's current state, 0 for the others", "upstream", "state"
        )
        self.fallbacks = metrics.counter(
            "fallbacks_total", "Cached answers served (or unavailable) after a failed call", "upstream", "reason"
        )
        self.fallback_age = metrics.histogram(
            "fallback_age_seconds", "Age of the cached answers served", "upstream", buckets=FALLBACK_AGE_BUCKETS_S
        )


class ExternalMetrics:
    """external_service."""

    def __init__(self, metrics: Metrics) -> None:
        self.source_requests = metrics.counter(
            "source_requests_total", "Requests for prices by fault: none, error or an injected kind", "fault"
        )
        self.replay_lines = metrics.counter(
            "replay_lines_total", "Lines read from a recording; late lines go back in time", "outcome"
        )
        self.venue_books = metrics.counter(
            "venue_books_total",
            "Books of the simulated venues, by connection: sent, skipped (the client does not read), lost, garbage",
            "venue",
            "outcome",
        )


class FeedMetrics:
    """feed_service. `reason` of a closing is that of `/v1/venues`."""

    def __init__(self, metrics: Metrics) -> None:
        self.venue_live = metrics.gauge("venue_live", "1 if the venue sends books, 0 if not", "venue")
        self.connections_opened = metrics.counter(
            "venue_connections_opened_total", "Connections to a venue that were begun", "venue"
        )
        self.connections_closed = metrics.counter(
            "venue_connections_closed_total",
            "Connections to a venue that ended or could not be opened",
            "venue",
            "reason",
        )
        self.frames_malformed = metrics.counter(
            "venue_frames_malformed_total", "Frames of a venue that could not be read", "venue"
        )
        self.sequence_gaps = metrics.counter(
            "venue_sequence_gaps_total", "Jumps of a venue's own sequence number", "venue"
        )
        self.consensus_prices = metrics.counter(
            "consensus_prices_total", "Consensus prices put on the tape", "coin", "state"
        )
        self._consensus_state = metrics.gauge(
            "consensus_state", "1 for the consensus' present state, 0 for the others", "coin", "state"
        )
        self._venues_used = metrics.gauge("consensus_venues_used", "Venues used for the present price", "coin")
        self._venues = metrics.gauge("consensus_venues", "Venues that list the coin", "coin")

    def show_consensus(self, coin: str, state: str, *, used: int, of: int) -> None:
        """Show the present consensus of a coin."""
        for one in ("agreed", "thin", "disputed", "none"):
            self._consensus_state.labels(coin=coin, state=one).set(one == state)
        self._venues_used.labels(coin=coin).set(used)
        self._venues.labels(coin=coin).set(of)


class QuoteMetrics:
    """quote_service."""

    def __init__(self, metrics: Metrics) -> None:
        self._add_intake(metrics)
        self._add_log(metrics)
        self._add_delivery(metrics)
        self._add_publishing(metrics)
        self._add_discrepancies(metrics)

    def _add_intake(self, metrics: Metrics) -> None:
        self.prices_rejected = metrics.counter("prices_rejected_total", "Prices not recorded", "coin", "reason")
        self.source_gaps = metrics.counter("source_gaps_total", "Gaps in the source's tape")
        self.clock_behind = metrics.gauge(
            "clock_behind_seconds", "How far the clock is behind the newest stored time; 0 if it is not"
        )

    def _add_log(self, metrics: Metrics) -> None:
        self.quotes_recorded = metrics.counter("quotes_recorded_total", "Quotes committed to the local log", "coin")
        self.record_duration = metrics.histogram(
            "record_duration_seconds",
            "Time from the source's answer to the commit",
            buckets=RECORD_BUCKETS_S,
        )
        self.log_size = metrics.gauge("quote_log_size_bytes", "Size of the local log")
        self.log_failures = metrics.counter("quote_log_failures_total", "Commits that the local log refused")

    def _add_delivery(self, metrics: Metrics) -> None:
        self.quotes_delivered = metrics.counter("quotes_delivered_total", "Quotes that a shard acknowledged", "coin")
        self.deliveries_failed = metrics.counter(
            "deliveries_failed_total", "Batches that a shard did not acknowledge", "coin"
        )
        self.quotes_pending = metrics.gauge("quotes_pending", "Quotes in the log that are not in the shard yet", "coin")
        self.oldest_pending_age = metrics.gauge(
            "oldest_pending_age_seconds", "Age of the oldest quote that is not in the shard yet; 0 if all are", "coin"
        )
        self.last_delivered = metrics.gauge(
            "last_delivered_timestamp_seconds", "Unix time of the newest quote that the shard acknowledged", "coin"
        )
        self.position_conflicts = metrics.counter(
            "position_conflicts_total", "Quotes sent for a position where the shard holds another quote", "coin"
        )

    def _add_publishing(self, metrics: Metrics) -> None:
        self.quotes_published = metrics.counter("quotes_published_total", "Quotes published to Redis", "coin")
        self.publish_failures = metrics.counter(
            "publish_failures_total", "Quotes whose publishing failed, timeouts included", "coin"
        )
        self.publish_timeouts = metrics.counter(
            "publish_timeouts_total", "Quotes that Redis did not acknowledge in time; they may have been sent", "coin"
        )
        self.messages_without_subscriber = metrics.counter(
            "messages_without_subscriber_total", "Messages that reached no subscriber", "coin"
        )

    def _add_discrepancies(self, metrics: Metrics) -> None:
        self.holes_unaccepted = metrics.gauge(
            "holes_unaccepted", "Holes in the history that no operator has accepted yet", "coin"
        )
        self.orphans_unaccepted = metrics.gauge(
            "orphans_unaccepted", "Quotes outside the history that no operator has accepted yet", "coin"
        )
        self.quotes_orphaned = metrics.counter(
            "quotes_orphaned_total", "Quotes that came too late for the history and became orphans", "coin"
        )


class AggregatorMetrics:
    """aggregator_service; `still_running` counts the cancelled branches that have not ended yet."""

    def __init__(self, metrics: Metrics, still_running: Callable[[], int]) -> None:
        self.reports = metrics.counter("reports_total", "Reports made", "complete")
        self.report_branches = metrics.counter(
            "report_branches_total", "Branches of all reports, by how each ended", "branch", "status"
        )
        self.branches_abandoned = metrics.gauge("branches_abandoned", "Cancelled branches that have not ended yet")
        self.branches_abandoned.set_function(still_running)


class StreamMetrics:
    """The streams of gateway_service, and the Redis feed behind them. `wire` is websocket or sse."""

    def __init__(self, metrics: Metrics) -> None:
        self.streams_open = metrics.gauge("streams_open", "Open streams", "wire")
        self.streams_refused = metrics.counter("streams_refused_total", "Streams refused", "reason")
        self.streams_ended = metrics.counter("streams_ended_total", "Streams ended by the service", "wire", "reason")
        self.stream_events = metrics.counter(
            "stream_events_total", "Quotes and gaps sent, summed over all clients", "wire"
        )
        self.feed_gaps = metrics.counter(
            "feed_gaps_total",
            "Faults of the Redis feed; kind is missed, recovered, lost, retracted or dismissed",
            "coin",
            "kind",
        )
        self.feed_messages_ignored = metrics.counter(
            "feed_messages_ignored_total",
            "Messages of the Redis feed ignored; reason is malformed, other_coin, old, contradicted or foreign",
            "coin",
            "reason",
        )
        self.ring_size = metrics.gauge("stream_ring_size_bytes", "Approximate memory used by the rings of new quotes")

    def count_ignored(self, coin: str, reason: str, count: int) -> None:
        """Count `count` more ignored messages."""
        self.feed_messages_ignored.labels(coin=coin, reason=reason).inc(count)
