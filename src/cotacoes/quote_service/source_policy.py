"""How the source is called: deadlines, retries and the circuit breaker, from the settings."""

from __future__ import annotations

from cotacoes.adapters.http_client import HttpClient
from cotacoes.config import Settings
from cotacoes.patterns.resilience import CircuitBreakerConfig, ResilienceConfig, ResiliencePolicy, RetryConfig
from cotacoes.quote_service.source_pages import ANSWER_BYTES_MAX
from cotacoes.quote_service.tape import WAIT_S
from cotacoes.web.upstreams import Upstreams

MINIMUM_CALLS = 50  # of fewer calls, one in five of which fails, half may do so by chance
ROUND_MARGIN_S = 0.05


def source_client(settings: Settings) -> HttpClient:
    """The client of the source; on a tape an answer may take `WAIT_S` longer, and be longer."""
    if settings.source_mode == "tape":
        return HttpClient(deadline_s=settings.fetch_deadline_s + WAIT_S, bytes_max=ANSWER_BYTES_MAX)
    return HttpClient(deadline_s=settings.fetch_deadline_s, bytes_max=settings.fetch_bytes_max)


def source_policy(settings: Settings, upstreams: Upstreams) -> ResiliencePolicy:
    """The policy of the route that is called, added to the upstreams of this service."""
    is_tape = settings.source_mode == "tape"
    fetch_s = settings.fetch_deadline_s + (WAIT_S if is_tape else 0.0)
    breaker = CircuitBreakerConfig(
        failure_rate_threshold=settings.breaker_failure_rate,
        minimum_number_of_calls=MINIMUM_CALLS,
        consecutive_failures_threshold=settings.breaker_failures,
        slow_call_duration_threshold=fetch_s,
        wait_duration_in_open=settings.breaker_open_s,
        wait_duration_multiplier=2.0,
        max_wait_duration_in_open=max(settings.breaker_open_s, settings.breaker_open_max_s),
        permitted_calls_in_half_open=settings.breaker_probes,
        max_wait_duration_in_half_open=max(10.0, 3 * fetch_s),
    )
    policy = ResilienceConfig(
        # above an attempt's time, so that a hanging attempt ends by its own, which counts against the source
        deadline=max(0.0 if is_tape else settings.poll_interval_s, fetch_s + ROUND_MARGIN_S),
        attempt_timeout=fetch_s,
        retry=RetryConfig(max_attempts=settings.fetch_attempts),
    )
    return upstreams.add(f"{settings.source_service}.{'quotes' if is_tape else 'quote'}", breaker, policy)
