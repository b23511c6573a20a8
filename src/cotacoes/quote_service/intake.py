"""What brings prices: the poll of the newest ones or the tape of all, by the settings, behind one circuit breaker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from cotacoes.adapters.http_client import HttpClient
from cotacoes.adapters.source_http import HttpSource
from cotacoes.adapters.source_tape import ANSWER_BYTES_MAX, HttpTape
from cotacoes.config import Settings
from cotacoes.patterns.circuit_breaker import CircuitBreaker, CircuitBreakerConfig, State, StateChanged
from cotacoes.patterns.retry import RetryPolicy
from cotacoes.quote import Quote
from cotacoes.quote_service.guarded import GuardedCalls
from cotacoes.quote_service.poll import Poll
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.screen import JumpLimit, Screen
from cotacoes.quote_service.tape import WAIT_S, TapeTaker
from cotacoes.telemetry import QuoteMetrics, get_logger

SOURCE = "external_service"


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
    random: Random,
    *,
    now: Callable[[], datetime],
    on_recorded: Callable[[list[Quote]], None],
) -> Intake:
    """Wire it; nothing is opened yet."""
    breaker = _breaker(settings, metrics, random)
    calls = GuardedCalls(breaker, RetryPolicy(attempts=settings.fetch_attempts), metrics, random)
    jump = JumpLimit(Decimal(str(settings.jump_factor_max)), timedelta(seconds=settings.jump_window_s))
    is_tape = settings.source_mode == "tape"
    screen = Screen(recorder.histories, jump, is_tape=is_tape)
    if not is_tape:
        client = HttpClient(deadline_s=settings.fetch_deadline_s, bytes_max=settings.fetch_bytes_max)
        poll = Poll(
            HttpSource(client, settings.url(SOURCE)),
            calls,
            screen,
            recorder,
            metrics,
            interval_s=settings.poll_interval_s,
            deadline_s=settings.fetch_deadline_s,
            now=now,
            clock=time.monotonic,
            on_recorded=on_recorded,
        )
        return Intake(client, breaker, poll)
    client = HttpClient(deadline_s=settings.fetch_deadline_s + WAIT_S, bytes_max=ANSWER_BYTES_MAX)
    taker = TapeTaker(
        HttpTape(client, settings.url(SOURCE)),
        calls,
        screen,
        recorder,
        publisher,
        metrics,
        interval_s=settings.poll_interval_s,
        deadline_s=settings.fetch_deadline_s,
        keeps_times=settings.replay_times == "original",
        now=now,
        on_recorded=on_recorded,
    )
    return Intake(client, breaker, taker)


def _breaker(settings: Settings, metrics: QuoteMetrics, random: Random) -> CircuitBreaker:
    level = {State.CLOSED: 0.0, State.HALF_OPEN: 0.5, State.OPEN: 1.0}
    event = {State.CLOSED: "breaker.closed", State.HALF_OPEN: "breaker.half_opened", State.OPEN: "breaker.opened"}

    def tell(change: StateChanged) -> None:
        metrics.breaker_state.set(level[change.after])
        facts = {"failures": change.failures, "retry_after_s": round(change.retry_after or 0.0, 1)}
        get_logger().info(event[change.after], **(facts if change.after is State.OPEN else {}))

    config = CircuitBreakerConfig(
        consecutive_failures_threshold=settings.breaker_failures,
        wait_duration_in_open=settings.breaker_open_s,
        permitted_calls_in_half_open=settings.breaker_probes,
        max_wait_duration_in_half_open=max(10.0, 3 * settings.fetch_deadline_s),
    )
    return CircuitBreaker("external_service", config, clock=time.monotonic, random=random, on_event=tell)
