"""What brings prices: the poll of the newest ones or the tape of all, by the settings, behind one circuit breaker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from cotacoes.adapters.http_client import HttpClient
from cotacoes.config import Settings
from cotacoes.model.quote import Quote
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.resilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    ResilienceConfig,
    ResiliencePolicy,
    RetryConfig,
)
from cotacoes.quote_service.poll import Poll
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recent_prices import JumpLimit
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.source import HttpSource
from cotacoes.quote_service.source_tape import ANSWER_BYTES_MAX, HttpTape
from cotacoes.quote_service.tape import WAIT_S, TapeTaker
from cotacoes.quote_service.validation import Validator
from cotacoes.web.upstreams import Upstreams

SOURCE = "external_service"
MINIMUM_CALLS = 50  # of fewer calls, one in five of which fails, half may do so by chance
ROUND_MARGIN_S = 0.05


@dataclass(frozen=True)
class Intake:
    """The wired intake; `client` is to be open while the taker runs."""

    client: HttpClient
    breaker: CircuitBreaker
    taker: Poll | TapeTaker


def build_intake(
    settings: Settings,
    recorder: Recorder,
    publisher: Publisher,
    metrics: QuoteMetrics,
    upstreams: Upstreams,
    *,
    now: Callable[[], datetime],
    currency_of: Callable[[str], str | None],
    on_recorded: Callable[[list[Quote]], None],
) -> Intake:
    """Wire it; nothing is opened yet. `currency_of` is what the directory says of a coin."""
    calls = source_policy(settings, upstreams)
    breaker = calls.breaker
    assert breaker is not None
    is_tape = settings.source_mode == "tape"
    screen = Validator(jump_limit(settings), is_tape=is_tape, currency_of=currency_of)
    if not is_tape:
        client = HttpClient(deadline_s=settings.fetch_deadline_s, bytes_max=settings.fetch_bytes_max)
        poll = Poll(
            HttpSource(client, settings.url(SOURCE), recorder.histories),
            calls,
            screen,
            recorder,
            metrics,
            interval_s=settings.poll_interval_s,
            now=now,
            clock=time.monotonic,
            on_recorded=on_recorded,
        )
        return Intake(client, breaker, poll)
    client = HttpClient(deadline_s=settings.fetch_deadline_s + WAIT_S, bytes_max=ANSWER_BYTES_MAX)
    taker = TapeTaker(
        HttpTape(client, settings.url(SOURCE), recorder.histories),
        calls,
        screen,
        recorder,
        publisher,
        metrics,
        interval_s=settings.poll_interval_s,
        keeps_times=settings.replay_times == "original",
        now=now,
        on_recorded=on_recorded,
    )
    return Intake(client, breaker, taker)


def jump_limit(settings: Settings) -> JumpLimit:
    """What the settings call an absurd step, and when it is believed."""
    return JumpLimit(
        Decimal(str(settings.jump_factor_max)),
        timedelta(seconds=settings.jump_window_s),
        settings.jump_confirm_prices,
        timedelta(seconds=settings.jump_confirm_s),
    )


def source_policy(settings: Settings, upstreams: Upstreams) -> ResiliencePolicy:
    """How the source is called: on a tape a call may wait for something new, and takes so much longer."""
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
        # above a try's time, so that a hanging try ends by that, which is evidence, and not by the round's
        deadline=max(settings.poll_interval_s, fetch_s + ROUND_MARGIN_S) if not is_tape else fetch_s + ROUND_MARGIN_S,
        attempt_timeout=fetch_s,
        retry=RetryConfig(max_attempts=settings.fetch_attempts),
    )
    return upstreams.add(f"{SOURCE}.{'quotes' if is_tape else 'quote'}", breaker, policy)
